//! What must happen between writing a payload and ringing the doorbell that tells of it.
//!
//! A doorbell that overtakes its payload tells of bytes that are not there yet. PCI Express keeps
//! posted writes of one sender in order along one way to one end, and only there
//! ([`ordering`](crate::route::fabric::ordering), PCIe 6.0 §2.4.1): a payload that goes up to
//! memory and a doorbell that goes across to a peer may arrive either way round. What helps is to
//! read from where the payload went, since a read does not overtake writes before it and its
//! completion proves that they have arrived. Copies and caches add steps of their own.
//!
//! One question has two ends and one sender. Where a device writes a payload and the CPU then tells
//! another device, there are two questions: the payload against what tells the CPU (an
//! interrupt or a flag, both writes to memory), and the payload against the CPU's doorbell.
//!
//! ```
//! use peerdma::access::Prot;
//! use peerdma::addr::{BusAddr, Bytes, Iova};
//! use peerdma::dma::publish::{End, Leg, Sender, Step, publish};
//! use peerdma::dma::{Behind, DeviceAddress, Span};
//! # use peerdma::topology::{Builder, FunctionInfo, Position};
//! # let mut builder = Builder::new();
//! # builder.function(FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 }));
//! # let topology = builder.build();
//! # let drive = topology.at("00:01.0".parse().unwrap()).unwrap();
//! let span = |address, behind, snooped| {
//!     Span { at: Bytes::ZERO, address, len: Bytes::new(4096), behind, snooped, prot: Prot::Write, bounced: false }
//! };
//! let payload = Leg::of(&span(DeviceAddress::Iova(Iova::new(0x10_0000)), Behind::Memory, true));
//! let across = DeviceAddress::Bus { address: BusAddr::new(0xfe00_0000), bridge: None };
//! let doorbell = Leg::of(&span(across, Behind::Mmio, false)).ending_at(End::Function(drive));
//! let steps = publish(&payload, &doorbell, Sender::device());
//! assert_eq!(steps.iter().collect::<Vec<_>>(), [Step::FlushByRead]);
//! assert!(publish(&doorbell, &doorbell, Sender::device()).is_nothing());
//! ```
//!
//! Not here: ringing, and when the device has seen the doorbell.

mod step;
#[cfg(test)]
mod tests;

pub use step::{Publish, Step};

use super::span::{Behind, DeviceAddress, Span};
use crate::pcie::{DevFn, PciAddr};
use crate::route::fabric::journey::{Ending, Outcome};
use crate::route::fabric::ordering::{Flow, Order, Sent, ordered, proves};
use crate::topology::FunctionId;

/// Where a write ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum End {
    /// Memory.
    Memory,
    /// A function's memory.
    Function(FunctionId),
    /// Device memory of nobody knows whom, or of several; nothing is in order with it.
    Unknown,
}

/// One of the two writes: its way and its end, as the sender's mapping says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Leg {
    /// Where it ends.
    end: End,
    /// What the sender puts into the request.
    address: DeviceAddress,
    /// Whether caches of the CPU know of it.
    snooped: bool,
    /// Whether it is a copy.
    bounced: bool,
}

impl Leg {
    /// A write to this span. Device memory is nobody's until [`ending_at`](Self::ending_at) says whose.
    pub fn of(span: &Span) -> Self {
        let end = match span.behind {
            Behind::Memory => End::Memory,
            Behind::Mmio => End::Unknown,
        };
        Self { end, address: span.address, snooped: span.snooped, bounced: span.bounced }
    }

    /// Says whose memory it is.
    #[must_use]
    pub fn ending_at(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// What became of a write of it; `None` where that is not known.
    fn outcome(&self, sender: &Device) -> Option<Outcome> {
        let up = match (self.address, self.end) {
            _ if self.may_go_two_ways(sender) => return None,
            (DeviceAddress::Bus { .. }, End::Function(_)) => false,
            _ => true,
        };
        let end = match self.end {
            End::Memory => Ending::Memory,
            End::Function(function) => Ending::Function(function),
            End::Unknown => return None,
        };
        Some(Outcome { through_root: up, translated: None, end })
    }

    /// With ATS a request may carry a translated address, and the next one not; ACS direct translated
    /// P2P sends only the former across (PCIe 6.0 §6.12.6).
    fn may_go_two_ways(&self, sender: &Device) -> bool {
        sender.ats && !self.is_memory() && matches!(self.address, DeviceAddress::Iova(_))
    }

    fn is_memory(&self) -> bool {
        self.end == End::Memory
    }
}

/// How a device sends its payload and its doorbell. All of them are its own, in one traffic class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Device {
    /// The payload carries Relaxed Ordering.
    pub relaxed_payload: bool,
    /// The doorbell carries Relaxed Ordering.
    pub relaxed_doorbell: bool,
    /// It asks for translations (ATS) and sends requests with them.
    pub ats: bool,
}

