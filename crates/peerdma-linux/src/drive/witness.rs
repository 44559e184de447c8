//! Whether blocks come and go between a drive and memory of another device, and what the kernel says to it.
//!
//! The kernel asks its own rules for each request, so that it is a witness of them too: it refuses a pair that they
//! do not permit before anything moves. What it grants may still be lost on the way, and the drive then reports
//! success (seen in QEMU, whose switches send bus addresses to the IOMMU). So bytes are compared:
//!
//! 1. The blocks are read by way of process memory. That this succeeds leaves no other reason for a refusal of the
//!    same request with the device's memory than that memory.
//! 2. The destination holds something else in every byte, which its owner sees there.
//! 3. The drive moves one page, and the destination's owner looks: the processor at the device's memory, process memory at
//!    the disk. Beside the page nothing may have changed.
//!
//! Writing the memory ([`Witness::writes`]) changes no block. Reading it ([`Witness::reads`]) overwrites a page of the disk,
//! 512 KiB from its start (today's tools begin partitions at 1 MiB), unless the kernel refuses, and puts back what stood
//! there, also after an error; a process that is killed outright puts nothing back.

use super::{Drive, whole};
use crate::memory::Pages;
use crate::p2pmem::P2pMemory;
use crate::pattern::Pattern;
use crate::verified::{CpuAccess, Delivery, Guards};
use crate::vfio::errno;
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use std::io;
use std::path::PathBuf;

/// A page, whole blocks for every disk.
const PAGE: usize = 4096;
/// The same as a length, and where the page in use begins in the memory.
const LEN: Bytes = Bytes::new(PAGE as u64);
/// Which page of the disk.
const AT: Bytes = Bytes::new(512 << 10);
/// Run number of the pattern that goes to the disk.
const READ: u64 = 1;

/// A drive and another device's memory.
#[derive(Debug)]
pub struct Witness<'a> {
    drive: &'a Drive,
    memory: &'a mut P2pMemory,
    ram: Pages,
    seed: u64,
}

/// What came of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The kernel does not let the two reach each other, or the drive's queue takes no such memory; nothing moved.
    Refused {
        /// Its answer: `EINVAL`, before Linux 6.17 also `EREMOTEIO`, which always means that for the queue.
        errno: Errno,
    },
    /// The kernel let it, and the request failed.
    Failed {
        /// Its answer.
        errno: Errno,
    },
    /// The drive said that it is done; whether it is, the bytes say.
    Moved(Delivery),
}

/// What came of reading the memory, which writes the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Of the direction.
    pub answer: Answer,
    /// The disk holds again what it held.
    pub restored: bool,
}

