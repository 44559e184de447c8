//! A device that sends what it is told, and whose BARs are memory.

use peerdma::addr::{BusAddr, Bytes};
use peerdma_emu::device::{Bus, Device, How, Layout, Progress};
use peerdma_emu::memory::{Memory, Striped};
use peerdma_emu::wire::{Atomic, Failure};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Write(How, BusAddr, Vec<u8>),
    Read(How, BusAddr, usize),
    Atomic(How, BusAddr, Atomic),
    Translate(How, BusAddr),
}

/// What a device is told, and what it was told back: the data, or a translation's number.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    pub(crate) orders: VecDeque<Order>,
    pub(crate) answers: Vec<Result<Vec<u8>, Failure>>,
}

/// The device.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) talk: Arc<Mutex<Talk>>,
    pub(crate) bars: Vec<(u8, Arc<Striped>)>,
}

impl Sender {
    pub(crate) fn new(bars: impl Iterator<Item = (u8, Bytes)>) -> Self {
        let bars = bars.map(|(index, len)| (index, Arc::new(Striped::new(len)))).collect();
        Self { talk: Arc::default(), bars }
    }
}

impl Device for Sender {
    fn layout(&self) -> Layout {
        let with = |layout: Layout, (index, memory): &(u8, Arc<Striped>)| {
            layout.memory(*index, Bytes::ZERO, memory.clone() as Arc<dyn Memory>)
        };
        self.bars.iter().fold(Layout::new(), with)
    }

    /// One request at each step, so that others come between.
    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let Some(order) = self.talk.lock().unwrap().orders.pop_front() else { return Progress::Idle };
        let answer = match order {
            Order::Write(how, at, data) => bus.write(how, at, &data).map(|()| Vec::new()),
            Order::Read(how, at, len) => {
                let mut into = vec![0; len];
                bus.read(how, at, &mut into).map(|()| into)
            }
            Order::Atomic(how, at, atomic) => bus.atomic(how, at, atomic).map(|old| old.to_le_bytes().to_vec()),
            Order::Translate(how, at) => bus.translate(how, at, true).map(|_| Vec::new()),
        };
        self.talk.lock().unwrap().answers.push(answer);
        Progress::Working
    }

    fn reset(&mut self) {
        self.talk.lock().unwrap().orders.clear();
    }
}
