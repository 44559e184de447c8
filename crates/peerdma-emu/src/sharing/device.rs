//! What happens to a device, as deeds on its registers.

use crate::config::Width;
use crate::fabric::NodeId;
use crate::machine::Machine;
use peerdma::addr::PhysAddr;
use peerdma::buffer::life::{Answers, Disturbance};

/// Command register, and its bit for memory decoding.
const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 1 << 1;
/// Power state in the power management control register: D3hot.
const D3_HOT: u32 = 3;
/// Configuration registers that a reset loses and whoever resets restores: the header, and the first capabilities.
const SAVED: std::ops::Range<u16> = 0x04..0x100;

/// A device that things are done to. Deeds overlap, and the registers show what all of them leave.
#[derive(Debug)]
pub struct Exposed {
    node: NodeId,
    /// Where the processor finds its registers.
    registers: PhysAddr,
    /// Double words of the configuration space as they were when the device was found.
    saved: Vec<(u16, u32)>,
    decode_off: u32,
    asleep: u32,
    in_reset: u32,
    present: bool,
}

impl Exposed {
    /// The device at this node, in the state in which it is to be again; its registers are where the processor
    /// finds them.
    pub fn new(machine: &Machine, node: NodeId, registers: PhysAddr) -> Self {
        let cpu = machine.cpu();
        let saved = SAVED.step_by(4).map(|at| (at, cpu.config_read(node, at, Width::Four))).collect();
        Self { node, registers, saved, decode_off: 0, asleep: 0, in_reset: 0, present: true }
    }

    /// Does what disturbs.
    pub fn begin(&mut self, machine: &Machine, what: Disturbance) {
        match what {
            Disturbance::DecodeOff => self.decode_off += 1,
            Disturbance::PowerDown => self.asleep += 1,
            Disturbance::Reset | Disturbance::FunctionReset | Disturbance::HotReset => {
                self.in_reset += 1;
                machine.reset(self.node);
            }
            Disturbance::Removal => {
                self.present = false;
                machine.set_present(self.node, false);
            }
            // What is done to bytes or to rights is done by the exporter.
            _ => return,
        }
        self.show(machine);
    }

    /// Undoes it, as far as it can be; a device that was removed is put back.
    pub fn end(&mut self, machine: &Machine, what: Disturbance) {
        let count = match what {
            Disturbance::DecodeOff => &mut self.decode_off,
            Disturbance::PowerDown => &mut self.asleep,
            Disturbance::Reset | Disturbance::FunctionReset | Disturbance::HotReset => &mut self.in_reset,
            Disturbance::Removal => {
                self.present = true;
                machine.set_present(self.node, true);
                return self.show(machine);
            }
            _ => return,
        };
        *count = count.saturating_sub(1);
        self.show(machine);
    }

    /// Brings to the device what is on its way there: a read that follows writes pushes them (PCIe 6.0 §2.4.1).
    ///
    /// Nobody else does. What an IOMMU has translated and sent on to a peer it does not wait for when its entry goes
    /// (VT-d 4.1, Drain Writes of the IOTLB invalidate register).
    pub fn push(&self, machine: &Machine) {
        machine.cpu().load(self.registers, &mut [0; 8]);
    }

    /// What its registers say now.
    pub fn answers(&self) -> Answers {
        Answers { decoding: self.decode_off == 0, powered: self.asleep == 0 }
    }

    /// Writes what the deeds leave: everything as saved, but for decoding and power.
    fn show(&self, machine: &Machine) {
        if !self.present {
            return;
        }
        let cpu = machine.cpu();
        let config = machine.fabric().tree().config(self.node);
        let power = config.power_control_at();
        // A function that sleeps takes configuration writes; it wakes last, with everything in place.
        for &(at, value) in self.saved.iter().filter(|(at, _)| *at != COMMAND && Some(*at) != power) {
            cpu.config_write(self.node, at, Width::Four, value);
        }
        let answers = self.answers();
        if let Some(at) = power {
            let control = cpu.config_read(self.node, at, Width::Four) & !D3_HOT;
            cpu.config_write(self.node, at, Width::Four, if answers.powered { control } else { control | D3_HOT });
        }
        let command = self.saved.iter().find(|(at, _)| *at == COMMAND).map_or(0, |(_, command)| command & 0xffff);
        let decoding = answers.decoding && self.in_reset == 0;
        let command = if decoding { command | MEMORY_SPACE } else { command & !MEMORY_SPACE };
        cpu.config_write(self.node, COMMAND, Width::Two, command);
    }
}