/// Why nothing can be said about the route.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The disk does not answer even to requests with process memory.
    #[error("{} does not move its blocks to and from process memory either", path.display())]
    Disk {
        /// The disk.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is too short to have the page that is used.
    #[error("{} holds {room}, and the page that would be used ends at {needed}; name another drive", path.display())]
    TooShort {
        /// The disk.
        path: PathBuf,
        /// How much it holds.
        room: Bytes,
        /// How much it takes.
        needed: Bytes,
    },
    /// Somebody else changed the page meanwhile.
    #[error("the page of {} that was read changed meanwhile; stop whoever writes it, and ask again", path.display())]
    Changing {
        /// The disk.
        path: PathBuf,
    },
    /// The disk does not hold what was written to it.
    #[error("{} does not hold what was just written to it; somebody else writes it, or it keeps nothing", path.display())]
    NotKept {
        /// The disk.
        path: PathBuf,
    },
    /// The memory does not keep what the processor writes.
    #[error("the device's memory does not keep what the processor writes to it: {wrote:#04x} reads {read:#04x}")]
    NotMemory {
        /// What was written.
        wrote: u8,
        /// What was read.
        read: u8,
    },
    /// Less memory was taken than [`Witness::MEMORY`].
    #[error(transparent)]
    Cpu(#[from] CpuAccess),
    /// The process has no memory left.
    #[error("no process memory to compare with")]
    Memory(#[source] io::Error),
}

impl<'a> Witness<'a> {
    /// How much of the device's memory to take: a page, and one on each side to see what goes astray.
    pub const MEMORY: Bytes = Bytes::new(3 * PAGE as u64);

    /// Has `drive` move bytes to and from `memory`, of which [`MEMORY`](Self::MEMORY) is needed.
    ///
    /// # Errors
    /// [`WitnessError::TooShort`] and [`WitnessError::Memory`].
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma::access::Prot;
    /// use peerdma_linux::{drive::{Disk, witness::Witness}, p2pmem::P2pMemory, tree::Tree};
    ///
    /// let drive = Disk::find(&Tree::live(), "0000:03:00.0".parse()?)?.open(Prot::Read)?;
    /// let pool = "/sys/bus/pci/devices/0000:04:00.0/p2pmem/allocate";
    /// let mut memory = P2pMemory::allocate(pool.as_ref(), Witness::MEMORY)?;
    /// println!("{:?}", Witness::new(&drive, &mut memory, 1)?.writes()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(drive: &'a Drive, memory: &'a mut P2pMemory, seed: u64) -> Result<Self, WitnessError> {
        // A page on each side of the page in use.
        let needed = Bytes::new(AT.as_u64() + 2 * LEN.as_u64());
        if drive.room < needed {
            return Err(WitnessError::TooShort { path: drive.path.clone(), room: drive.room, needed });
        }
        let ram = Pages::zeroed(LEN).map_err(WitnessError::Memory)?;
        Ok(Self { drive, memory, ram, seed })
    }

    /// The drive writes the memory, by reading blocks. Blocks until it says that it is done.
    ///
    /// # Errors
    /// [`WitnessError`]; nothing is said about the route then.
    pub fn writes(&mut self) -> Result<Answer, WitnessError> {
        let drive = self.drive;
        self.writes_by(|memory| memory.read_from(LEN, LEN, drive, AT))
    }

    /// The drive reads the memory, by writing blocks; the drive has to be open for writing. Blocks as
    /// [`writes`](Self::writes) does.
    ///
    /// # Errors
    /// [`WitnessError`]; nothing is said about the route then, and what the disk held was written back.
    pub fn reads(&mut self) -> Result<Reading, WitnessError> {
        let drive = self.drive;
        // The kernel's rules know no direction (Linux 7.3 `pci_p2pdma_map_type`), so they are asked by the one that changes
        // no block: a refusal leaves the disk alone.
        if let Some(answer @ Answer::Refused { .. }) = stopped(self.memory.read_from(LEN, LEN, drive, AT)) {
            return Ok(Reading { answer, restored: true });
        }
        self.reads_by(|memory| memory.write_to(LEN, LEN, drive, AT))
    }

    fn writes_by(&mut self, carry: impl FnOnce(&mut P2pMemory) -> io::Result<Bytes>) -> Result<Answer, WitnessError> {
        let sent = self.blocks(AT)?;
        let before = other(&sent);
        self.prepare(&before)?;
        let guards = Guards::read(self.memory, LEN, PAGE)?;
        if let Some(answer) = stopped(carry(self.memory)) {
            return Ok(answer);
        }
        let came = self.seen()?;
        let damage = guards.damage(&Guards::read(self.memory, LEN, PAGE)?);
        if self.blocks(AT)? != sent {
            return Err(WitnessError::Changing { path: self.drive.path.clone() });
        }
        Ok(Answer::Moved(Delivery::compare(Bytes::ZERO, &sent, &before, &came, damage)))
    }

    fn reads_by(&mut self, carry: impl FnOnce(&mut P2pMemory) -> io::Result<Bytes>) -> Result<Reading, WitnessError> {
        let original = self.blocks(AT)?;
        let answer = self.overwrite(carry);
        // Whatever came of it, and before that is told.
        let put_back = self.put(&original).and_then(|()| self.blocks(AT));
        let answer = answer?;
        Ok(Reading { answer, restored: put_back.is_ok_and(|holds| holds == original) })
    }

    fn overwrite(&mut self, carry: impl FnOnce(&mut P2pMemory) -> io::Result<Bytes>) -> Result<Answer, WitnessError> {
        let sent = Pattern::new(self.seed, READ).bytes(Bytes::ZERO, PAGE);
        let before = other(&sent);
        self.prepare(&sent)?;
        self.put(&before)?;
        let guards = self.beside()?;
        if self.blocks(AT)? != before {
            return Err(WitnessError::NotKept { path: self.drive.path.clone() });
        }
        if let Some(answer) = stopped(carry(self.memory)) {
            return Ok(answer);
        }
        let came = self.blocks(AT)?;
        let damage = guards.damage(&self.beside()?);
        Ok(Answer::Moved(Delivery::compare(Bytes::ZERO, &sent, &before, &came, damage)))
    }

    /// The processor writes the page of the memory, and sees it there.
    fn prepare(&self, bytes: &[u8]) -> Result<(), WitnessError> {
        self.memory.write(LEN, bytes).map_err(CpuAccess::from)?;
        let kept = self.seen()?;
        match bytes.iter().zip(&kept).find(|(wrote, read)| wrote != read) {
            None => Ok(()),
            Some((&wrote, &read)) => Err(WitnessError::NotMemory { wrote, read }),
        }
    }

    fn seen(&self) -> Result<Vec<u8>, WitnessError> {
        let mut bytes = vec![0; PAGE];
        self.memory.read(LEN, &mut bytes).map_err(CpuAccess::from)?;
        Ok(bytes)
    }

    /// A page of the disk by way of process memory.
    fn blocks(&self, at: Bytes) -> Result<Vec<u8>, WitnessError> {
        self.drive.blocks(at, &self.ram, PAGE).map_err(|source| self.of_disk(source))
    }

    fn put(&self, bytes: &[u8]) -> Result<(), WitnessError> {
        self.drive.put(AT, &self.ram, bytes).map_err(|source| self.of_disk(source))
    }

    /// What stands on both sides of the page on the disk.
    fn beside(&self) -> Result<Guards, WitnessError> {
        let (below, above) = (AT.as_u64() - LEN.as_u64(), AT.as_u64() + LEN.as_u64());
        Ok(Guards::of(self.blocks(Bytes::new(below))?, self.blocks(Bytes::new(above))?))
    }

    fn of_disk(&self, source: io::Error) -> WitnessError {
        WitnessError::Disk { path: self.drive.path.clone(), source }
    }
}

/// What ended a request before it was done; `None` of one that says it is.
fn stopped(outcome: io::Result<Bytes>) -> Option<Answer> {
    let error = match outcome.and_then(|moved| whole(moved, LEN)) {
        Ok(()) => return None,
        Err(error) => rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    };
    Some(match error {
        rustix::io::Errno::INVAL | rustix::io::Errno::REMOTEIO => Answer::Refused { errno: errno(error) },
        _ => Answer::Failed { errno: errno(error) },
    })
}

/// Bytes that differ from `bytes` in every place.
fn other(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

#[cfg(test)]
mod tests;
