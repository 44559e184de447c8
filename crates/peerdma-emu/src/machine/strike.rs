//! Faults that were armed, as they take effect.
//!
//! A request is looked at wherever it stops on its way (`travel`), so that what waits in queues,
//! what is carried through and what is a part of a long transfer meet the same faults. What
//! changes the machine itself happens between requests.

use super::Machine;
use super::bus::Port;
use super::function::{Flip, Target};
use super::log::Happened;
use super::queue::Posted;
use crate::config::{Detected, Width};
use crate::device::{Behind, How};
use crate::fabric::{Egress, Ending, HostId, NodeId};
use crate::faults::{ArmError, Armed, Damage, Due, Fault, FaultId, Has, Lender, Moment, Passing, Plan, Spot, Stop};
use crate::memory::Memory;
use crate::wire::{Head, Kind};
use peerdma::addr::{BusAddr, Bytes};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Command register: Memory Space Enable.
const MEMORY_SPACE: u32 = 1 << 1;
const COMMAND: u16 = 0x04;
/// Lowest bits of the power management control register.
const D3_HOT: u32 = 3;
/// Max_Payload_Size in the device control register; zero is 128 bytes.
const PAYLOAD: u32 = 7 << 5;
/// ACS control: Request Redirect, Completion Redirect, Upstream Forwarding.
const REDIRECTION: u32 = 0x1c;
const EGRESS_CONTROL: u32 = 1 << 5;

/// A request as faults see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    pub(super) request: u64,
    pub(super) from: Option<NodeId>,
    pub(super) head: Head,
}

impl Posted {
    pub(super) fn under_way(&self) -> UnderWay {
        UnderWay { request: self.number, from: self.from, head: self.head }
    }
}

/// What a fault makes of a request that goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Struck {
    /// It ends.
    Ends(Ending),
    /// This root complex answers it with all ones.
    Ones(HostId),
}

impl Struck {
    /// How it ends; all ones are no answer to what is no read.
    pub(super) const fn ending(self) -> Ending {
        match self {
            Self::Ends(ending) => ending,
            Self::Ones(host) => Ending::NotForwarded(host),
        }
    }
}

impl Machine {
    /// Puts a fault into effect.
    ///
    /// What changes the machine at once has done so when this returns.
    ///
    /// # Errors
    /// [`ArmError`], and nothing has changed: the fault needs what the machine does not have, or
    /// cannot strike where the plan says.
    pub fn arm(&self, plan: Plan) -> Result<FaultId, ArmError> {
        let has = |node: NodeId| {
            let layout = self.function(node).layout();
            let memory = layout.regions().iter().any(|region| matches!(region.behind, Behind::Memory(..)));
            Has { memory, lender: self.lender(node).is_some() }
        };
        let lent = !self.lenders().is_empty();
        let id = self.faults.arm(&self.fabric, (&has, lent), plan)?;
        self.tick(Moment::Arming);
        Ok(id)
    }

    /// Says who lends a function's memory to others as buffers, for the faults of buffers to strike at.
    ///
    /// One for a function; a later one takes the place of an earlier.
    pub fn lend(&self, node: NodeId, lender: Arc<dyn Lender>) {
        let mut lenders = self.lenders();
        lenders.retain(|(other, _)| *other != node);
        lenders.push((node, lender));
    }

    fn lenders(&self) -> MutexGuard<'_, Vec<(NodeId, Arc<dyn Lender>)>> {
        self.lenders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lender(&self, node: NodeId) -> Option<Arc<dyn Lender>> {
        self.lenders().iter().find(|(other, _)| *other == node).map(|(_, lender)| lender.clone())
    }

    /// Ends a fault; what it did, or `None` if it is not armed.
    ///
    /// Requests go on as before. Registers that it wrote stay written, a card that it pulled stays
    /// pulled, and what a mirror kept to itself is lost.
    pub fn disarm(&self, id: FaultId) -> Option<Armed> {
        self.note_lost();
        let armed = self.faults.disarm(id)?;
        if armed.fault == Fault::LostInvalidation
            && let Some(iommu) = self.fabric.root().iommu()
        {
            iommu.lose_invalidations(0);
        }
        Some(armed)
    }

