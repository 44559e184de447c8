//! A slot that follows a buffer: taken away when the buffer is, and given back with it.
//!
//! The guest is never asked. Told to let go, the slot hides the memory, by which the kernel takes it out of the guest's tables,
//! and then gives its mapping back; the guest finds out at its next access. It comes back by [`BufferSlot::restore`], which is
//! a second-stage fault served in the one order of [`SecondStage`]: look at the slot, map the buffer, see that nothing has to come
//! first, and install unless something was taken out meanwhile.
//!
//! Nothing is installed in a notice: those must not wait, and the buffer's reservation may be held. So whoever runs the guest's
//! processors calls `restore` when one comes back with [`Exit::Revoked`](super::Exit::Revoked), and waits there until the buffer is back.

use super::error::SlotError;
use super::follow_error::{FollowError, NotRestored};
use super::memory::{CpuFile, SlotMemory};
use super::slot::{Slot, SlotId};
use super::vm::Vm;
use crate::sys::window::Window;
use crate::vfio::errno;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, GuestPhys};
use peerdma::buffer::fence::{FenceName, SecondStage, Served, Usage};
use peerdma::buffer::life::{Disturbance, Generation, Phase, Refused};
use peerdma::buffer::shared::{Attachment, Buffer, Holder, Importer, MapRefused, Mapped, Part, Receipt};
use peerdma::buffer::terms::Declaration;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::dma::{Errno, Mmio, Owners, Peers, Source, Sources};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long somebody who waits for a fence sleeps before he looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A slot over a buffer. Dropping it takes the memory from the guest and detaches.
///
/// *What holding this tells you:* while the buffer is out of reach the guest does not reach its memory, by the kernel's word;
/// whoever disturbs the buffer waits for that and for nothing the guest does.
///
/// All of the buffer is one slot, so that its ranges are whole pages each.
#[must_use = "dropping it takes the memory from the guest"]
pub struct BufferSlot {
    pub(super) state: Arc<State>,
}

pub(super) struct State {
    // Fields are dropped in this order: what the guest reaches goes before the mapping that it reaches it by.
    stage: SecondStage<Table>,
    pub(super) seat: Attachment,
    files: Owners<CpuFile>,
    prot: Prot,
    len: Bytes,
    news: News,
}

/// What the guest has of the buffer.
struct Table {
    slot: Option<Slot>,
    id: SlotId,
    range: AddrRange<GuestPhys>,
    window: Arc<Window>,
    /// Whether the buffer shows, for those who look for memory that is away.
    there: Arc<AtomicBool>,
    /// Held as long as it shows.
    held: Option<Mapped>,
    /// Why the slot is no more.
    deleted: Option<Errno>,
}

/// Counts notices, so that none is slept through.
#[derive(Default)]
struct News {
    heard: Mutex<u64>,
    changed: Condvar,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }
}

/// What the buffer tells, and it tells nobody when the slot is gone.
#[derive(Default)]
struct Ears(Mutex<Weak<State>>);

impl Ears {
    fn state(&self) -> Option<Arc<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

impl Importer for Ears {
    fn let_go(&self, _: Disturbance, receipt: Receipt) {
        if let Some(state) = self.state() {
            drop(state.take_out());
        }
        receipt.noted();
    }

    fn may_map(&self, _: Generation, receipt: Receipt) {
        receipt.noted();
        if let Some(state) = self.state() {
            state.news.tell();
        }
    }

