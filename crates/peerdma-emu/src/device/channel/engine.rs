//! The device's side of channels.

use super::entry::{COMMAND, COMPLETION, Command, Completion, Ring};
use super::{DOORBELL_PAGE, MOST_CHANNELS, NO_VECTOR, PASID_VALID, block, doorbell, register, state};
use crate::device::bus::{Bus, How};
use crate::device::registers::{Access, Registers};
use crate::wire::{Failure, Pasid};
use peerdma::addr::{BusAddr, Bytes};
use std::sync::Arc;

/// A channel that is on.
#[derive(Clone, Copy, Debug)]
struct Channel {
    commands: Ring,
    completions: Ring,
    how: How,
    vector: Option<u16>,
    /// Commands taken so far.
    head: u32,
    /// Commands written so far, as the doorbell said.
    tail: u32,
    /// Completions written so far.
    completed: u64,
}

/// What a register write meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::device) enum Event {
    /// This channel was started or stopped; work that it had is over.
    Renewed(u16),
    /// Something else; whoever waits for commands looks again.
    Other,
}

/// All channels of a device, with their registers.
#[derive(Debug)]
pub(in crate::device) struct Channels {
    registers: Arc<Registers>,
    list: Vec<Option<Channel>>,
}

impl Channels {
    /// Channels that are off; at least one, at most [`MOST_CHANNELS`].
    pub(in crate::device) fn new(count: u16) -> Self {
        let count = count.clamp(1, MOST_CHANNELS);
        let mut registers = Registers::new(doorbell(count)).with(Bytes::ZERO, Access::ReadOnly);
        for n in 0..count {
            for read_only in [register::STATE, register::COMPLETED] {
                registers = registers.with(Bytes::new(block(n) + read_only), Access::ReadOnly);
            }
        }
        let mut channels = Self { registers: Arc::new(registers), list: vec![None; usize::from(count)] };
        channels.reset();
        channels
    }

    /// The registers, to be put behind BAR0.
    pub(in crate::device) fn registers(&self) -> &Arc<Registers> {
        &self.registers
    }

    /// How many there are.
    pub(in crate::device) fn count(&self) -> u16 {
        self.list.len() as u16
    }

    /// Turns all of them off, and sets the registers back.
    pub(in crate::device) fn reset(&mut self) {
        self.list.fill(None);
        for offset in (0..self.registers.len().as_u64()).step_by(8) {
            self.registers.set(Bytes::new(offset), 0);
        }
        self.registers.set(Bytes::ZERO, u64::from(self.count()));
        for n in 0..self.count() {
            self.registers.set(Bytes::new(block(n) + register::VECTOR), NO_VECTOR);
        }
    }

    /// Looks at the earliest write to the registers; `None` if there is none.
    pub(in crate::device) fn hear(&mut self, bus: &mut dyn Bus) -> Option<Event> {
        let write = bus.next_write()?;
        let offset = write.offset.as_u64();
        if write.bar != 0 {
            return Some(Event::Other);
        }
        // What is acted on is what stands in the register: whoever wrote a part of one wrote all of it.
        if let Some(n) = (offset / DOORBELL_PAGE.as_u64()).checked_sub(1) {
            let tail = self.registers.get(Bytes::new(offset)) as u32;
            if let Some(Some(channel)) = self.list.get_mut(n as usize)
                && offset % DOORBELL_PAGE.as_u64() < 8
            {
                channel.tail = tail;
            }
            return Some(Event::Other);
        }
        let (n, within) = (offset.saturating_sub(block(0)) / 0x40, offset.saturating_sub(block(0)) % 0x40);
        let n = n as u16;
        if offset >= block(0) && n < self.count() && within & !7 == register::CONTROL {
            self.renew(n);
            return Some(Event::Renewed(n));
        }
        Some(Event::Other)
    }

