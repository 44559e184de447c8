//! A machine: fabric, memory, IOMMU, devices, and what is on its way between them.
//!
//! Everything takes `&self`. Writes wait in queues, one for each egress (`queue`), until somebody
//! lets the machine go on: [`Machine::step`] moves one of them or steps one device, chosen by a
//! seed, so that a run can be repeated exactly. With [`Delivery::AtOnce`] nothing waits, devices
//! may be stepped in threads of their own ([`Machine::with_threads`]), and orders that hardware
//! would leave free come out as they were sent.
//!
//! - [`build`]: from a platform file; [`mod@describe`]: what its registers say at power-on.
//! - `function`: one function's registers, memory and engine; `bus`: the machine as it sees it.
//! - `travel`: requests under way; `homeward`: completions; `course`: long transfers in strokes, each as
//!   far as the way is the same (`reach`); `answer`: bytes in and out of
//!   what they come to; `page`: requests for pages and their responses.
//! - [`cpu`]: loads and stores of a processor; [`log`](Log): what happened, hop by hop.
//! - `translations`, `outstanding`: what a function was told by its root complex, `interrupts` what a
//!   root complex was.
//! - `state`: reset, presence, trusted interfaces. `step`: who goes next. `strike`: faults that
//!   were armed, as they take effect.
//!
//! # What a step costs
//! Functions with something to do and queues that hold something are known before anybody asks
//! (`device::awake`, `queue`), so that choosing among them takes the same time in a machine
//! of any size. What is chosen costs what it does.
//!
//! # Locks
//! In this order, each held for a moment: an engine's device, the IOMMU's passage, then one of
//! courses, queues, log, interrupts, a stripe of memory, writes to registers, and last who is
//! awake. Nothing is called back under a lock but an engine's own step.

mod answer;
pub mod build;
mod bus;
mod course;
pub mod cpu;
pub mod describe;
mod function;
mod homeward;
mod interrupts;
mod log;
mod outstanding;
#[cfg(test)]
mod packets_and_strokes;
mod page;
mod queue;
mod reach;
mod state;
mod step;
mod strike;
#[cfg(test)]
mod tests;
mod translations;
mod travel;

pub use build::{BuildError, Builder};
pub use bus::Port;
pub use cpu::Cpu;
pub use log::{Event, Happened, Log};
pub use state::InterfaceError;

use crate::device::awake::{Awake, Waker};
use crate::device::{Device, Layout};
use crate::fabric::{Egress, Ending, Fabric, NodeId};
use crate::faults::{Faults, Lender};
use crate::iommu::Passage;
use crate::memory::{Frames, Memory};
use crate::platform::TdiState;
use crate::wire::{Head, Pasid};
use function::{Function, Target, locked};
use interrupts::Interrupts;
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use queue::Queues;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// When writes arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Delivery {
    /// When the machine is let go on, in an order that a seed chooses among those allowed.
    #[default]
    Queued,
    /// Before the call that sends them returns.
    AtOnce,
}

/// Memory at CPU addresses.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Where.
    pub range: AddrRange<PhysAddr>,
    /// The bytes; as many as the range has.
    pub memory: Arc<dyn Memory>,
}

/// What stands at one node of the tree.
pub struct Part {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What is behind its BARs, and its engine.
    pub device: Option<Box<dyn Device>>,
    /// Width in bits of the addresses it can form.
    pub mask_bits: u8,
    /// State of its trusted interface; `None` without one.
    pub tdi: Option<TdiState>,
}

/// An interrupt message that a root complex took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Interrupt {
    /// Who sent it.
    pub from: Option<NodeId>,
    /// The address, which says for which processor it is.
    pub at: BusAddr,
    /// The message, whose lower byte is the vector.
    pub data: u32,
}

/// How often requests ended in one way.
pub type Counts = BTreeMap<Ending, u64>;

/// A machine.
pub struct Machine {
    /// No other machine of the process has it.
    number: u64,
    fabric: Fabric,
    functions: Vec<Function>,
    memory: Vec<Stretch>,
    delivery: Delivery,
    queues: Mutex<Queues>,
    /// How many writes are in them or were taken out and are nowhere else yet, so that nobody looks who need not.
    waiting: AtomicUsize,
    log: Log,
    interrupts: Mutex<Interrupts>,
    counts: Mutex<Counts>,
    random: Mutex<fastrand::Rng>,
    /// Functions whose engines have something to do.
    awake: Arc<Awake>,
    /// How many bodies run beside devices in threads.
    threads: AtomicUsize,
    faults: Faults,
    /// Who lends which function's memory as buffers.
    lenders: Mutex<Vec<(NodeId, Arc<dyn Lender>)>>,
    /// Where page tables are, if the machine has a place for them.
    tables: Option<Frames>,
    /// How often anybody looked at a function.
    #[cfg(test)]
    looked: std::sync::atomic::AtomicU64,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}

