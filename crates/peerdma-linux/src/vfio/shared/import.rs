//! A buffer of a device, mapped in an address space for others, which lets go and comes back by itself.
//!
//! ```text
//! let go    initiator stopped ─ DMA unmapped ─ the CPU's mapping gone ─ the buffer told
//! may map   the buffer asked ─ BAR mapped or exported anew ─ DMA mapped at the same IOVAs ─ initiator started
//! ```
//!
//! Type1 maps a BAR by its address in this process and never takes that away (Linux 7.2 `vfio_iommu_type1.c`): the import
//! owns both, and unmaps DMA before the address goes. Iommufd's mapping is dead when the kernel revokes the dma-buf
//! (`iopt_revoke_notify`) and in the way until it is unmapped; it is unmapped here before, and mapped anew afterwards.
//!
//! Which of the two a space takes, its abilities say. Neither kernel interface asks whether the initiator reaches the BAR at all, so that
//! an import is given [who answers for its route](ImportRoute) first.
//!
//! A buffer of several ranges is mapped range by range, to consecutive IOVAs; all of them are there, or none is.

use super::super::bar::BarMapping;
use super::super::region::BarRange;
use super::import_error::ImportError;
use super::import_state::{ImportReport, ImportRoute, ImportState, Need, Quiesce, Reports};
use super::placing::Placed;
use super::{Exported, Function, lock};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, GuestPhys, Iova};
use peerdma::buffer::life::{Disturbance, Generation};
use peerdma::buffer::shared::{Attachment, Holder, Importer, MapRefused, Mapped, Receipt};
use peerdma::buffer::terms::Declaration;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::dma::{IoSpace, Peers, Permit, Source};
use std::borrow::Cow;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// A buffer mapped in an address space, for as long as this lives and the memory is there.
///
/// Dropping it unmaps and detaches.
pub struct DmaImport<S: IoSpace<File = Arc<OwnedFd>> + Send + 'static, F: Function>(Arc<Inner<S, F>>);

struct Inner<S: IoSpace<File = Arc<OwnedFd>> + Send, F: Function> {
    name: String,
    of: Exported<F>,
    space: Arc<Mutex<S>>,
    prot: Prot,
    permit: Permit,
    need: Need,
    quiesce: Box<dyn Quiesce>,
    seat: OnceLock<Attachment>,
    state: Mutex<State>,
}

struct State {
    /// Where it is mapped, or is to be. It changes only while nothing is held.
    iova: AddrRange<Iova>,
    now: ImportState,
    held: Option<InUse>,
    /// Whether a thread is mapping it, and whether it was called to do so again meanwhile.
    entering: bool,
    again: bool,
}

/// What is to go in this order.
struct InUse {
    /// Of the buffer's ranges the first so many.
    pieces: Vec<Piece>,
    mapped: Mapped,
}

/// One range of the buffer, where devices reach it.
struct Piece {
    iova: AddrRange<Iova>,
    /// Where type1 finds the BAR.
    _bar: Option<BarMapping>,
}

