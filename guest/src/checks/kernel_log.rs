//! The kernel's log since a moment, read from `/dev/kmsg`.
//!
//! Faults are lost on the way there: QEMU hides a fault while an earlier one of the same
//! device is pending, and Linux prints ten lines in five seconds, each fault counting as
//! about three (7.3 `dmar_fault`). So claims ask whether there is a line, never how many,
//! and cause the fault anew until there is one ([`super::bench::Bench::expect_fault`]).

use super::claim::Stop;
use peerdma::pcie::PciAddr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

/// Linux, all architectures that this guest runs on.
const O_NONBLOCK: i32 = 0o4000;

/// Longest record that `/dev/kmsg` gives; a smaller buffer makes it answer EINVAL.
const RECORD: usize = 8192;

/// How long a line is waited for. The fault is raised by an interrupt and printed by its thread.
const PATIENCE: Duration = Duration::from_secs(1);

/// The log from a moment on.
pub(super) struct KernelLog {
    file: File,
    seen: String,
}

impl KernelLog {
    /// The log from now on.
    pub(super) fn from_now() -> Result<Self, Stop> {
        let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, seen: String::new() })
    }

    /// Whether the IOMMU logs a fault of `device` within a second.
    ///
    /// - Intel's driver: `DMAR: [DMA Write NO_PASID] Request device [0000:05:00.0] …`, in
    ///   older forms without the domain (Linux 7.3 `dmar_fault_do_one`).
    /// - AMD's: `AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:05:00.0 …` (`amd_iommu_report_page_fault`).
    /// - virtio's: `virtio_iommu virtio1: page fault from EP 1280 at …`, where the endpoint's number is
    ///   its bus, device and function (`viommu_fault_handler`).
    pub(super) fn shows_fault_of(&mut self, device: PciAddr) -> Result<bool, Stop> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.catch_up()?;
            if self.seen.lines().any(|line| is_fault_of(line, device)) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What was logged, in one line.
    pub(super) fn summary(&self) -> String {
        let messages = self.seen.lines().filter_map(|line| line.split_once(';').map(|(_, message)| message));
        messages.take(5).collect::<Vec<_>>().join(" | ")
    }

    fn catch_up(&mut self) -> Result<(), Stop> {
        let mut record = [0; RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(()),
                Ok(len) => self.seen.push_str(&String::from_utf8_lossy(&record[..len])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_fault_of(line: &str, device: PciAddr) -> bool {
    let whole = device.to_string();
    let short = whole.split_once(':').map_or(whole.as_str(), |(_, short)| short);
    if line.contains("DMAR: [DMA ") {
        return line.contains(&format!("[{whole}]")) || line.contains(&format!("[{short}]"));
    }
    if line.contains("AMD-Vi: Event logged [IO_PAGE_FAULT ") {
        return line.contains(&format!("device={whole} ")) || line.contains(&format!("device={short} "));
    }
    line.contains(&format!(" fault from EP {} at ", device.routing_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_that_of_the_device_it_names() {
        let (engine, other): (PciAddr, PciAddr) = ("0000:05:00.0".parse().unwrap(), "0000:06:00.0".parse().unwrap());
        for line in [
            "3,512,4242,-;DMAR: [DMA Write NO_PASID] Request device [05:00.0] fault addr 0x200000000 [fault reason 0x05]",
            "3,512,4242,-;DMAR: [DMA Write NO_PASID] Request device [0000:05:00.0] fault addr 0x200000000",
            "3,9,1,-;AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:05:00.0 domain=0x0001 address=0x200000000]",
            "3,9,1,-;virtio_iommu virtio1: page fault from EP 1280 at 0x200000000 [ W ]",
        ] {
            assert!(is_fault_of(line, engine), "{line}");
            assert!(!is_fault_of(line, other), "{line}");
        }
        assert!(!is_fault_of("6,1,1,-;vfio-pci 0000:05:00.0: resetting", engine));
    }
}
