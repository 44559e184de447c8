//! A device that sends what a test tells it to, and memory behind its BARs that a test can look at.

use peerdma::addr::{BusAddr, Bytes};
use peerdma_emu::device::{Bus, Device, How, Layout, Progress};
use peerdma_emu::memory::Striped;
use peerdma_emu::wire::{Atomic, Failure, Operand};
use std::fmt;
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Reads so many.
    Read(usize),
    /// Adds one to eight bytes.
    Add,
    /// Asks for the translation, for writes.
    Translate,
}

/// What came of an order.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Sent; nobody is told more.
    Posted,
    /// The bytes read, or those that stood there before.
    Data(Vec<u8>),
    /// Where the byte is, to be used as translated; nowhere where nothing is mapped.
    At(Option<BusAddr>),
    /// What the requester was told.
    Failed(Failure),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Posted => f.write_str("posted"),
            Self::Data(bytes) => write!(f, "{} bytes from {:02x?} on", bytes.len(), &bytes[..bytes.len().min(4)]),
            Self::At(at) => write!(f, "translated to {at:?}"),
            Self::Failed(failure) => write!(f, "{failure:?}"),
        }
    }
}

type Slot = Arc<Mutex<(Option<(How, BusAddr, Order)>, Option<Answer>)>>;

/// The test's side of a probe.
#[derive(Clone)]
pub(crate) struct Handle {
    slot: Slot,
    /// Memory behind each BAR, by index.
    pub(crate) bars: Vec<(u8, Arc<Striped>)>,
}

/// The device.
pub(crate) struct Probe(Handle);

impl Handle {
    /// A probe with these BARs.
    pub(crate) fn new(bars: impl Iterator<Item = (u8, Bytes)>) -> Self {
        let bars = bars.map(|(index, len)| (index, Arc::new(Striped::new(len)))).collect();
        Self { slot: Slot::default(), bars }
    }

    /// The device that obeys this handle.
    pub(crate) fn device(&self) -> Box<dyn Device> {
        Box::new(Probe(self.clone()))
    }

    /// Says what to send in the next step.
    pub(crate) fn order(&self, how: How, at: BusAddr, order: Order) {
        self.slot.lock().unwrap().0 = Some((how, at, order));
    }

    /// What came of it.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.slot.lock().unwrap().1.take()
    }
}

impl Device for Probe {
    fn layout(&self) -> Layout {
        self.0.bars.iter().fold(Layout::new(), |layout, (bar, memory)| layout.memory(*bar, Bytes::ZERO, memory.clone()))
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let order = self.0.slot.lock().unwrap().0.take();
        let Some((how, at, order)) = order else { return Progress::Idle };
        let answer = match order {
            Order::Write(bytes) => bus.write(how, at, &bytes).map(|()| Answer::Posted),
            Order::Read(len) => {
                let mut bytes = vec![0; len];
                bus.read(how, at, &mut bytes).map(|()| Answer::Data(bytes))
            }
            Order::Add => bus
                .atomic(how, at, Atomic::FetchAdd(Operand::Double(1)))
                .map(|old| Answer::Data(old.to_le_bytes().to_vec())),
            Order::Translate => bus.translate(how, at, true).map(|answer| Answer::At(answer.map(|answer| answer.to))),
        };
        self.0.slot.lock().unwrap().1 = Some(answer.unwrap_or_else(Answer::Failed));
        Progress::Idle
    }

    fn reset(&mut self) {}
}