    /// Every fault that is armed, also those that are spent, with where and how often each struck.
    pub fn armed(&self) -> Vec<Armed> {
        self.note_lost();
        self.faults.armed()
    }

    /// Counts a moment for the faults and does what is due; whether any is armed.
    #[inline]
    pub(super) fn tick(&self, moment: Moment) -> bool {
        let armed = self.faults.are_armed();
        if armed {
            self.strike_what_is_due(moment);
        }
        armed
    }

    #[inline(never)]
    fn strike_what_is_due(&self, moment: Moment) {
        self.note_lost();
        for due in self.faults.due(moment) {
            if due.fault == Fault::LostInvalidation {
                if let Some(iommu) = self.fabric.root().iommu() {
                    self.faults.loses_from(due.id, iommu.lost_invalidations());
                    iommu.lose_invalidations(due.limit);
                }
            } else if let Spot::Node(node) = due.spot
                && self.change_by(&due, node)
            {
                self.log.note(self.log.number(), Happened::Struck(due.fault.word()));
            } else {
                self.faults.undo(due.id);
            }
        }
    }

    /// Invalidations are lost in the IOMMU, which counts them.
    fn note_lost(&self) {
        if self.faults.are_armed()
            && let Some(iommu) = self.fabric.root().iommu()
        {
            for _ in 0..self.faults.lost(iommu.lost_invalidations()) {
                self.log.note(self.log.number(), Happened::Struck(Fault::LostInvalidation.word()));
            }
        }
    }

    /// Does to a node what its fault does; whether anything was done.
    fn change_by(&self, due: &Due, node: NodeId) -> bool {
        let config = self.fabric.tree().config(node);
        let cpu = self.cpu();
        let write = |at: u16, change: &dyn Fn(u32) -> u32| {
            cpu.config_write(node, at, Width::Two, change(config.read(at, Width::Two)));
            true
        };
        match due.fault {
            Fault::SurpriseRemoval => {
                self.set_present(node, false);
                true
            }
            Fault::Reset => {
                self.reset(node);
                true
            }
            Fault::BarOff => write(COMMAND, &|command| command & !MEMORY_SPACE),
            Fault::D3 => config.power_control_at().is_some_and(|at| write(at, &|control| control | D3_HOT)),
            Fault::Mps => config.device_control_at().is_some_and(|at| write(at, &|control| control & !PAYLOAD)),
            Fault::AcsChange => {
                let Some((at, vector)) = config.acs_control_at() else { return false };
                if config.has_egress_vector() && due.chance & 1 != 0 {
                    vector.for_each(|word| cpu.config_write(node, word, Width::Four, u32::MAX));
                    return write(at, &|control| control | EGRESS_CONTROL);
                }
                write(at, &|control| control | REDIRECTION)
            }
            Fault::StrayWrite => self.stray(due, node),
            fault => fault.wrong().zip(self.lender(node)).is_some_and(|(wrong, lender)| lender.do_wrong(wrong)),
        }
    }

    /// Eight bytes of a function to an address that nobody gave it; whether they were sent.
    fn stray(&self, due: &Due, node: NodeId) -> bool {
        let at = due.address.unwrap_or_else(|| self.stray_address(due.chance));
        let Ok(head) = (Port { machine: self, node }).head(How::default(), Kind::Write, at, Bytes::new(8)) else {
            return false;
        };
        let number = self.log.number();
        self.log.note(number, Happened::Sent { from: Some(node), head });
        let data = (!due.chance).to_le_bytes().into();
        let first = self.fabric.leave(node, head);
        // Not by way of `post`'s callers, which would count it among the requests that were meant.
        self.put(Posted { number, from: Some(node), head, data, way: Vec::new() }, None, first);
        true
    }