impl<S: IoSpace<File = Arc<OwnedFd>> + Send + 'static, F: Function> DmaImport<S, F> {
    /// Attaches to a buffer and maps it at `iova`, for what `declaration` says. While the memory is away that comes later.
    ///
    /// How it lets go is added to the declaration. `route` says whether its device reaches the memory at all, as
    /// neither kind of address space asks that.
    ///
    /// # Errors
    /// [`ImportError::Attach`], [`ImportError::Length`], [`ImportError::NoDevice`] and [`ImportError::Route`]. Everything else of an import that is
    /// [required](Need::Required); of one that is not the import exists all the same, and says so itself.
    #[expect(clippy::too_many_arguments, reason = "each is another matter, and named at the call")]
    pub fn attach(
        name: &str,
        of: &Exported<F>,
        space: Arc<Mutex<S>>,
        iova: AddrRange<Iova>,
        (declaration, prot): (Declaration, Prot),
        route: ImportRoute<'_>,
        need: Need,
        quiesce: impl Quiesce + 'static,
    ) -> Result<Self, ImportError> {
        let buffer = of.size();
        if iova.len() != buffer {
            return Err(ImportError::Length { iova, buffer });
        }
        let (permit, peers) = permitted(name, of, &declaration, prot, route)?;
        let by = if takes_files(&*lock(&space)) { Enforcement::Kernel } else { Enforcement::Cooperative };
        let declaration = declaration.taking(Lifetime::Revocable).taking_peer_memory().enforced(by);
        let inner = Arc::new(Inner {
            name: name.into(),
            of: of.clone(),
            space,
            prot,
            permit,
            need,
            quiesce: Box::new(quiesce),
            seat: OnceLock::new(),
            state: Mutex::new(State {
                iova,
                now: ImportState::Away(Disturbance::DecodeOff),
                held: None,
                entering: false,
                again: false,
            }),
        });
        // The buffer's end of it does not keep it alive.
        let told = Arc::new(Told(Arc::downgrade(&inner)));
        let seat = of.buffer().attach(&declaration, &peers, Holder::here(name), told)?;
        let may_map = seat.may_map();
        let causes = inner.seat.set(seat);
        debug_assert!(causes.is_ok(), "it is set once");
        of.device().remember(Arc::downgrade(&inner) as Weak<dyn Reports>);
        let import = Self(inner);
        if may_map {
            import.0.enter();
        }
        match (need, import.state()) {
            (Need::Required, ImportState::Failed(error)) => Err(error),
            // It went for good meanwhile.
            (Need::Required, ImportState::Gone) => Err(ImportError::Closed),
            _ => Ok(import),
        }
    }

    /// How it stands.
    pub fn state(&self) -> ImportState {
        lock(&self.0.state).now.clone()
    }

    /// How it stands, and what it is.
    pub fn report(&self) -> ImportReport {
        self.0.report()
    }

    /// Maps it now, if it failed before and the memory is there.
    pub fn retry(&self) -> ImportState {
        if matches!(self.state(), ImportState::Failed(_)) {
            self.0.enter();
        }
        self.state()
    }
}

/// As IOVAs, which are the guest's addresses where a guest's device is the initiator.
impl<S: IoSpace<File = Arc<OwnedFd>> + Send + 'static, F: Function> Placed for DmaImport<S, F> {
    fn name(&self) -> String {
        format!("the import {}", self.0.name)
    }

    fn at(&self) -> GuestPhys {
        GuestPhys::new(lock(&self.0.state).iova.start().as_u64())
    }

    fn place(&self, at: GuestPhys) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let len = self.0.of.size();
        let wraps = || format!("{len} at {at} are more than there are addresses");
        let iova = AddrRange::new(Iova::new(at.as_u64()), len).ok_or_else(wraps)?;
        lock(&self.0.space).check_place(iova)?;
        let mut state = lock(&self.0.state);
        if state.held.is_some() {
            return Err(format!("it is mapped at {}; have it let go first", state.iova).into());
        }
        state.iova = iova;
        Ok(())
    }
}

/// Leave to map, and what the buffer's terms are held against.
fn permitted<'p, F: Function>(
    name: &str,
    of: &Exported<F>,
    declaration: &Declaration,
    prot: Prot,
    route: ImportRoute<'p>,
) -> Result<(Permit, Cow<'p, Peers<'p>>), ImportError> {
    let peers = match route {
        ImportRoute::Permitted(permit) => return Ok((permit, Cow::Owned(Peers::none()))),
        ImportRoute::Judged(peers) => peers,
    };
    let no_device = || ImportError::NoDevice { name: name.into(), buffer: of.buffer().name().into() };
    let device = declaration.device().ok_or_else(no_device)?;
    let mut permit = None;
    for run in of.buffer().offer().ranges().runs() {
        permit = Some(peers.permit(device, run.owner(), prot)?);
    }
    Ok((permit.ok_or_else(no_device)?, Cow::Borrowed(peers)))
}

fn takes_files<S: IoSpace>(space: &S) -> bool {
    space.abilities().sources.file.is_some()
}

