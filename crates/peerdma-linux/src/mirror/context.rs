//! What a device does with process memory.

use super::error::AccessError;
use super::{Mirror, Shared};
use crate::membarrier::CheapestFence;
use crate::sys::process_memory;
use peerdma::access::Access;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::buffer::guard::{Opening, Slot};
use peerdma::mirror::{Answer, Asking, DeviceTable, Ring, Wanted};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// One user of the memory, for one thread at a time.
pub struct Context<T> {
    shared: Arc<Shared<T>>,
    slot: Slot<CheapestFence>,
    asking: Asking,
}

impl<T: DeviceTable + Send> Context<T> {
    pub(super) fn new(shared: &Arc<Shared<T>>, name: &str) -> Option<Self> {
        let asking = shared.queue.seat()?;
        let slot = opening(shared, None)?.slot(name);
        Some(Self { shared: Arc::clone(shared), slot, asking })
    }

    /// Does something as the device: while it runs, nothing that the device's table leads to is given another meaning,
    /// as far as the mirror is told before.
    ///
    /// Waits while the gate is closed. It is to be short, and not to wait for whoever serves.
    pub fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let Some(done) = self.run_until(None, f) else { unreachable!("without a deadline nothing is late") };
        done
    }

    /// The same; `None`, with nothing done, where the gate does not open in time.
    fn run_until<R>(&mut self, until: Option<Instant>, f: impl FnOnce() -> R) -> Option<R> {
        loop {
            if let Ok(guard) = self.slot.enter() {
                let done = f();
                drop(guard);
                return Some(done);
            }
            let renewed = self.slot.renew(&opening(&self.shared, until)?);
            assert!(renewed.is_ok(), "a context's slot is its own mirror's");
        }
    }

    /// Reads process memory, asking for pages that are not in the table.
    ///
    /// Blocks until `until` at most, while another thread serves.
    ///
    /// # Errors
    /// [`AccessError`]; some of `into` may have been written.
    pub fn read(&mut self, at: ProcVa, into: &mut [u8], until: Instant) -> Result<(), AccessError> {
        self.access(at, into.len(), Access::Read, until, |at| process_memory::read(at, into))
    }

    /// Writes process memory, asking for pages that are not in the table.
    ///
    /// Blocks until `until` at most, while another thread serves.
    ///
    /// # Errors
    /// [`AccessError`]; some may have been written.
    pub fn write(&mut self, at: ProcVa, from: &[u8], until: Instant) -> Result<(), AccessError> {
        self.access(at, from.len(), Access::Write, until, |at| process_memory::write(at, from))
    }

    fn access(
        &mut self,
        at: ProcVa,
        len: usize,
        access: Access,
        until: Instant,
        mut copy: impl FnMut(ProcVa) -> Result<(), Errno>,
    ) -> Result<(), AccessError> {
        if len == 0 {
            return Ok(());
        }
        let len = Bytes::new(len as u64);
        let range = AddrRange::new(at, len).ok_or(AccessError::Range { at, len })?;
        // A request that was given up is still on its way.
        let mut wanted = None;
        loop {
            if self.asking.is_waiting() || wanted.is_some() {
                let missing = wanted.take().unwrap_or(Wanted { at, access });
                // Pages that come may be gone again when the next one does.
                if Instant::now() >= until {
                    return Err(AccessError::Late { at: missing.at });
                }
                self.ask(missing, until)?;
            }
            let shared = Arc::clone(&self.shared);
            let outcome = self.run_until(Some(until), || {
                let leads = shared.inner().state.leads(range, access);
                leads.map(|()| copy(at))
            });
            match outcome.ok_or(AccessError::Closed { at: range })? {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(AccessError::Stale { at: range, source: error.into() }),
                Err(missing) => wanted = Some(missing),
            }
        }
    }

    /// Asks for a page, if nothing is asked for already, and waits for the answer.
    fn ask(&mut self, wanted: Wanted, until: Instant) -> Result<(), AccessError> {
        let earlier = self.asking.is_waiting();
        if !earlier && self.asking.ask(wanted) == Ok(Ring::Wake) {
            self.shared.bell.ring();
        }
        let mut pauses = 0;
        let answer = loop {
            if let Some(answer) = self.asking.answer() {
                break answer;
            }
            if !pause(&mut pauses, until) {
                return Err(AccessError::Late { at: wanted.at });
            }
        };
        match answer {
            Answer::Success => Ok(()),
            // What an earlier request came to is not this one's answer.
            _ if earlier => Ok(()),
            answer => Err(AccessError::Refused { at: wanted.at, answer }),
        }
    }
}

/// The generation that is open, once one is; `None` where none is until a moment.
fn opening<T>(shared: &Shared<T>, until: Option<Instant>) -> Option<Opening<CheapestFence>> {
    let mut pauses = 0;
    loop {
        if let Ok(opening) = shared.gate.opening() {
            return Some(opening);
        }
        // Whoever closed it opens it, unless somebody did not leave in time.
        shared.reopen();
        if !pause(&mut pauses, until.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))) && until.is_some() {
            return None;
        }
    }
}

/// A moment, longer each time; false once it is late.
fn pause(pauses: &mut u32, until: Instant) -> bool {
    *pauses = pauses.saturating_add(1);
    match *pauses {
        0..200 => std::hint::spin_loop(),
        200..300 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(50)),
    }
    !pauses.is_multiple_of(64) || Instant::now() < until
}

impl<T> std::fmt::Debug for Context<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("slot", &self.slot).field("asking", &self.asking).finish()
    }
}

/// Copies memory of this process, as a device's own table leads to it; see [`Context::run`].
///
/// # Errors
/// `EFAULT` where nothing is mapped, or not for reading; some of `into` may have been written.
pub fn copy_out(at: ProcVa, into: &mut [u8]) -> io::Result<()> {
    Ok(process_memory::read(at, into)?)
}

/// Copies into memory of this process, as a device's own table leads to it; see [`Context::run`].
///
/// What it writes to is what a device would: whoever registered the memory vouches for it.
///
/// # Errors
/// `EFAULT` where nothing is mapped, or not for writing; some may have been written.
pub fn copy_in(at: ProcVa, from: &[u8]) -> io::Result<()> {
    Ok(process_memory::write(at, from)?)
}

impl<T> Mirror<T> {
    /// Whether the gate is open, as it is but for moments.
    pub fn is_open(&self) -> bool {
        self.shared.gate.opening().is_ok()
    }
}
