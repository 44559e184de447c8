//! RAM of which frames are lent to processes outside of the machine.
//!
//! A machine's page tables lead to physical addresses. For a device to reach memory of a process, a frame stands for a page
//! of that process: the IOMMU leads to the frame, and what is read and written there is the process's.

use super::process::ProcessMemory;
use super::{Memory, Outside};
use crate::iommu::lock::{lock, read, write};
use crate::wire::Atomic;
use peerdma::addr::{AddrRange, Bytes, PhysAddr, ProcVa};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

/// How large a frame is.
const FRAME: u64 = 4096;

/// A page of a process.
#[derive(Clone, Debug)]
struct Page {
    process: Arc<dyn ProcessMemory>,
    at: ProcVa,
}

/// One stretch of RAM.
#[derive(Debug)]
struct Stretch {
    behind: Arc<dyn Memory>,
    /// Pages that frames stand for, by the frames' numbers in the stretch.
    lent: RwLock<BTreeMap<u64, Page>>,
}

/// RAM whose frames can be lent; clones are handles to the same.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, PhysAddr, ProcVa};
/// use peerdma_emu::memory::{Gone, LentRam, Memory, ProcessMemory, Striped};
/// use std::sync::{Arc, Mutex};
///
/// #[derive(Debug)]
/// struct Process(Mutex<[u8; 4096]>);
///
/// impl ProcessMemory for Process {
///     fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
///         let from = at.as_u64() as usize - 0x7000_0000;
///         into.copy_from_slice(&self.0.lock().unwrap()[from..from + into.len()]);
///         Ok(())
///     }
///     fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
///         let to = at.as_u64() as usize - 0x7000_0000;
///         self.0.lock().unwrap()[to..to + from.len()].copy_from_slice(from);
///         Ok(())
///     }
/// }
///
/// let ram = LentRam::default();
/// let range = AddrRange::new(PhysAddr::new(0x10_0000), Bytes::new(0x10_0000)).unwrap();
/// let seen = ram.behind(range, Arc::new(Striped::new(range.len())));
/// let process = Arc::new(Process(Mutex::new([7; 4096])));
/// assert!(ram.lend(PhysAddr::new(0x10_3000), process, ProcVa::new(0x7000_0000)));
///
/// let mut bytes = [0; 8];
/// seen.read(Bytes::new(0x3ffc), &mut bytes)?;
/// assert_eq!(bytes, [7, 7, 7, 7, 0, 0, 0, 0]);
/// # Ok::<(), peerdma_emu::memory::Outside>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LentRam {
    stretches: Arc<Mutex<Vec<Placed>>>,
}

/// A stretch, and where it is.
type Placed = (AddrRange<PhysAddr>, Arc<Stretch>);

impl LentRam {
    /// A stretch of RAM as devices and processors see it; for [`Builder::ram_behind`](crate::machine::Builder::ram_behind).
    pub fn behind(&self, range: AddrRange<PhysAddr>, memory: Arc<dyn Memory>) -> Arc<dyn Memory> {
        let stretch = Arc::new(Stretch { behind: memory, lent: RwLock::default() });
        lock(&self.stretches).push((range, stretch.clone()));
        stretch
    }

    /// Has a frame stand for a page of a process; `false` where no such RAM is.
    ///
    /// What stood in the frame is there again when it is taken back.
    pub fn lend(&self, frame: PhysAddr, process: Arc<dyn ProcessMemory>, at: ProcVa) -> bool {
        let Some((stretch, number)) = self.find(frame) else { return false };
        write(&stretch.lent).insert(number, Page { process, at });
        true
    }

    /// Has a frame be memory of the machine again; no access to the process's page is under way when this returns.
    pub fn take_back(&self, frame: PhysAddr) {
        if let Some((stretch, number)) = self.find(frame) {
            write(&stretch.lent).remove(&number);
        }
    }

    fn find(&self, frame: PhysAddr) -> Option<(Arc<Stretch>, u64)> {
        let stretches = lock(&self.stretches);
        let one = AddrRange::new(frame, Bytes::new(FRAME))?;
        let (range, stretch) = stretches.iter().find(|(range, _)| range.contains_range(&one))?;
        Some((stretch.clone(), (frame.as_u64() - range.start().as_u64()) / FRAME))
    }
}

