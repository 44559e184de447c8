//! Buffers registered with rings, from `/proc/PID/fdinfo`.
//!
//! A ring without a descriptor (`IORING_SETUP_REGISTERED_FD_ONLY`) is listed nowhere, and one that a forked child
//! inherited is listed in both; `VmPin` stays with the process that registered.

use super::{gone, text};
use crate::own::ring_info::{self, Filled};
use peerdma::addr::Bytes;
use std::fs;
use std::io;
use std::path::Path;

/// What the kernel calls a ring's descriptor.
const RING: &str = "anon_inode:[io_uring]";
/// A ring has at most 16384 buffers, each a line of some thirty bytes.
const MOST: u64 = 4 << 20;

/// Buffers registered with the rings that a process has open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Registered {
    /// How many rings.
    pub rings: usize,
    /// How many buffers in them.
    pub buffers: usize,
    /// How long the buffers are together, as registered: not in whole pages, and repeated ones each.
    pub bytes: Bytes,
}

impl Registered {
    /// Reads them; fails where one may not look into the process, or while it fills slots all the time.
    pub(super) fn read(process: &Path) -> io::Result<Self> {
        let mut sum = Self::default();
        for entry in fs::read_dir(process.join("fd"))? {
            let Ok(entry) = entry else { continue };
            // A descriptor that is closed meanwhile is none any more.
            if !fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == RING) {
                continue;
            }
            let path = process.join("fdinfo").join(entry.file_name());
            match ring_info::buffers(|| text(&path, MOST)) {
                Ok(slots) => sum.add(&slots),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    /// Adds one ring.
    fn add(&mut self, slots: &[Filled]) {
        self.rings += 1;
        self.buffers += slots.len();
        let all = slots.iter().fold(self.bytes.as_u64(), |sum, slot| sum.saturating_add(slot.len));
        self.bytes = Bytes::new(all);
    }
}
