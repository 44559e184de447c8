//! Which of six gates is shut, each with what was read and what to do next.
//!
//! Bytes between two devices pass six gates, and a program that fails at any of them
//! reports the same error. [`examine`] looks at each in the order in which they are met:
//!
//! | gate | file | what is looked at |
//! |---|---|---|
//! | [`Station::Kernel`] | `kernel` | configuration, command line, modules |
//! | [`Station::Bars`] | `bars` | assigned, large enough, within the initiator's reach |
//! | [`Station::Route`] | `way` | the verdict of both views |
//! | [`Station::Iommu`] | `translation` | how the initiator's addresses are treated |
//! | [`Station::Direction`] | `directions` | what the hardware does with writes and with reads |
//! | [`Station::Grant`] | `grant` | what the bound drivers hand out and take |
//!
//! [`fault`] reads an address that an IOMMU or a port complained about. Every check is
//! one line: what could not be read is [`Status::Unknown`], never fine. Inside a virtual
//! machine no route is called fine either: what hangs where there is the hypervisor's
//! invention, and not evidence of what the hardware does.

mod bars;
mod directions;
pub mod fault;
mod grant;
mod kernel;
mod translation;
mod way;

use super::{Judge, PairVerdict, Target};
use crate::pcie::Fact;
use crate::topology::{Function, FunctionId, Origin, Topology};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// One of the six gates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Station {
    /// Kernel configuration, command line and modules.
    Kernel,
    /// BARs and address widths.
    Bars,
    /// The route.
    Route,
    /// IOMMU mode, and so the kind of address.
    Iommu,
    /// What the platform delivers in each direction.
    Direction,
    /// What drivers grant, as far as it is visible.
    Grant,
}

impl Station {
    /// All six, in order.
    pub const ALL: [Self; 6] = [Self::Kernel, Self::Bars, Self::Route, Self::Iommu, Self::Direction, Self::Grant];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Bars => "bars",
            Self::Route => "route",
            Self::Iommu => "iommu",
            Self::Direction => "direction",
            Self::Grant => "grant",
        }
    }
}

/// Whether a gate is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Status {
    /// Open.
    Ok,
    /// The input cannot tell.
    Unknown,
    /// Shut.
    Fail,
}

impl Status {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Fail => "FAIL",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// At which gate.
    pub station: Station,
    /// What came of it.
    pub status: Status,
    /// What was looked at: a function, a pair, an option.
    pub object: String,
    /// What was read, and where.
    pub evidence: String,
    /// What to do next, where there is something.
    pub next: Option<String>,
}

impl Check {
    /// A check without a next step.
    pub fn new(station: Station, status: Status, object: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self { station, status, object: object.into(), evidence: evidence.into(), next: None }
    }

    /// The same with a next step.
    #[must_use]
    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// One initiator and its target.
    Pair(FunctionId, &'a Target),
    /// Every ordered pair of these functions.
    Machine(&'a [FunctionId]),
}

impl Scope<'_> {
    /// The functions at the ends of pairs.
    pub fn ends(&self) -> Vec<FunctionId> {
        match self {
            Self::Pair(initiator, target) => [*initiator, target.function()].to_vec(),
            Self::Machine(functions) => functions.to_vec(),
        }
    }
}

/// What is known when the gates are asked.
struct Case<'a> {
    judge: &'a Judge<'a>,
    subject: Subject<'a>,
}

/// What is looked at, with the verdict of a pair.
enum Subject<'a> {
    Pair(Box<PairVerdict>),
    Machine(&'a [FunctionId]),
}

impl<'a> Case<'a> {
    fn topology(&self) -> &'a Topology {
        self.judge.topology()
    }

    fn name(&self, function: FunctionId) -> String {
        self.topology().function(function).address().to_string()
    }

    /// The functions at the ends of pairs.
    fn ends(&self) -> Vec<FunctionId> {
        match &self.subject {
            Subject::Pair(pair) => [pair.initiator, pair.target.function()].to_vec(),
            Subject::Machine(functions) => functions.to_vec(),
        }
    }

    fn in_guest(&self) -> bool {
        self.topology().machine().in_guest == Fact::Known(true)
    }

    fn in_confidential_guest(&self) -> bool {
        self.topology().machine().in_confidential_guest == Fact::Known(true)
    }
}

/// Asks the six gates, in order; each has at least one check.
pub fn examine(judge: &Judge<'_>, scope: Scope<'_>) -> Vec<Check> {
    let subject = match scope {
        Scope::Pair(initiator, target) => Subject::Pair(Box::new(judge.judge(initiator, target))),
        Scope::Machine(functions) => Subject::Machine(functions),
    };
    let case = Case { judge, subject };
    let mut checks = Vec::new();
    kernel::check(&case, &mut checks);
    bars::check(&case, &mut checks);
    way::check(&case, &mut checks);
    translation::check(&case, &mut checks);
    directions::check(&case, &mut checks);
    grant::check(&case, &mut checks);
    checks
}

/// What the reader must know about the machine before believing any check.
pub fn caveats(topology: &Topology) -> Vec<String> {
    let machine = topology.machine();
    let mut caveats = Vec::new();
    if machine.in_confidential_guest == Fact::Known(true) {
        caveats.push(
            "this is a guest with confidential memory: Linux bounces every mapping there, so those through a host bridge \
             fail, while switch-direct ones pass unchecked, also to devices that the guest does not trust"
                .to_string(),
        );
    }
    if machine.in_guest == Fact::Known(true) {
        caveats.push(
            "this is a virtual machine: its topology, BARs and ACS are what the hypervisor shows, and no evidence of the \
             hardware; run peerdma on the host"
                .to_string(),
        );
    }
    let is_described = |function: &Function| function.info().origin == Origin::Platform;
    if machine.in_guest == Fact::Unknown && !topology.functions().all(|(_, function)| is_described(function)) {
        caveats.push(
            "whether this is a virtual machine is not told; in one, topology, BARs and ACS are the hypervisor's, and no \
             evidence of the hardware"
                .to_string(),
        );
    }
    caveats
}

#[cfg(test)]
mod tests;