    fn gone(&self) {
        if let Some(state) = self.state() {
            drop(state.take_out());
            state.news.tell();
        }
    }
}

impl Vm {
    /// Lets the guest see a buffer from `at` on, whenever the buffer is within reach.
    ///
    /// `files` says which file each of the buffer's owners is to the CPU, for all places that the buffer may be in.
    /// `enforced` is whose word it is that the guest lets go: the kernel's, where the monitor has no other mapping of the memory.
    /// The guest does not see the buffer before the first [`BufferSlot::restore`].
    ///
    /// # Errors
    /// [`FollowError`]; nothing has changed then.
    pub fn follow(
        &self,
        at: GuestPhys,
        buffer: &Buffer,
        (name, prot, enforced): (&str, Prot, Enforcement),
        peers: &Peers<'_>,
        files: Owners<CpuFile>,
    ) -> Result<BufferSlot, FollowError> {
        let len = buffer.offer().ranges().len();
        let window = Window::reserve(len).map_err(|error| FollowError::NoAddresses { len, errno: errno(error) })?;
        let (window, there) = (Arc::new(window), Arc::new(AtomicBool::new(false)));
        let memory = SlotMemory::of_window(window.clone(), there.clone(), prot);
        let slot = self.add(at, &memory, Part::new(Bytes::ZERO, len), prot)?;
        let declaration = Declaration::of_process(name, prot).taking(Lifetime::Movable).enforced(enforced);
        let ears = Arc::new(Ears::default());
        let seat = buffer.attach(&declaration, peers, Holder::here(name), ears.clone())?;
        let (id, range) = (slot.id(), slot.range());
        let table = Table { slot: Some(slot), id, range, window, there, held: None, deleted: None };
        let state = State { stage: SecondStage::new(table), seat, files, prot, len, news: News::default() };
        let state = Arc::new(state);
        // Nothing was mapped, so that there was nothing to let go of before this.
        *ears.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&state);
        Ok(BufferSlot { state })
    }
}

impl BufferSlot {
    /// Which slot it is.
    pub fn id(&self) -> SlotId {
        self.look(|table| table.id)
    }

    /// Where the guest sees it.
    pub fn range(&self) -> AddrRange<GuestPhys> {
        self.look(|table| table.range)
    }

    /// Whether the guest sees the buffer now.
    pub fn is_there(&self) -> bool {
        self.look(|table| table.held.is_some())
    }

    /// Where in its life the buffer is.
    pub fn phase(&self) -> Phase {
        self.state.seat.phase()
    }

    fn look<R>(&self, look: impl FnOnce(&Table) -> R) -> R {
        self.state.stage.fault(look).1
    }

