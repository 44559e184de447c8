//! A buffer's place in its exporter's ledger: its own bytes, and the pins of those who attach.

use super::Buffer;
use super::buffer::{Inner, Seat, State};
use crate::addr::Bytes;
use crate::buffer::fence::FenceSet;
use crate::buffer::life::AttachmentId;
use crate::buffer::pins::{Charge, ChargeError, Ledger, PinHandle, TenantId};
use crate::buffer::terms::Place;
use crate::sync::blocking::Mutex;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// An exporter's ledger of device memory, for buffers on any thread. Handles are cheap to clone and all the same ledger.
///
/// # Concurrency
/// Buffers take its lock for a moment, with their own held.
#[derive(Clone, Default)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    /// Puts a ledger behind a lock.
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// Runs `f` on the ledger, alone, when what nobody uses any more was let go. `f` must not touch a buffer.
    pub fn with<R>(&self, f: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = self.0.lock();
        ledger.settle();
        f(&mut ledger)
    }
}

impl fmt::Debug for SharedLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lock().fmt(f)
    }
}

impl Buffer {
    /// Counts the buffer in a ledger from now on: its bytes against `owner`, in the region of device memory in which
    /// they lie, and each pin of an attachment against the tenant whose it is ([`Holder::of`](super::Holder::of)),
    /// or against `owner` where nobody says.
    ///
    /// In RAM nothing counts. After a move it is counted where it lies then. A pin is taken when its importer attaches and
    /// given back when it has detached and what its devices were doing has ended; the bytes are when all handles are gone.
    ///
    /// # Errors
    /// [`ChargeError`]: the owner's limit or that of somebody who pins it already, a full region, or nobody described
    /// it. Nothing has changed.
    ///
    /// # Examples
    /// ```
    /// use peerdma::access::{MemAttrs, Prot};
    /// use peerdma::addr::Bytes;
    /// use peerdma::buffer::life::{Answers, Disturbance, Generation};
    /// use peerdma::buffer::pins::{Ledger, Limits, RegionId, TenantId};
    /// use peerdma::buffer::shared::{AttachError, Buffer, Holder, Importer, Receipt, SharedLedger};
    /// use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
    /// use peerdma::chunk::{Chunk, Chunks};
    /// use peerdma::dma::{Initiator, Owner, OwnerId, Peers, Reach};
    /// use peerdma::topology::IommuMode;
    /// use std::sync::Arc;
    ///
    /// # struct Nic;
    /// # impl Importer for Nic {
    /// #     fn let_go(&self, _: Disturbance, _: Receipt) {}
    /// #     fn may_map(&self, _: Generation, _: Receipt) {}
    /// #     fn gone(&self) {}
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (vram, trainer, nic) = (RegionId::new(0), TenantId::new(1), TenantId::new(2));
    /// let mut ledger = Ledger::new();
    /// ledger.describe_region(vram, "vram0", Bytes::new(1 << 20));
    /// ledger.describe_tenant(trainer, "trainer");
    /// ledger.describe_tenant(nic, "nic");
    /// ledger.limit(vram, nic, Limits { max: Some(Bytes::new(0x1000)), ..Limits::NONE })?;
    /// let ledger = SharedLedger::new(ledger);
    ///
    /// let owner = Owner::Device(OwnerId::new(1));
    /// let buffer = |pages: u64| -> Result<Buffer, Box<dyn std::error::Error>> {
    ///     let chunk = Chunk::new(owner, Bytes::ZERO, Bytes::new(pages << 12), MemAttrs::MMIO).ok_or("empty")?;
    ///     let offer = Offer::new(Chunks::collect_from([chunk])?, Stays::UNLESS_PINNED, Place::Device(vram))?;
    ///     let buffer = Buffer::new("ring", offer.to_peers(), Answers::YES);
    ///     buffer.charge(&ledger, trainer)?;
    ///     Ok(buffer)
    /// };
    /// let mut peers = Peers::none();
    /// peers.state(owner, Reach::Iova);
    /// let pins = Declaration::of_device(Initiator::new("nic0", IommuMode::Translated), Prot::Read).taking_peer_memory();
    /// let attach = |buffer: &Buffer| buffer.attach(&pins, &peers, Holder::here("nic0").of(nic), Arc::new(Nic));
    ///
    /// let small = buffer(1)?;
    /// let seat = attach(&small)?;
    /// assert_eq!(ledger.with(|ledger| ledger.pinned(vram, nic)), Bytes::new(0x1000));
    /// let Err(AttachError::Pin(refused)) = attach(&buffer(2)?) else { unreachable!() };
    /// assert!(refused.to_string().contains("it uses 4 KiB of its limit of 4 KiB"));
    /// drop(seat);
    /// assert_eq!(ledger.with(|ledger| ledger.pinned(vram, nic)), Bytes::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    pub fn charge(&self, ledger: &SharedLedger, owner: TenantId) -> Result<(), ChargeError> {
        self.0
            .with(|state| {
                let place = state.offer.place();
                let (charge, pins) = charged(ledger, owner, state, place)?;
                let account = Account { ledger: ledger.clone(), owner, charge };
                Ok(account.replaces(state, pins))
            })
            .map(drop)
    }
}