    /// Starts or stops a channel as its registers say.
    fn renew(&mut self, n: u16) {
        let get = |offset| self.registers.get(Bytes::new(block(n) + offset));
        let on = get(register::CONTROL) & 1 != 0;
        let ring = |offset, slot| Ring::new(BusAddr::new(get(offset)), get(register::SLOTS_LOG2), slot);
        let pasid = get(register::PASID);
        let pasid = (pasid & PASID_VALID != 0).then(|| Pasid::new(pasid as u32 & 0xf_ffff)).flatten();
        let vector = Some(get(register::VECTOR)).filter(|vector| *vector < NO_VECTOR).map(|vector| vector as u16);
        let rings = (ring(register::COMMANDS, COMMAND), ring(register::COMPLETIONS, COMPLETION));
        let (channel, reached) = match (on, rings) {
            (false, _) => (None, state::OFF),
            (true, (Some(commands), Some(completions))) => {
                let how = How { pasid, ..How::default() };
                let fresh = Channel { commands, completions, how, vector, head: 0, tail: 0, completed: 0 };
                (Some(fresh), state::ON)
            }
            (true, _) => (None, state::BROKEN),
        };
        self.registers.set(doorbell(n), 0);
        self.registers.set(Bytes::new(block(n) + register::COMPLETED), 0);
        self.registers.set(Bytes::new(block(n) + register::STATE), reached);
        self.list[usize::from(n)] = channel;
    }

    fn channel(&self, n: u16) -> Option<&Channel> {
        self.list.get(usize::from(n))?.as_ref()
    }

    /// How the channel's requests are sent.
    pub(in crate::device) fn how(&self, n: u16) -> How {
        self.channel(n).map_or(How::default(), |channel| channel.how)
    }

    /// Where the channel's next command is, if there is one.
    ///
    /// A doorbell that claims more commands than there are slots breaks the channel: nobody can
    /// say which of them were overwritten.
    pub(in crate::device) fn next_command(&mut self, n: u16) -> Option<BusAddr> {
        let channel = self.channel(n)?;
        let waiting = channel.tail.wrapping_sub(channel.head);
        if waiting > channel.commands.slots() {
            self.break_off(n);
            return None;
        }
        (waiting > 0).then(|| channel.commands.slot(u64::from(channel.head)))
    }

    /// Takes the channel's next command out of memory.
    pub(in crate::device) fn fetch(&mut self, bus: &mut dyn Bus, n: u16) -> Option<Command> {
        let slot = self.next_command(n)?;
        let mut command = Command::ZERO;
        match bus.read(self.how(n), slot, &mut command.0) {
            Ok(()) => {
                self.take(n);
                Some(command)
            }
            Err(_) => {
                self.break_off(n);
                None
            }
        }
    }

    /// Counts the next command as taken.
    pub(in crate::device) fn take(&mut self, n: u16) {
        if let Some(Some(channel)) = self.list.get_mut(usize::from(n)) {
            channel.head = channel.head.wrapping_add(1);
        }
    }

    /// Where the channel's next completion goes.
    pub(in crate::device) fn completion_slot(&self, n: u16) -> Option<BusAddr> {
        let channel = self.channel(n)?;
        Some(channel.completions.slot(channel.completed))
    }

    /// Completes a command: writes its completion, counts it, and sends the interrupt.
    pub(in crate::device) fn complete(&mut self, bus: &mut dyn Bus, n: u16, completion: Completion) {
        let (Some(slot), how) = (self.completion_slot(n), self.how(n)) else { return };
        self.complete_at(bus, n, completion, how, slot);
    }

    /// The same, with the slot reached in another way.
    pub(in crate::device) fn complete_at(
        &mut self,
        bus: &mut dyn Bus,
        n: u16,
        completion: Completion,
        how: How,
        slot: BusAddr,
    ) {
        let Some(Some(channel)) = self.list.get_mut(usize::from(n)) else { return };
        channel.completed += 1;
        let (number, vector) = (channel.completed, channel.vector);
        self.registers.set(Bytes::new(block(n) + register::COMPLETED), number);
        let posted: Result<(), Failure> = completion.post(bus, how, slot, number);
        match (posted, vector) {
            (Err(_), _) => self.break_off(n),
            (Ok(()), Some(vector)) => bus.interrupt(vector),
            (Ok(()), None) => {}
        }
    }

    /// Stops a channel that cannot go on, and says so in its state.
    pub(in crate::device) fn break_off(&mut self, n: u16) {
        if let Some(channel) = self.list.get_mut(usize::from(n)) {
            *channel = None;
            self.registers.set(Bytes::new(block(n) + register::STATE), state::BROKEN);
        }
    }
}
