//! A bus with one flat memory, for trying a device without a machine.

use super::bus::{Agent, Around, Bus, How, PageResponse, RegisterWrite, RelayError, Translation};
use super::driver::Mmio;
use super::layout::{Behind, Layout};
use super::{Device, Progress};
use crate::memory::Memory;
use crate::wire::{Atomic, Failure};
use peerdma::addr::{BusAddr, Bytes};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// Everything a device may ask for is one memory whose first byte has address 0.
///
/// Requests outside it fail as unsupported; writes outside it are lost. Nothing is translated and
/// nothing is queued. For tests of a device's own logic; how requests travel is a machine's.
#[derive(Debug)]
pub struct Flat {
    memory: Arc<dyn Memory>,
    layout: Layout,
    interrupts: Vec<u16>,
    responses: VecDeque<(u16, PageResponse)>,
}

impl Flat {
    /// A bus around a device with this layout.
    pub fn new(memory: Arc<dyn Memory>, layout: Layout) -> Self {
        Self { memory, layout, interrupts: Vec::new(), responses: VecDeque::new() }
    }

    /// The vectors of the interrupts sent so far, earliest first.
    pub fn interrupts(&self) -> &[u16] {
        &self.interrupts
    }

    fn offset(at: BusAddr) -> Bytes {
        Bytes::new(at.as_u64())
    }
}

impl Bus for Flat {
    fn next_write(&mut self) -> Option<RegisterWrite> {
        self.layout.regions().iter().find_map(|region| {
            let Behind::Registers(registers) = &region.behind else { return None };
            let written = registers.take_write()?;
            let offset = Bytes::new(region.offset.as_u64() + written.offset);
            Some(RegisterWrite { bar: region.bar, offset, value: written.value, len: written.len })
        })
    }

    fn read(&mut self, _how: How, at: BusAddr, into: &mut [u8]) -> Result<(), Failure> {
        self.memory.read(Self::offset(at), into).map_err(|_| Failure::UnsupportedRequest)
    }

    fn write(&mut self, _how: How, at: BusAddr, from: &[u8]) -> Result<(), Failure> {
        // Lost where there is nothing, and nobody is told.
        let _ = self.memory.write(Self::offset(at), from);
        Ok(())
    }

    fn fetch(&mut self, how: How, at: BusAddr, memory: (&dyn Memory, Bytes), len: Bytes) -> Result<(), Failure> {
        let mut bytes = vec![0; len.as_u64() as usize];
        self.read(how, at, &mut bytes)?;
        memory.0.write(memory.1, &bytes).map_err(|_| Failure::NotSent)
    }

    fn send(&mut self, how: How, memory: (&dyn Memory, Bytes), at: BusAddr, len: Bytes) -> Result<(), Failure> {
        let mut bytes = vec![0; len.as_u64() as usize];
        memory.0.read(memory.1, &mut bytes).map_err(|_| Failure::NotSent)?;
        self.write(how, at, &bytes)
    }

    fn copy(&mut self, how: How, from: BusAddr, to: BusAddr, len: Bytes) -> Result<(), Failure> {
        let mut bytes = vec![0; len.as_u64() as usize];
        self.read(how, from, &mut bytes)?;
        self.write(how, to, &bytes)
    }

    fn agent(&self) -> Option<Agent> {
        Some(Agent { around: Around::Flat(Arc::as_ptr(&self.memory).addr()), index: 0 })
    }

    fn relay(
        &mut self,
        reader: Agent,
        (reads, from): (How, BusAddr),
        (writes, to): (How, BusAddr),
        len: Bytes,
    ) -> Result<(), RelayError> {
        if !self.agent().is_some_and(|own| own.is_beside(reader)) {
            return Err(RelayError::Read(Failure::NotSent));
        }
        let mut bytes = vec![0; len.as_u64() as usize];
        self.read(reads, from, &mut bytes).map_err(RelayError::Read)?;
        self.write(writes, to, &bytes).map_err(RelayError::Write)
    }

    fn atomic(&mut self, _how: How, at: BusAddr, atomic: Atomic) -> Result<u64, Failure> {
        self.memory.atomic(Self::offset(at), atomic).map_err(|_| Failure::UnsupportedRequest)
    }

    fn interrupt(&mut self, vector: u16) {
        self.interrupts.push(vector);
    }

    fn translate(&mut self, _how: How, at: BusAddr, write: bool) -> Result<Option<Translation>, Failure> {
        let left = self.memory.len().as_u64().saturating_sub(at.as_u64());
        Ok((left > 0).then_some(Translation { to: at, len: Bytes::new(left), write }))
    }

    fn request_page(&mut self, _how: How, _at: BusAddr, _write: bool, group: u16) -> Result<(), Failure> {
        self.responses.push_back((group, PageResponse::Invalid));
        Ok(())
    }

    fn next_page_response(&mut self) -> Option<(u16, PageResponse)> {
        self.responses.pop_front()
    }
}

/// A device on a flat bus, as a driver sees it: each pause steps the device once.
pub struct FlatDevice<D> {
    inner: RefCell<(D, Flat)>,
    layout: Layout,
}

impl<D: Device> FlatDevice<D> {
    /// Puts a device on a flat bus.
    pub fn new(device: D, memory: Arc<dyn Memory>) -> Self {
        let layout = device.layout();
        Self { inner: RefCell::new((device, Flat::new(memory, layout.clone()))), layout }
    }

    /// What the device and its bus are asked meanwhile.
    pub fn with<T>(&self, ask: impl FnOnce(&mut D, &mut Flat) -> T) -> T {
        let mut inner = self.inner.borrow_mut();
        let (device, flat) = &mut *inner;
        ask(device, flat)
    }

    /// Each part of an access with what is behind it.
    fn region(&self, bar: u8, offset: Bytes) -> Option<(&Behind, u64)> {
        let inside = |region: &&super::Region| {
            region.bar == bar
                && offset >= region.offset
                && offset.as_u64() - region.offset.as_u64() < region.len.as_u64()
        };
        let region = self.layout.regions().iter().find(inside)?;
        Some((&region.behind, offset.as_u64() - region.offset.as_u64()))
    }
}

impl<D: Device> Mmio for FlatDevice<D> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        let mut bytes = [0; 8];
        let into = &mut bytes[..usize::from(len.min(8))];
        match self.region(bar, offset) {
            Some((Behind::Registers(registers), at)) => registers.read(at, into),
            Some((Behind::Memory(memory, start), at)) => {
                // An access that reaches past the end reads zeros.
                let _ = memory.read(Bytes::new(start.as_u64() + at), into);
            }
            None => {}
        }
        u64::from_le_bytes(bytes)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        let bytes = value.to_le_bytes();
        let from = &bytes[..usize::from(len.min(8))];
        match self.region(bar, offset) {
            Some((Behind::Registers(registers), at)) => registers.write(at, from),
            Some((Behind::Memory(memory, start), at)) => {
                let _ = memory.write(Bytes::new(start.as_u64() + at), from);
            }
            None => {}
        }
    }

    fn pause(&self) -> bool {
        self.with(|device, flat| device.step(flat)) == Progress::Working
    }
}
