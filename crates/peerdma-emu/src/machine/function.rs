//! One function of a machine: its face to the fabric, its engine, and what it remembers.

use super::course::Courses;
use crate::device::{Behind, Device, Layout, PageResponse, Registers, Translation};
use crate::fabric::Ending;
use crate::fabric::NodeId;
use crate::faults::Damage;
use crate::memory::Memory;
use crate::platform::TdiState;
use crate::wire::{Head, Pasid};
use peerdma::addr::{BusAddr, Bytes};
use std::collections::VecDeque;
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
    /// The engine said that it has more to do.
    working: AtomicBool,
    /// The engine is to be reset when it next lets go.
    resetting: AtomicBool,
    /// The engine is at work just now.
    stepping: AtomicBool,
    /// Bits of address that it can form.
    mask_bits: u8,
    tdi: AtomicU8,
    translations: Mutex<Vec<Remembered>>,
    responses: Mutex<VecDeque<(u16, PageResponse)>>,
    pub(super) courses: Mutex<Courses>,
}

/// A translation that the function was given.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    pasid: Option<Pasid>,
    from: BusAddr,
    translation: Translation,
}

/// Translations that a function remembers at most; one more takes the place of the oldest.
const REMEMBERED: usize = 256;

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
    ) -> Self {
        let layout = device.as_ref().map(|device| device.layout()).unwrap_or_default();
        let function = Self {
            name,
            layout,
            // Where there is no engine nothing is ever at work, and no thread would say so.
            working: AtomicBool::new(device.is_some()),
            device: Mutex::new(device),
            resetting: AtomicBool::new(false),
            stepping: AtomicBool::new(false),
            mask_bits: mask_bits.clamp(1, 64),
            tdi: AtomicU8::new(NO_INTERFACE),
            translations: Mutex::default(),
            responses: Mutex::default(),
            courses: Mutex::default(),
        };
        function.set_tdi(tdi);
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
                self.set_working(true);
                None
            }
        };
        if let Some(mut device) = device {
            self.reset_if_due(&mut device);
        }
    }

    /// Resets the engine if that is still to be done; whoever holds it calls this.
    pub(super) fn reset_if_due(&self, device: &mut Option<Box<dyn Device>>) {
        if self.resetting.swap(false, Ordering::AcqRel) {
            match device {
                Some(device) => {
                    device.reset();
                    self.set_working(true);
                }
                // Nobody steps what has no engine, and so nobody would say that it is not at work.
                None => self.set_working(false),
            }
        }
    }

    /// Whether it can form the addresses of an access.
    pub(super) fn can_address(&self, at: BusAddr, len: Bytes) -> bool {
        let last = at.as_u64().checked_add(len.as_u64().saturating_sub(1));
        last.is_some_and(|last| last <= u64::MAX >> (64 - u32::from(self.mask_bits)))
    }

    pub(super) fn set_working(&self, working: bool) {
        self.working.store(working, Ordering::Release);
    }

    pub(super) fn set_stepping(&self, stepping: bool) {
        self.stepping.store(stepping, Ordering::Release);
    }

    /// Whether its engine is at work or has anything to do.
    pub(super) fn is_busy(&self) -> bool {
        self.has_work() || self.stepping.load(Ordering::Acquire)
    }

    /// Whether its engine has anything to do.
    pub(super) fn has_work(&self) -> bool {
        let written = |behind: &Behind| matches!(behind, Behind::Registers(registers) if registers.has_writes());
        self.working.load(Ordering::Acquire)
            || self.layout.regions().iter().any(|region| written(&region.behind))
            || !locked(&self.responses).is_empty()
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

    /// What was translated before, if that is still so.
    pub(super) fn remembered(&self, pasid: Option<Pasid>, at: BusAddr, write: bool) -> Option<Translation> {
        locked(&self.translations).iter().find_map(|entry| {
            let offset = at.as_u64().checked_sub(entry.from.as_u64())?;
            let Translation { to, len, write: writable } = entry.translation;
            let fits = entry.pasid == pasid && offset < len.as_u64() && (writable || !write);
            fits.then(|| Translation {
                to: BusAddr::new(to.as_u64() + offset),
                len: Bytes::new(len.as_u64() - offset),
                write: writable,
            })
        })
    }

    pub(super) fn remember(&self, pasid: Option<Pasid>, from: BusAddr, translation: Translation) {
        let mut translations = locked(&self.translations);
        if translations.len() == REMEMBERED {
            translations.remove(0);
        }
        translations.push(Remembered { pasid, from, translation });
    }

    /// Forgets translations of addresses that touch a range, in one address space or in all.
    pub(super) fn forget(&self, pasid: Option<Option<Pasid>>, first: BusAddr, last: BusAddr) {
        locked(&self.translations).retain(|entry| {
            let end = entry.from.as_u64().saturating_add(entry.translation.len.as_u64() - 1);
            let touches = entry.from <= last && end >= first.as_u64();
            !(touches && pasid.is_none_or(|pasid| pasid == entry.pasid))
        });
    }

    pub(super) fn respond(&self, group: u16, response: PageResponse) {
        locked(&self.responses).push_back((group, response));
    }

    pub(super) fn next_response(&self) -> Option<(u16, PageResponse)> {
        locked(&self.responses).pop_front()
    }
}