impl<S: IoSpace<File = Arc<OwnedFd>> + Send, F: Function> Inner<S, F> {
    /// Maps it, and says how it stands then. One thread at a time; who comes meanwhile has that one do it again.
    fn enter(&self) {
        {
            let mut state = lock(&self.state);
            if state.entering {
                state.again = true;
                return;
            }
            state.entering = true;
        }
        loop {
            match self.kept() {
                None => self.enter_once(),
                Some(true) => self.quiesce.start(),
                Some(false) => {}
            }
            let mut state = lock(&self.state);
            if !std::mem::take(&mut state.again) {
                state.entering = false;
                return;
            }
        }
    }

    /// Whether it is mapped still; and whether it was to let go, which is off: what held the memory kept from it
    /// whatever was about to be done.
    fn kept(&self) -> Option<bool> {
        let mut state = lock(&self.state);
        let whole = self.of.ranges().len();
        let generation = state.held.as_ref().filter(|held| held.pieces.len() == whole)?.mapped.generation();
        let was_to_go = matches!(state.now, ImportState::Stopping(_) | ImportState::Stuck(_));
        state.now = ImportState::Mapped(generation);
        Some(was_to_go)
    }

    fn enter_once(&self) {
        let now = match self.map() {
            Ok(mut held) => {
                let generation = held.mapped.generation();
                let mut state = lock(&self.state);
                if held.mapped.is_current() {
                    (state.now, state.held) = (ImportState::Mapped(generation), Some(held));
                    drop(state);
                    return self.quiesce.start();
                }
                drop(state);
                // Somebody has been told to let go meanwhile, before this could be found.
                match self.unmap(&mut held) {
                    Ok(()) => return drop(held),
                    Err(error) => {
                        lock(&self.state).held = Some(held);
                        ImportState::Stuck(error)
                    }
                }
            }
            // Another disturbance has begun; it will be called again.
            Err(ImportError::Buffer(MapRefused::Life(_))) => return,
            Err(error) => {
                let mut state = lock(&self.state);
                state.now = match () {
                    () if state.held.is_some() => ImportState::Stuck(error),
                    // It failed since the memory went meanwhile, which has been told, or is about to be.
                    () if !self.seat.get().is_some_and(Attachment::may_map) => return,
                    () => ImportState::Failed(error),
                };
                return;
            }
        };
        lock(&self.state).now = now;
    }

    fn map(&self) -> Result<InUse, ImportError> {
        // Where a space let go of some ranges and not of others, the others go first: half a buffer is none.
        let left = lock(&self.state).held.take();
        left.map_or(Ok(()), |held| self.empty(held))?;
        // Before anything is mapped, so that whoever does something to the device waits for what follows.
        let mapped = self.seat.get().ok_or(ImportError::Closed)?.map()?;
        let mut held = InUse { pieces: Vec::new(), mapped };
        match self.map_all(&mut held) {
            Ok(()) => Ok(held),
            Err(error) => self.empty(held).and(Err(error)),
        }
    }

    /// Unmaps what is held; what does not go is in use until it is asked to go again.
    fn empty(&self, mut held: InUse) -> Result<(), ImportError> {
        let unmapped = self.unmap(&mut held);
        if unmapped.is_err() {
            lock(&self.state).held = Some(held);
        }
        unmapped
    }

    /// Maps range after range, at consecutive IOVAs.
    fn map_all(&self, held: &mut InUse) -> Result<(), ImportError> {
        let prot = self.prot.within(held.mapped.prot()).unwrap_or(held.mapped.prot());
        let whole = lock(&self.state).iova;
        let mut at = Bytes::ZERO;
        for &range in self.of.ranges() {
            let iova = whole.slice(at, range.len());
            let iova = iova.ok_or(ImportError::Length { iova: whole, buffer: self.of.size() })?;
            // No more than the buffer's length, which was compared.
            at = Bytes::new(at.as_u64() + range.len().as_u64());
            let bar = self.map_one(range, iova, prot)?;
            held.pieces.push(Piece { iova, _bar: bar });
        }
        Ok(())
    }

