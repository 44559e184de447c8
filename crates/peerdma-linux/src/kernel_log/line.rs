//! One line of a log, without what `dmesg`, `journalctl` and `/dev/kmsg` put before it.

use super::{Event, Kind, MAX_TEXT};
use peerdma::addr::Iova;
use peerdma::pcie::PciAddr;

/// A line's message, and the device that it starts with.
pub(super) struct Line<'a> {
    /// The whole message.
    pub(super) message: &'a str,
    /// `driver 0000:03:00.0: ` before it, as `dev_printk` writes (Linux 7.2 `dev_vprintk_emit`).
    pub(super) device: Option<PciAddr>,
    /// The message without that.
    pub(super) rest: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a str) -> Self {
        let message = without_stamp(cut(line)).trim();
        let (device, rest) = match device(message) {
            Some((device, rest)) => (Some(device), rest),
            None => (None, message),
        };
        Self { message, device, rest }
    }

    /// An event about the line's own device.
    pub(super) fn event(&self, kind: Kind) -> Event {
        self.event_of(kind, self.device, None)
    }

    pub(super) fn event_of(&self, kind: Kind, device: Option<PciAddr>, address: Option<Iova>) -> Event {
        let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Event { kind, device, address, text: self.message.chars().map(clean).collect() }
    }

    /// What follows `key` in the message, up to white space or a bracket.
    pub(super) fn word_after(&self, key: &str) -> Option<&'a str> {
        word_after(self.message, key)
    }
}

/// The first [`MAX_TEXT`] bytes, at a character's end.
fn cut(line: &str) -> &str {
    let mut end = line.len().min(MAX_TEXT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

/// What follows `key`, up to white space or a bracket; `None` where nothing does.
pub(super) fn word_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let after = &text[text.find(key)? + key.len()..];
    let end = after.find(|c: char| c.is_whitespace() || matches!(c, ']' | ')' | ',')).unwrap_or(after.len());
    (end > 0).then(|| &after[..end])
}

/// A number in hexadecimal, with `0x` or without.
pub(super) fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// `driver 0000:03:00.0: rest`.
fn device(message: &str) -> Option<(PciAddr, &str)> {
    let (driver, after) = message.split_once(' ')?;
    let (address, rest) = after.split_once(": ").or_else(|| Some((after.strip_suffix(':')?, "")))?;
    // A driver's name is one word, and lspci-like lists have no colon there.
    if driver.ends_with(':') {
        return None;
    }
    Some((address.parse().ok()?, rest.trim_start()))
}

/// Takes stamps off until there is none.
fn without_stamp(line: &str) -> &str {
    let mut rest = line.trim_start();
    // Each form stands at most once, in any of a few orders.
    for _ in 0..6 {
        let shorter = record(rest)
            .or_else(|| level(rest))
            .or_else(|| bracket(rest))
            .or_else(|| facility(rest))
            .or_else(|| journal(rest));
        match shorter {
            Some(shorter) => rest = shorter.trim_start(),
            None => break,
        }
    }
    rest
}

/// `6,1234,5678901,-;` of `/dev/kmsg`.
fn record(line: &str) -> Option<&str> {
    let (head, rest) = line.split_once(';')?;
    let numbers = head.starts_with(|c: char| c.is_ascii_digit()) && head.matches(',').count() >= 3;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-' | b'=');
    (numbers && head.bytes().all(plain)).then_some(rest)
}

/// `<6>`.
fn level(line: &str) -> Option<&str> {
    let (digits, rest) = line.strip_prefix('<')?.split_once('>')?;
    (digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(rest)
}

/// `[   12.345678]`, `[Sat Nov 21 19:01:00 2026]`, `[  T123]`; not `[drm]` or `[DMA Read NO_PASID]`.
fn bracket(line: &str) -> Option<&str> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    let inside = inside.trim();
    let seconds = inside.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'+'));
    let thread = inside.strip_prefix(['T', 'C']).is_some_and(|id| id.trim().bytes().all(|byte| byte.is_ascii_digit()));
    let date = inside.len() <= 32 && inside.matches(':').count() >= 1 && inside.split_whitespace().count() >= 3;
    (!inside.is_empty() && (seconds || thread || date)).then_some(rest)
}

/// `kern  :warn  : ` of `dmesg -x`.
fn facility(line: &str) -> Option<&str> {
    let mut parts = line.splitn(3, ':');
    let (facility, level, rest) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?);
    let levels = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
    (facility == "kern" && levels.contains(&level)).then_some(rest)
}

/// `Nov 21 19:01:00 host kernel: `.
fn journal(line: &str) -> Option<&str> {
    let (head, rest) = line.split_once(" kernel: ")?;
    let stamp = head.len() <= 80 && head.contains(':') && head.bytes().any(|byte| byte.is_ascii_digit());
    stamp.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_s_stamp_comes_off() {
        for line in [
            "nvme 0000:03:00.0: hello",
            "[   12.345678] nvme 0000:03:00.0: hello",
            "<4>[   12.345678][  T123] nvme 0000:03:00.0: hello",
            "[Sat Nov 21 19:01:00 2026] nvme 0000:03:00.0: hello",
            "4,1234,5678901,-;nvme 0000:03:00.0: hello",
            "4,1234,5678901,-,caller=T1;nvme 0000:03:00.0: hello",
            "kern  :warn  : [   12.3] nvme 0000:03:00.0: hello",
            "Nov 21 19:01:00 host-1 kernel: nvme 0000:03:00.0: hello",
            "2026-11-21T19:01:00+0000 host kernel: [   12.3] nvme 0000:03:00.0: hello",
        ] {
            let read = Line::read(line);
            assert_eq!((read.device, read.rest), ("0000:03:00.0".parse().ok(), "hello"), "{line}");
            assert_eq!(read.message, "nvme 0000:03:00.0: hello", "{line}");
        }
        assert_eq!(Line::read("[drm] hello").message, "[drm] hello");
        assert_eq!(Line::read("DMAR: [DMA Read NO_PASID] x").message, "DMAR: [DMA Read NO_PASID] x");
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = format!("{}ä", "x".repeat(MAX_TEXT - 1));
        assert_eq!(Line::read(&long).message.len(), MAX_TEXT - 1);
    }
}
