//! Frames for tables whose accesses are places to change threads.

use peerdma::addr::PhysAddr;
use peerdma::iopt::{Frame, TableMemory};
use shuttle::sync::atomic::AtomicU64;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const BASE: u64 = 0x1_0000_0000;

/// What happened to frames.
#[derive(Default)]
struct Account {
    handed_out: usize,
    live: BTreeSet<usize>,
    /// What was done to a frame that was nobody's.
    misuse: Vec<String>,
}

/// A few frames, none of which is handed out twice.
///
/// So a frame that was freed is known from one that was allocated later, and whoever still
/// looks at it is caught. Handing out and taking back is one step each, which no thread
/// interrupts: frames are not what is modelled.
#[derive(Clone)]
pub struct Frames(Arc<Memory>);

struct Memory {
    frames: Vec<OnceLock<Box<Frame>>>,
    account: Mutex<Account>,
}

impl Frames {
    /// So many frames.
    pub fn new(frames: usize) -> Self {
        // Atomics of a model are not small, and made anew for every order.
        let frames = (0..frames).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Memory { frames, account: Mutex::default() }))
    }

    /// How many are allocated.
    ///
    /// # Panics
    /// If a frame was looked at or freed that was not allocated.
    pub fn live(&self) -> usize {
        self.account(|account| {
            assert!(account.misuse.is_empty(), "{:?}", account.misuse);
            account.live.len()
        })
    }

    fn account<T>(&self, f: impl FnOnce(&mut Account) -> T) -> T {
        f(&mut self.0.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn index(at: PhysAddr) -> usize {
        at.as_u64().checked_sub(BASE).map_or(usize::MAX, |offset| (offset >> 12) as usize)
    }
}

impl TableMemory for Frames {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.account(|account| {
            let first = account.handed_out.next_multiple_of(count);
            if first + count > self.0.frames.len() {
                return None;
            }
            account.handed_out = first + count;
            account.live.extend(first..first + count);
            Some(PhysAddr::new(BASE + ((first as u64) << 12)))
        })
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        let index = Self::index(at);
        if !self.account(|account| account.live.contains(&index)) {
            self.account(|account| account.misuse.push(format!("{at} was looked at")));
            return None;
        }
        let zeroed = || Box::new(std::array::from_fn(|_| AtomicU64::new(0)));
        self.0.frames.get(index).map(|frame| &**frame.get_or_init(zeroed))
    }

    fn free(&self, at: PhysAddr, count: usize) {
        let first = Self::index(at);
        self.account(|account| {
            for index in first..first + count {
                if !account.live.remove(&index) {
                    account.misuse.push(format!("{at} was freed"));
                }
            }
        });
    }
}
