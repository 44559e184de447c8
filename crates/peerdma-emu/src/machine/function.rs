//! One function of a machine: its face to the fabric, its engine, and what it remembers.

use super::course::Courses;
use super::outstanding::Outstanding;
use super::translations::Translations;
use crate::device::awake::Waker;
use crate::device::{Behind, Device, Layout, Registers};
use crate::fabric::Ending;
use crate::fabric::NodeId;
use crate::faults::Damage;
use crate::memory::Memory;
use crate::platform::TdiState;
use crate::wire::Head;
use peerdma::addr::{BusAddr, Bytes};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// What a request ends in, with the bytes that are left there.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Memory, from an offset on.
    Memory(Arc<dyn Memory>, Bytes),
    /// Registers, from an offset on.
    Registers(Arc<Registers>, u64),
    /// One of the others, with data that is damaged on the way.
    Damaged(Box<Target>, Flip),
    /// Nothing: writes are dropped, reads give zeros.
    Nothing,
}

/// A bit of a request's data that turned on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flip {
    /// Which, counted from the first byte's lowest.
    pub(super) bit: u64,
    /// Whether somebody noticed and marked it.
    pub(super) damage: Damage,
}

impl Flip {
    /// Turns the bit, if the data has it; whether the data may still be used.
    pub(super) fn turn(self, data: &mut [u8]) -> bool {
        let index = usize::try_from(self.bit / 8).unwrap_or(usize::MAX);
        if let Some(byte) = data.get_mut(index) {
            *byte ^= 1 << (self.bit % 8);
        }
        self.damage == Damage::Silent
    }

    /// Data as it arrives; none where what arrives is marked and so dropped.
    pub(super) fn turned(self, data: &[u8]) -> Option<Vec<u8>> {
        let mut data = data.to_vec();
        self.turn(&mut data).then_some(data)
    }
}

/// A function, or a port's own registers.
pub(super) struct Function {
    pub(super) name: Option<String>,
    layout: Layout,
    device: Mutex<Option<Box<dyn Device>>>,
    /// Whether there is one.
    has_engine: bool,
    waker: Waker,
    /// The engine is to be reset when it next lets go.
    resetting: AtomicBool,
    /// Bits of address that it can form.
    mask_bits: u8,
    tdi: AtomicU8,
    pub(super) translations: Translations,
    pub(super) pages: Outstanding,
    pub(super) courses: Mutex<Courses>,
}

const NO_INTERFACE: u8 = u8::MAX;

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Function {
    pub(super) fn new(
        name: Option<String>,
        device: Option<Box<dyn Device>>,
        mask_bits: u8,
        tdi: Option<TdiState>,
        waker: Waker,
    ) -> Self {
        let layout = device.as_ref().map(|device| device.layout()).unwrap_or_default();
        for region in layout.regions() {
            if let Behind::Registers(registers) = &region.behind {
                registers.wakes(waker.clone());
            }
        }
        let function = Self {
            name,
            layout,
            has_engine: device.is_some(),
            device: Mutex::new(device),
            waker,
            resetting: AtomicBool::new(false),
            mask_bits: mask_bits.clamp(1, 64),
            tdi: AtomicU8::new(NO_INTERFACE),
            translations: Translations::default(),
            pages: Outstanding::default(),
            courses: Mutex::default(),
        };
        function.set_tdi(tdi);
        // An engine may have something to do before anybody asks it to.
        function.wake();
        function
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn device(&self) -> MutexGuard<'_, Option<Box<dyn Device>>> {
        locked(&self.device)
    }

    /// Resets the engine: now, or if it is at work as soon as it is done with its step.
    pub(super) fn reset_engine(&self) {
        self.resetting.store(true, Ordering::Release);
        let device = match self.device.try_lock() {
            Ok(device) => Some(device),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            // It is at work, and is reset when it is done, or with the next step if it just was.
            Err(TryLockError::WouldBlock) => {
                self.wake();
                None
            }
        };
        if let Some(mut device) = device {
            self.reset_if_due(&mut device);
        }
    }

    /// Resets the engine if that is still to be done; whoever holds it calls this.
    pub(super) fn reset_if_due(&self, device: &mut Option<Box<dyn Device>>) {
        if self.resetting.swap(false, Ordering::AcqRel)
            && let Some(device) = device
        {
            device.reset();
            self.wake();
        }
    }

    /// Whether it can form the addresses of an access.
    pub(super) fn can_address(&self, at: BusAddr, len: Bytes) -> bool {
        let last = at.as_u64().checked_add(len.as_u64().saturating_sub(1));
        last.is_some_and(|last| last <= u64::MAX >> (64 - u32::from(self.mask_bits)))
    }

    /// Says that its engine has something to do; what has no engine sleeps for good.
    pub(super) fn wake(&self) {
        if self.has_engine {
            self.waker.wake();
        }
    }

    /// Whether it has an engine.
    pub(super) fn has_engine(&self) -> bool {
        self.has_engine
    }

    /// Whether there is something that its engine has been told and has not looked at.
    pub(super) fn has_unseen(&self) -> bool {
        let written = |behind: &Behind| matches!(behind, Behind::Registers(registers) if registers.has_writes());
        self.pages.any() || self.layout.regions().iter().any(|region| written(&region.behind))
    }

    pub(super) fn tdi(&self) -> Option<TdiState> {
        TdiState::ALL.get(usize::from(self.tdi.load(Ordering::Acquire))).copied()
    }

    pub(super) fn set_tdi(&self, state: Option<TdiState>) {
        let index = state.and_then(|state| TdiState::ALL.iter().position(|&other| other == state));
        self.tdi.store(index.map_or(NO_INTERFACE, |index| index as u8), Ordering::Release);
    }

    /// What is behind a BAR at an offset, and for how many bytes.
    pub(super) fn behind(&self, bar: u8, offset: Bytes) -> (Target, Bytes) {
        let at = offset.as_u64();
        let mut gap = u64::MAX;
        for region in self.layout.regions().iter().filter(|region| region.bar == bar) {
            let start = region.offset.as_u64();
            match at.checked_sub(start) {
                Some(within) if within < region.len.as_u64() => {
                    let left = Bytes::new(region.len.as_u64() - within);
                    let target = match &region.behind {
                        Behind::Registers(registers) => Target::Registers(registers.clone(), within),
                        Behind::Memory(memory, from) => {
                            Target::Memory(memory.clone(), Bytes::new(from.as_u64() + within))
                        }
                    };
                    return (target, left);
                }
                Some(_) => {}
                None => gap = gap.min(start - at),
            }
        }
        (Target::Nothing, Bytes::new(gap))
    }

    /// Whether the function takes a request for its BARs, in the state that it is in.
    ///
    /// A trusted interface that is locked or runs lets only requests from within trusted domains
    /// through, and an access from outside is an error of the interface, which it leaves by
    /// being unlocked alone (PCIe 6.0 §11.2.6, §11.3.8).
    pub(super) fn admits(&self, node: NodeId, head: &Head) -> Result<(), Ending> {
        match (self.tdi(), head.requester.trusted) {
            (None | Some(TdiState::Unlocked), false) | (Some(TdiState::Run), true) => Ok(()),
            (Some(TdiState::Locked | TdiState::Run), false) => {
                self.set_tdi(Some(TdiState::Error));
                Err(Ending::Refused(node))
            }
            _ => Err(Ending::Refused(node)),
        }
    }
}