/// Where a buffer is counted.
pub(super) struct Account {
    ledger: SharedLedger,
    owner: TenantId,
    /// Its bytes; `None` in RAM.
    charge: Option<Charge>,
}

/// Pins, each with whose attachment has it.
type Pins = Vec<(AttachmentId, PinHandle)>;

/// The charge and the pins of a buffer in a place, or nothing at all.
fn charged(
    ledger: &SharedLedger,
    owner: TenantId,
    state: &State,
    place: Place,
) -> Result<(Option<Charge>, Pins), ChargeError> {
    let Place::Device(region) = place else { return Ok((None, Vec::new())) };
    ledger.with(|ledger| {
        let charge = ledger.charge(region, owner, state.len())?;
        let pins_here = |seat: &Seat| seat.terms.pin() == Some(place);
        let mut pins = Vec::new();
        for (who, seat) in state.seats.iter().filter(|(_, seat)| pins_here(seat)) {
            match ledger.pin(&charge, seat.holder.tenant.unwrap_or(owner)) {
                Ok(pin) => pins.push((*who, pin)),
                Err(refused) => {
                    // Taken a moment ago, of this ledger, and used by nobody.
                    pins.into_iter().for_each(|(_, pin)| drop(ledger.unpin(pin, &FenceSet::new())));
                    let _ = ledger.uncharge(charge);
                    return Err(refused);
                }
            }
        }
        Ok((Some(charge), pins))
    })
}

impl Account {
    /// What is counted when the buffer lies in another place; nothing has changed where it is refused.
    pub(super) fn elsewhere(&self, state: &State, place: Place) -> Result<(Self, Pins), ChargeError> {
        let (charge, pins) = charged(&self.ledger, self.owner, state, place)?;
        Ok((Self { ledger: self.ledger.clone(), owner: self.owner, charge }, pins))
    }

    /// Takes the place of what was counted before, which is answered.
    pub(super) fn replaces(self, state: &mut State, pins: Pins) -> Left {
        let seats = state.seats.values_mut().filter_map(|seat| seat.pin.take());
        let before: Vec<PinHandle> = seats.chain(core::mem::take(&mut state.leaving)).collect();
        for (who, pin) in pins {
            if let Some(seat) = state.seats.get_mut(&who) {
                seat.pin = Some(pin);
            }
        }
        Left { account: state.account.replace(self), pins: before }
    }

    /// Takes the pin of somebody who attaches, where the terms say that it pins the buffer here.
    pub(super) fn pin(&self, tenant: Option<TenantId>) -> Result<Option<PinHandle>, ChargeError> {
        let Some(charge) = &self.charge else { return Ok(None) };
        self.ledger.with(|ledger| ledger.pin(charge, tenant.unwrap_or(self.owner))).map(Some)
    }

    /// Lets a pin go as soon as these have retired.
    fn unpin(&self, pin: PinHandle, users: FenceSet) {
        // It is of this ledger.
        self.ledger.with(|ledger| drop(ledger.unpin_when_unused(pin, Box::new(users))));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            // It is of this ledger.
            self.ledger.with(|ledger| drop(ledger.uncharge_when_unpinned(charge)));
        }
    }
}

/// What counted before something else did; to be dropped without the buffer's lock.
#[must_use = "it counts until it is dropped"]
pub(super) struct Left {
    account: Option<Account>,
    pins: Vec<PinHandle>,
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            // The memory is pinned as before, in the account that took the place of this one.
            self.pins.drain(..).for_each(|pin| account.unpin(pin, FenceSet::new()));
        }
    }
}

/// Lets go of pins of those who have gone, when this is dropped; without the buffer's lock.
pub(super) struct PinsGo<'b>(pub(super) &'b Arc<Inner>);

impl Drop for PinsGo<'_> {
    fn drop(&mut self) {
        self.0.let_pins_go();
    }
}

impl Inner {
    /// Lets go of pins of those who have gone, as soon as what devices were doing has ended; waits for nobody.
    ///
    /// Where somebody has the reservation, whoever gives it up does it.
    pub(super) fn let_pins_go(&self) {
        if self.with(|state| state.leaving.is_empty()) {
            return;
        }
        let Some(reservation) = self.reservation.try_lock_or_tell(&self.when_free()) else { return };
        let users = reservation.users();
        drop(reservation);
        self.with(|state| {
            let leaving = core::mem::take(&mut state.leaving);
            if let Some(account) = &state.account {
                leaving.into_iter().for_each(|pin| account.unpin(pin, users.clone()));
            }
        });
    }
}

impl State {
    /// How long the buffer is.
    pub(super) fn len(&self) -> Bytes {
        self.ranges.view().len()
    }
}