    /// Has the guest see the buffer again, waiting until that is possible, and `patience` at most.
    ///
    /// Call it when a processor comes back with [`Exit::Revoked`](super::Exit::Revoked) and run that again; any thread may call it, and
    /// it does nothing where the guest sees the buffer. Call it without a buffer's lock.
    ///
    /// # Errors
    /// [`NotRestored::OutOfReach`] and [`NotRestored::Busy`]: try again later, the guest waits. [`NotRestored::Gone`] for good.
    pub fn restore(&self, patience: Duration) -> Result<(), NotRestored> {
        let (begun, state) = (Instant::now(), &*self.state);
        loop {
            let heard = *state.news.lock();
            let left = patience.saturating_sub(begun.elapsed());
            match state.serve() {
                Ok(Tried::Done) => return Ok(()),
                // Something was taken out meanwhile, so that somebody got on.
                Ok(Tried::Again) => {}
                Ok(Tried::Busy(fence)) if left.is_zero() => return Err(NotRestored::Busy { fence, waited: patience }),
                Ok(Tried::Busy(_)) => std::thread::sleep(LOOK_AGAIN.min(left)),
                Ok(Tried::Wait(why)) if left.is_zero() => {
                    return Err(NotRestored::OutOfReach { waited: patience, why });
                }
                Ok(Tried::Wait(_)) => {
                    let news = state.news.lock();
                    let waited = state.news.changed.wait_timeout_while(news, left, |now| *now == heard);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves it to another place in the guest, as a BAR moves; see [`Slot::move_to`].
    ///
    /// # Errors
    /// [`SlotError`]; it is where it was.
    pub fn move_to(&self, at: GuestPhys) -> Result<(), SlotError> {
        // What is in the slot stays there, but a fault that looked before has to look again.
        self.state.stage.invalidate(|table| {
            if let Some(slot) = &mut table.slot {
                slot.move_to(at)?;
                table.range = slot.range();
            }
            Ok(())
        })
    }
}

impl std::fmt::Debug for BufferSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {} of {:?}", self.id(), self.range(), self.state.seat)
    }
}

/// What came of one try.
enum Tried {
    Done,
    Again,
    Busy(FenceName),
    Wait(MapRefused),
}

/// A range of the buffer, where it shows and what shows.
pub(super) type Piece = (Bytes, CpuFile, u64, Bytes);

impl State {
    /// Takes the memory from the guest; what is returned is dropped without the slot's lock.
    fn take_out(&self) -> Option<Mapped> {
        self.stage.invalidate(|table| {
            table.there.store(false, Ordering::Release);
            match table.held.is_none() || table.hide() {
                true => table.held.take(),
                false => None,
            }
        })
    }

    /// Serves one fault in the order of [`SecondStage`].
    fn serve(&self) -> Result<Tried, NotRestored> {
        let (fault, (there, deleted)) = self.stage.fault(|table| (table.held.is_some(), table.deleted));
        if let Some(errno) = deleted {
            return Err(NotRestored::Deleted { errno });
        }
        if there {
            return Ok(Tried::Done);
        }
        let mapped = match self.seat.map() {
            Ok(mapped) => mapped,
            Err(MapRefused::Life(Refused::Dead { .. })) => return Err(NotRestored::Gone),
            Err(why @ MapRefused::Life(_)) => return Ok(Tried::Wait(why)),
            Err(why) => return Err(NotRestored::Refused(why)),
        };
        let writable = self.prot.writes() && mapped.prot().writes();
        let pieces = self.pieces(&mapped)?;
        let (mut given, mut failed) = (Some(mapped), None);
        let served = fault.serve(
            self.seat.reservation(),
            |reservation| match reservation.waits_for(Usage::Kernel).next() {
                Some(fence) => Err(fence.name()),
                None => Ok(()),
            },
            |table, ()| match show(&table.window, &pieces, writable) {
                Ok(()) => {
                    table.held = given.take();
                    table.there.store(true, Ordering::Release);
                }
                Err(error) => {
                    failed = Some(error);
                    // What showed before goes too; what will not go is not given back.
                    if !table.hide() {
                        table.held = given.take();
                    }
                }
            },
        );
        // What is left of the mapping is given back without the locks.
        drop(given);
        match (served, failed) {
            (_, Some(error)) => Err(error),
            (Ok(Served::Installed), None) => Ok(Tried::Done),
            (Ok(Served::Again), None) => Ok(Tried::Again),
            (Err(fence), None) => Ok(Tried::Busy(fence)),
        }
    }

    /// The files behind the buffer's ranges.
    pub(super) fn pieces(&self, mapped: &Mapped) -> Result<Vec<Piece>, NotRestored> {
        let taken = Sources { file: Some(Mmio::AsMmio), ..Sources::default() };
        let whole = Part::new(Bytes::ZERO, self.len);
        mapped.by_cpu(self.prot, whole, |view| {
            let mut pieces = Vec::new();
            let mut into = 0;
            for chunk in view.iter() {
                let (mut offset, mut left) = (chunk.offset().as_u64(), chunk.len().as_u64());
                while left > 0 {
                    let stretch = self.files.resolve(chunk.owner(), Bytes::new(offset), Bytes::new(left), taken)?;
                    let len = stretch.len.as_u64();
                    let (at, len_here) = (Bytes::new(into), stretch.len);
                    let overflow =
                        NotRestored::NotMapped { at, len: len_here, errno: errno(rustix::io::Errno::OVERFLOW) };
                    let Source::File { file, offset: from } = stretch.source else { return Err(overflow) };
                    let from = file.offset(from).ok_or(overflow)?;
                    pieces.push((at, file, from, len_here));
                    (into, offset, left) = (into + len, offset + len, left - len);
                }
            }
            Ok(pieces)
        })?
    }
}

/// Shows all pieces, one after another.
fn show(window: &Window, pieces: &[Piece], writable: bool) -> Result<(), NotRestored> {
    pieces.iter().try_for_each(|(at, file, from, len)| {
        let shown = window.show(*at, file.descriptor(), *from, *len, writable);
        shown.map_err(|error| NotRestored::NotMapped { at: *at, len: *len, errno: errno(error) })
    })
}

impl Table {
    /// Takes what shows from the guest; false if nothing could do that, and the guest still reaches it.
    fn hide(&mut self) -> bool {
        let Err(error) = self.window.hide() else { return true };
        // There was no memory for the change. Without the slot the guest does not reach it either.
        self.deleted = Some(errno(error));
        self.slot.as_mut().is_none_or(|slot| slot.take().is_ok())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        drop(self.take_out());
        // A mapping that could not be taken from the guest is never given back: whoever waits is told by whom.
        self.stage.invalidate(|table| std::mem::forget(table.held.take()));
    }
}