/// How the CPU maps what it writes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum CpuMapping {
    /// Write-back: memory.
    #[default]
    Cached,
    /// Every store goes out by itself, in order.
    Uncached,
    /// Stores are gathered and leave in any order.
    WriteCombining,
}

/// Who writes the payload and rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Sender {
    /// A device writes the payload through its mapping, and the doorbell too.
    Device(Device),
    /// The CPU writes the payload, and then the doorbell; the device reads the payload through
    /// its mapping.
    Cpu {
        /// How the CPU maps the payload.
        payload: CpuMapping,
    },
}

impl Sender {
    /// A device without Relaxed Ordering and ATS.
    pub const fn device() -> Self {
        Self::Device(Device { relaxed_payload: false, relaxed_doorbell: false, ats: false })
    }

    /// The CPU, with the payload in memory.
    pub const fn cpu() -> Self {
        Self::Cpu { payload: CpuMapping::Cached }
    }
}

/// What must happen after `sender` wrote `payload` and before it writes `doorbell`, so that
/// whoever sees the doorbell sees the payload.
///
/// Where an end or a way is not known the steps are those that help in every case.
pub fn publish(payload: &Leg, doorbell: &Leg, sender: Sender) -> Publish {
    match sender {
        Sender::Device(device) => by_device(payload, doorbell, &device),
        Sender::Cpu { payload: mapping } => by_cpu(payload, doorbell, mapping),
    }
}

fn by_device(payload: &Leg, doorbell: &Leg, device: &Device) -> Publish {
    let passes_caches = payload.is_memory() && !payload.snooped;
    let by_software = payload.bounced || passes_caches;
    // Software is told of the end by a write to memory, as strictly as the device does that: it
    // takes the payload's way.
    let (doorbell, relaxed_doorbell) = if by_software { (payload, false) } else { (doorbell, device.relaxed_doorbell) };
    let write = |leg: &Leg, relaxed| leg.outcome(device).map(|outcome| sent(Flow::Posted, outcome, relaxed));
    let first = write(payload, device.relaxed_payload);
    let in_order = |relaxed| match (first, write(doorbell, relaxed)) {
        (Some(first), Some(second)) => ordered(&first, &second) == Order::Ordered,
        _ => false,
    };
    let flush = !in_order(false);
    let proved = match first {
        Some(first) => proves(&sent(Flow::NonPosted, first.outcome, false), &first),
        None => !device.relaxed_payload,
    };
    Publish::nothing()
        .with_if(flush && !proved, Step::StrictPayload)
        .with_if(flush && payload.may_go_two_ways(device), Step::OneWay)
        .with_if(flush, Step::FlushByRead)
        .with_if(passes_caches, Step::CacheInvalidate)
        .with_if(payload.bounced, Step::SyncForCpu)
        .with_if(by_software, Step::RingBySoftware)
        .with_if(!flush && !in_order(relaxed_doorbell), Step::StrictDoorbell)
}

fn by_cpu(payload: &Leg, doorbell: &Leg, mapping: CpuMapping) -> Publish {
    if payload.is_memory() {
        // Whoever sees the doorbell fetches the payload after it, and finds what is visible by then.
        // A doorbell in memory is a store like any other; one of a device is written with writel(),
        // which stays behind earlier stores to memory.
        return Publish::nothing()
            .with_if(payload.bounced, Step::SyncForDevice)
            .with_if(!payload.snooped, Step::CacheClean)
            .with_if(mapping == CpuMapping::WriteCombining || doorbell.is_memory(), Step::StoreBarrier);
    }
    // Stores to a device's memory are posted writes of the root complex.
    let one_way = |leg: &Leg| match leg.end {
        End::Function(function) => {
            Some(Outcome { through_root: true, translated: None, end: Ending::Function(function) })
        }
        End::Memory | End::Unknown => None,
    };
    let in_order = match (one_way(payload), one_way(doorbell)) {
        (Some(first), Some(second)) => {
            ordered(&sent(Flow::Posted, first, false), &sent(Flow::Posted, second, false)) == Order::Ordered
        }
        _ => false,
    };
    Publish::nothing()
        .with_if(mapping == CpuMapping::WriteCombining, Step::StoreBarrier)
        .with_if(!in_order, Step::FlushByRead)
}

/// One of the sender's own requests; the ID counts only where two senders are compared.
fn sent(flow: Flow, outcome: Outcome, relaxed: bool) -> Sent {
    const SENDER: PciAddr = PciAddr::new(0, 0, DevFn::new(0));
    Sent { flow, outcome, relaxed, id_based: false, by: SENDER }
}