    /// A multiple of eight in memory or in a window.
    fn stray_address(&self, chance: u64) -> BusAddr {
        let memory = self.memory.iter().map(|stretch| (stretch.range.start().as_u64(), stretch.range.len().as_u64()));
        let hosts = self.fabric.root().hosts().map(|host| self.fabric.root().host(host));
        let windows =
            hosts.flat_map(|host| &host.windows).map(|window| (window.bus.start().as_u64(), window.bus.len().as_u64()));
        let places: Vec<(u64, u64)> = memory.chain(windows).collect();
        let mut random = fastrand::Rng::with_seed(chance);
        let (start, len) = random.choice(places).unwrap_or((0, 8));
        BusAddr::new(start.saturating_add(random.u64(..len.max(8)) & !7))
    }

    /// What a fault makes of a request that has come to a stop of its way; `by` is the one before,
    /// for a request that was under way before anything was armed.
    #[inline]
    pub(super) fn struck(
        &self,
        request: UnderWay,
        way: &mut Vec<Stop>,
        by: Option<Egress>,
        stop: Stop,
    ) -> Option<Struck> {
        if !self.faults.are_armed() {
            return None;
        }
        if way.is_empty() {
            way.extend(by.map(Stop::By));
        }
        way.push(stop);
        self.struck_on(request, way)
    }

    #[inline(never)]
    fn struck_on(&self, UnderWay { request, from, head }: UnderWay, way: &[Stop]) -> Option<Struck> {
        let (fault, spot) = self.faults.ends(self.fabric.tree(), Passing { from, kind: head.kind, way })?;
        self.log.note(request, Happened::Struck(fault.word()));
        Some(match (fault, spot) {
            (Fault::AllOnes, Spot::Host(host)) if head.kind == Kind::Read => {
                self.log.note(request, Happened::AllOnes { host });
                Struck::Ones(host)
            }
            (Fault::AllOnes, Spot::Host(host)) => Struck::Ends(Ending::NotForwarded(host)),
            (_, Spot::Host(host)) => Struck::Ends(Ending::LostRoot(host)),
            (_, Spot::Node(node)) => Struck::Ends(Ending::Lost(node)),
            (_, Spot::Iommu) => return None,
        })
    }

    /// What a request has come to, with a bit of its data turned if a fault says so.
    pub(super) fn damaged(&self, request: UnderWay, way: &[Stop], target: Target, node: Option<NodeId>) -> Target {
        if !self.faults.are_armed() {
            return target;
        }
        let UnderWay { request, from, head } = request;
        let passing = Passing { from, kind: head.kind, way };
        let bits = head.len.as_u64().saturating_mul(8);
        let Some((bit, damage)) = self.faults.flips(self.fabric.tree(), passing, bits) else { return target };
        self.log.note(request, Happened::Struck(Fault::BitFlip.word()));
        if damage == Damage::Poisoned {
            // Whoever receives the data notes it: the completer of a write, the requester of a read.
            let receiver = if head.kind == Kind::Write { node } else { from };
            if let Some(receiver) = receiver {
                self.fabric.tree().config(receiver).note(Detected::Poisoned);
            }
        }
        Target::Damaged(Box::new(target), Flip { bit, damage })
    }

    /// Whether the completion of a request that has arrived comes too late.
    pub(super) fn delayed(&self, request: UnderWay, way: &[Stop]) -> bool {
        let UnderWay { request, from, head } = request;
        if !self.faults.are_armed() || head.kind == Kind::Write {
            return false;
        }
        let late = self.faults.delays(self.fabric.tree(), Passing { from, kind: head.kind, way });
        if late {
            self.log.note(request, Happened::Struck(Fault::LateCompletion.word()));
        }
        late
    }

    /// What is behind a BAR, or the mirror that a fault put before it.
    pub(super) fn mirrored(&self, request: u64, node: NodeId, target: Target) -> Target {
        if !self.faults.are_armed() {
            return target;
        }
        match target {
            Target::Memory(memory, at) => match self.faults.mirror(node, &memory) {
                Some(mirror) => {
                    self.log.note(request, Happened::Struck(Fault::MirrorBar.word()));
                    Target::Memory(mirror as std::sync::Arc<dyn Memory>, at)
                }
                None => Target::Memory(memory, at),
            },
            other => other,
        }
    }
}