/// Events that a log keeps.
const LOG_CAPACITY: usize = 1 << 16;

impl Machine {
    /// Puts a machine together; `parts` stand at the tree's nodes, in order, and nodes past their end
    /// are ports without registers of their own.
    pub fn new(fabric: Fabric, parts: Vec<Part>, memory: Vec<Stretch>, delivery: Delivery, seed: u64) -> Self {
        let tree = fabric.tree();
        let mut parts = parts.into_iter();
        let awake = Awake::new(tree.len());
        let functions = tree.ids().map(|id| {
            let part = parts.next().unwrap_or(Part { name: None, device: None, mask_bits: 64, tdi: None });
            Function::new(part.name, part.device, part.mask_bits, part.tdi, Waker::new(&awake, id.index()))
        });
        let functions = functions.collect();
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            functions,
            memory,
            delivery,
            queues: Mutex::default(),
            waiting: AtomicUsize::new(0),
            log: Log::new(LOG_CAPACITY),
            interrupts: Mutex::default(),
            counts: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            awake,
            threads: AtomicUsize::new(0),
            faults: Faults::default(),
            lenders: Mutex::default(),
            tables: None,
            #[cfg(test)]
            looked: Default::default(),
            fabric,
        }
    }

    /// Ports, functions and root complexes.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Memory for page tables; a machine that was put together by hand has none.
    pub fn tables(&self) -> Option<&Frames> {
        self.tables.as_ref()
    }

    /// Memory at its addresses; of two stretches that overlap the first answers.
    pub fn memory(&self) -> &[Stretch] {
        &self.memory
    }

    /// What happened.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The processors.
    pub fn cpu(&self) -> Cpu<'_> {
        Cpu::new(self)
    }

    /// A function's way into the fabric.
    ///
    /// # Panics
    /// If the node is another machine's and past this one's end.
    pub fn port(&self, node: NodeId) -> Port<'_> {
        assert!(node.index() < self.functions.len(), "a node of this machine");
        Port { machine: self, node }
    }

    /// The node of this name.
    pub fn named(&self, name: &str) -> Option<NodeId> {
        let position = self.functions.iter().position(|function| function.name.as_deref() == Some(name));
        position.map(NodeId::new)
    }

    /// The name of a node, where it has one.
    pub fn name(&self, node: NodeId) -> Option<&str> {
        self.functions.get(node.index())?.name.as_deref()
    }

    /// What stands behind the BARs of a node.
    pub fn layout(&self, node: NodeId) -> &Layout {
        self.function(node).layout()
    }

    /// Interrupts that have come since they were last taken, earliest first.
    ///
    /// A message that comes again before it was taken is there once, as an interrupt controller
    /// has one bit for it.
    pub fn take_interrupts(&self) -> Vec<Interrupt> {
        locked(&self.interrupts).take()
    }

    /// How many interrupts were lost, as too many different ones waited to be taken.
    pub fn lost_interrupts(&self) -> u64 {
        locked(&self.interrupts).lost()
    }

    /// How often requests ended in which way since the machine's start. Errors of writes show here
    /// and nowhere else, as they do in a port's error registers.
    pub fn counts(&self) -> Counts {
        locked(&self.counts).clone()
    }

    /// State of a function's trusted interface.
    pub fn tdi(&self, node: NodeId) -> Option<TdiState> {
        self.function(node).tdi()
    }

    /// Brings writes that have been translated into memory: what an IOMMU drains before it calls an
    /// invalidation done.
    ///
    /// No other queue is drained. What comes up to a root complex is not translated yet, and is a fault
    /// afterwards; what was sent translated, the function itself pushes ([`invalidate`](Self::invalidate)).
    /// A write that goes on to a peer has left for that peer's port: a write is drained when
    /// processors see it in memory, and of others no IOMMU promises anything (VT-d 4.1, Drain Writes of
    /// the IOTLB invalidate register). Whoever gives device memory to others reads from that device
    /// first, which pushes what is on its way there.
    pub fn drain(&self) {
        // Another thread may have translated what it took on its way up, and not put it down yet.
        self.await_hands();
        for host in self.fabric.root().hosts() {
            self.flush(Egress::Memory(host));
        }
    }

    /// Tells a function to forget translations of a range, in one address space or in all of them.
    ///
    /// A step of its engine that is under way ends before this returns, so that it is not to be called
    /// from within one. Its own writes on the way up to the root complex arrive before this returns, as the
    /// completion of an invalidation pushes them (PCIe 6.0 §10.3.3).
    pub fn invalidate(&self, node: NodeId, pasid: Option<Option<Pasid>>, range: AddrRange<BusAddr>) {
        let function = self.function(node);
        function.translations.forget(pasid, range.start(), range.last());
        // An engine in another thread may have taken a translation for a request that it has not sent yet.
        // Its step uses it, and no step keeps one for the next.
        if self.threads.load(Ordering::Acquire) > 0 {
            drop(function.device());
        }
        self.push_up(node);
    }

    /// Brings what a function has written up to its root complex, and into memory.
    pub(crate) fn push_up(&self, node: NodeId) {
        let tree = self.fabric.tree();
        let mut at = Some(node);
        while let Some(now) = at {
            self.flush(Egress::Up(tree.link(now)));
            at = match tree.node(now).above {
                crate::fabric::Above::Root(host) => {
                    self.flush(Egress::Memory(host));
                    None
                }
                crate::fabric::Above::Port(port) => Some(port),
            };
        }
    }

    /// Held while bytes move that a translation led somewhere; invalidations wait for it.
    pub(self) fn moving(&self) -> Option<Passage<'_>> {
        self.fabric.root().iommu().map(|iommu| iommu.passage())
    }

    pub(self) fn function(&self, node: NodeId) -> &Function {
        #[cfg(test)]
        self.looked.fetch_add(1, Ordering::Relaxed);
        &self.functions[node.index()]
    }

    pub(self) fn delivers_at_once(&self) -> bool {
        self.delivery == Delivery::AtOnce
    }

    /// Of registers, wires and translations together: what was found in an earlier one counts no more.
    pub(self) fn generation(&self) -> u64 {
        let translations = self.fabric.root().iommu().map_or(0, |iommu| iommu.generation());
        self.fabric.tree().generation().wrapping_add(translations)
    }

    pub(self) fn count(&self, ending: Ending) {
        *locked(&self.counts).entry(ending).or_default() += 1;
    }

    /// The memory at an address, and how many bytes of it there are from there on.
    pub(self) fn memory_at(&self, at: PhysAddr) -> (Target, Bytes) {
        let inside = |stretch: &&Stretch| (stretch.range.start()..=stretch.range.last()).contains(&at);
        match self.memory.iter().find(inside) {
            Some(stretch) => {
                let offset = at.as_u64() - stretch.range.start().as_u64();
                let left = Bytes::new(stretch.range.len().as_u64() - offset);
                (Target::Memory(stretch.memory.clone(), Bytes::new(offset)), left)
            }
            None => (Target::Nothing, Bytes::ZERO),
        }
    }

    /// What answers a request that has come to a function.
    pub(self) fn at_function(
        &self,
        request: u64,
        node: NodeId,
        head: &Head,
        bar: u8,
        offset: Bytes,
        left: Bytes,
    ) -> Result<(Target, Bytes), Ending> {
        let function = self.function(node);
        function.admits(node, head)?;
        let (target, behind) = function.behind(bar, offset);
        Ok((self.mirrored(request, node, target), left.min(behind)))
    }

    /// Writes bytes to what answers, of which there are `left` from there on; the rest is lost, as it
    /// is where nothing answers.
    pub(self) fn store(&self, target: &Target, left: Bytes, data: &[u8]) {
        let len = data.len().min(usize::try_from(left.as_u64()).unwrap_or(usize::MAX));
        let data = data.get(..len).unwrap_or(data);
        match target {
            // What reaches past the end is lost, as it is where nothing answers.
            Target::Memory(memory, at) => {
                let _ = memory.write(*at, data);
            }
            Target::Registers(registers, at) => {
                registers.write(*at, data);
            }
            Target::Damaged(target, flip) => {
                if let Some(data) = flip.turned(data) {
                    self.store(target, left, &data);
                }
            }
            Target::Nothing => {}
        }
    }

    pub(self) fn interrupted(&self, from: Option<NodeId>, at: BusAddr, message: &[u8]) {
        let mut data = [0; 4];
        data.iter_mut().zip(message).for_each(|(byte, sent)| *byte = *sent);
        locked(&self.interrupts).put(Interrupt { from, at, data: u32::from_le_bytes(data) });
    }
}