/// Cuts an access at frames: each one's number, where in it, and which part of the access.
fn parts(at: Bytes, len: usize) -> impl Iterator<Item = (u64, u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let from = at.as_u64() + done as u64;
        let now = left.min((FRAME - from % FRAME) as usize);
        let part = done..done + now;
        done += now;
        Some((from / FRAME, from % FRAME, part))
    })
}

impl Memory for Stretch {
    fn len(&self) -> Bytes {
        self.behind.len()
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        Outside::check(at, into.len(), self.len())?;
        // Held until the bytes have moved, so that a frame is taken back when nobody reads it.
        let lent = read(&self.lent);
        for (frame, within, part) in parts(at, into.len()) {
            let into = &mut into[part];
            let (here, len) = (Bytes::new(frame * FRAME + within), Bytes::new(into.len() as u64));
            match lent.get(&frame) {
                None => self.behind.read(here, into)?,
                Some(page) => {
                    let outside = Outside { at: here, len, size: self.len() };
                    let from = page.at.checked_add(Bytes::new(within)).ok_or(outside)?;
                    page.process.read(from, into).map_err(|_| outside)?;
                }
            }
        }
        Ok(())
    }

    /// What lies in a process may be written in part before an error.
    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        Outside::check(at, from.len(), self.len())?;
        let lent = read(&self.lent);
        for (frame, within, part) in parts(at, from.len()) {
            let from = &from[part];
            let (here, len) = (Bytes::new(frame * FRAME + within), Bytes::new(from.len() as u64));
            match lent.get(&frame) {
                None => self.behind.write(here, from)?,
                Some(page) => {
                    let outside = Outside { at: here, len, size: self.len() };
                    let to = page.at.checked_add(Bytes::new(within)).ok_or(outside)?;
                    page.process.write(to, from).map_err(|_| outside)?;
                }
            }
        }
        Ok(())
    }

    /// Refused in frames that are lent: nobody can change a process's memory in one.
    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        let lent = read(&self.lent);
        match lent.contains_key(&(at.as_u64() / FRAME)) {
            false => self.behind.atomic(at, atomic),
            true => Err(Outside { at, len: atomic.len(), size: self.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::Gone;
    use super::*;
    use crate::memory::Striped;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// A process whose memory takes its time.
    #[derive(Debug)]
    struct Slow {
        reading: Barrier,
        go_on: Barrier,
        over: AtomicBool,
    }

    impl ProcessMemory for Slow {
        fn read(&self, _at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
            self.reading.wait();
            self.go_on.wait();
            into.fill(7);
            self.over.store(true, Ordering::Release);
            Ok(())
        }

        fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
            Err(Gone { at, len: Bytes::new(from.len() as u64) })
        }
    }

    #[test]
    fn a_frame_is_taken_back_when_nobody_reads_the_process_there() {
        let ram = LentRam::default();
        let range = AddrRange::new(PhysAddr::new(0x10_0000), Bytes::new(0x4000)).unwrap();
        let seen = ram.behind(range, Arc::new(Striped::new(range.len())));
        let slow = Arc::new(Slow { reading: Barrier::new(2), go_on: Barrier::new(2), over: AtomicBool::new(false) });
        let frame = PhysAddr::new(0x10_1000);
        assert!(ram.lend(frame, slow.clone(), ProcVa::new(0x7000)));
        std::thread::scope(|scope| {
            let device = scope.spawn(|| {
                let mut bytes = [0; 8];
                seen.read(Bytes::new(0x1000), &mut bytes).map(|()| bytes)
            });
            slow.reading.wait();
            let taking = scope.spawn(|| {
                ram.take_back(frame);
                assert!(slow.over.load(Ordering::Acquire), "a read of the process is under way");
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!taking.is_finished());
            slow.go_on.wait();
            assert_eq!(device.join().unwrap(), Ok([7; 8]));
            taking.join().unwrap();
        });
        let mut bytes = [1; 8];
        seen.read(Bytes::new(0x1000), &mut bytes).unwrap();
        assert_eq!(bytes, [0; 8], "the machine's own again");
        assert!(!ram.lend(PhysAddr::new(0x20_0000), slow, ProcVa::new(0)), "no such RAM");
    }
}
