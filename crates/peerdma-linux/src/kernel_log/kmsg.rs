//! Reading the running kernel's log.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest record that `/dev/kmsg` gives; a smaller buffer makes it answer EINVAL
/// (Linux 7.2 `PRINTK_MESSAGE_MAX`, with room to spare).
const RECORD: usize = 8192;
/// Most records read: a log that grows faster than it is read must not hold anybody.
const MAX_RECORDS: usize = 1 << 18;

/// Why the kernel's log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The log is for privileged readers (`kernel.dmesg_restrict`).
    #[error("the kernel log is not readable: run as root, or give the output of dmesg with --log FILE")]
    Denied,
    /// Anything else.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The running kernel's log as far as it is kept, one message a line; never waits for more.
///
/// # Errors
/// - [`LogError::Denied`]: try as root.
/// - [`LogError::Read`]: there is no such device, as in containers.
pub fn read_kmsg() -> Result<String, LogError> {
    let path = Path::new("/dev/kmsg");
    let named = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => LogError::Denied,
        _ => LogError::Read { path: path.into(), source },
    };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(named)?;
    records(file).map_err(named)
}

/// Reads records, each read giving one, until there is none.
fn records(mut log: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let mut record = [0; RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(len) => push_message(&mut text, &String::from_utf8_lossy(&record[..len])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Records were overwritten before they were read; the next read goes on behind them.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// `6,1,2,-;message`, then lines of properties; bytes that are no print are written `\xNN`
/// (Linux 7.2 `msg_add_ext_text`), a line end among them.
fn push_message(text: &mut String, record: &str) {
    let message = record.split_once(';').map_or(record, |(_, message)| message);
    let mut rest = message.split('\n').next().unwrap_or_default();
    while let Some((before, after)) = rest.split_once("\\x") {
        text.push_str(before);
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text.push_str("\\x");
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one record or error a read, as the device does.
    struct Device(Vec<io::Result<&'static str>>);

    impl Read for Device {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let record = if self.0.is_empty() { Ok("") } else { self.0.remove(0) }?;
            buffer[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    #[test]
    fn records_become_lines_and_lost_ones_do_not_end_the_log() {
        let lost = || Err(io::Error::from(io::ErrorKind::BrokenPipe));
        let device = Device(vec![
            Ok("6,1,2,-;pci 0000:00:00.0: hello\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:00.0\n"),
            lost(),
            Ok("4,9,3,-;\\x09tab and \\x5c, not \\xzz\n"),
            Err(io::Error::from(io::ErrorKind::WouldBlock)),
            Ok("6,10,4,-;never read\n"),
        ]);
        assert_eq!(records(device).unwrap(), "pci 0000:00:00.0: hello\n\ttab and \\, not \\xzz\n");
    }

    #[test]
    fn a_device_that_never_ends_is_left_after_a_while() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer[..2].copy_from_slice(b";x");
                Ok(2)
            }
        }
        assert_eq!(records(Endless).unwrap().lines().count(), MAX_RECORDS);
    }

    #[test]
    fn a_denied_log_says_what_to_do() {
        assert!(LogError::Denied.to_string().contains("--log FILE"));
    }
}