    fn map_one(&self, range: BarRange, iova: AddrRange<Iova>, prot: Prot) -> Result<Option<BarMapping>, ImportError> {
        let takes_files = takes_files(&*lock(&self.space));
        let (source, bar) = if takes_files {
            let file = self.of.device().with(|function| function.export(range)).ok_or(ImportError::Closed)??;
            (Source::File { file, offset: Bytes::ZERO }, None)
        } else {
            let bar = self.of.device().with(|function| function.map(range)).ok_or(ImportError::Closed)??;
            let at = bar.process_range(range).ok_or(ImportError::Closed)?;
            (Source::Process(at.start()), Some(bar))
        };
        lock(&self.space).map_peer(iova, &source, prot, MemAttrs::MMIO, &self.permit)?;
        Ok(bar)
    }

    /// Unmaps range by range, last first; on an error the others are mapped still.
    fn unmap(&self, held: &mut InUse) -> Result<(), ImportError> {
        while let Some(last) = held.pieces.last() {
            lock(&self.space).unmap(last.iova)?;
            // With it the CPU's mapping, after DMA to it.
            held.pieces.pop();
        }
        Ok(())
    }

    /// Lets go of what is held, if the initiator has stopped and the space unmaps.
    fn leave(&self, cause: Disturbance) {
        let Some(mut held) = lock(&self.state).held.take() else { return };
        let now = if !self.quiesce.stop(cause) {
            ImportState::Stopping(cause)
        } else {
            match self.unmap(&mut held) {
                Ok(()) => {
                    lock(&self.state).now = ImportState::Away(cause);
                    // Last, and under no lock: whoever waits goes on.
                    return drop(held);
                }
                Err(error) => ImportState::Stuck(error),
            }
        };
        let mut state = lock(&self.state);
        (state.now, state.held) = (now, Some(held));
    }
}

impl<S: IoSpace<File = Arc<OwnedFd>> + Send, F: Function> Reports for Inner<S, F> {
    fn report(&self) -> ImportReport {
        let buffer = self.of.buffer().name().into();
        let (state, iova) = {
            let state = lock(&self.state);
            (state.now.clone(), state.iova)
        };
        ImportReport { name: self.name.clone(), buffer, iova, need: self.need, state }
    }
}

/// What the buffer tells.
struct Told<S: IoSpace<File = Arc<OwnedFd>> + Send, F: Function>(Weak<Inner<S, F>>);

impl<S: IoSpace<File = Arc<OwnedFd>> + Send + 'static, F: Function> Importer for Told<S, F> {
    fn let_go(&self, cause: Disturbance, receipt: Receipt) {
        receipt.noted();
        if let Some(inner) = self.0.upgrade() {
            {
                let mut state = lock(&inner.state);
                if state.held.is_none() {
                    state.now = ImportState::Away(cause);
                }
            }
            inner.leave(cause);
        }
    }

    fn may_map(&self, _: Generation, receipt: Receipt) {
        // Mapping is refused until that is said.
        receipt.noted();
        if let Some(inner) = self.0.upgrade() {
            inner.enter();
        }
    }

    fn gone(&self) {
        if let Some(inner) = self.0.upgrade() {
            // After it has let go, but for a device that was pulled.
            inner.leave(Disturbance::Removal);
            lock(&inner.state).now = ImportState::Gone;
        }
    }

    fn look(&self) {
        if let Some(inner) = self.0.upgrade() {
            let again = match lock(&inner.state).now {
                ImportState::Stopping(cause) => Some(cause),
                // Of the cause nothing hangs but words.
                ImportState::Stuck(_) => Some(Disturbance::Reset),
                _ => None,
            };
            again.into_iter().for_each(|cause| inner.leave(cause));
        }
    }
}

impl<S: IoSpace<File = Arc<OwnedFd>> + Send, F: Function> Drop for Inner<S, F> {
    fn drop(&mut self) {
        let Some(mut held) = lock(&self.state).held.take() else { return };
        // An initiator that does not stop meets a fault.
        let _ = self.quiesce.stop(Disturbance::Close);
        if self.unmap(&mut held).is_err() {
            // What a device may still reach is not given back: who does something to its memory hears of it.
            std::mem::forget(held);
        }
    }
}

impl<S: IoSpace<File = Arc<OwnedFd>> + Send + 'static, F: Function> fmt::Debug for DmaImport<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.report())
    }
}
