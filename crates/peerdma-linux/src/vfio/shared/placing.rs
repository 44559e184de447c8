//! Where a guest sees the BARs of a device, and all that moves when it moves one.
//!
//! A guest's devices and processors find a BAR where its register says. So a write to that register moves more than the register:
//! the slot that the guest's processors reach it through, and the mappings of the guest's other devices, whose IOVAs are the
//! guest's addresses. A monitor that moves one without the other has processors and devices talk to different memory.
//!
//! Here it is one transaction. While nobody reaches the memory the register is written and everything put where it says; then all
//! come back at the new place. Where one of them cannot go there, those that have gone are put back, and so is the register:
//! all come back where they were, and the error names the one and its reason.
//!
//! **While memory decoding is off registers say nothing**: a guest asks for sizes by writing all ones, and writes the halves of
//! a 64-bit BAR one after the other. Only at the write that turns decoding on is everything put where they say then. A guest
//! that moves a 64-bit BAR with decoding on has it pass through the address between, as hardware would.
//!
//! The CPU's own mappings ([`CpuWindow`](super::CpuWindow), a slot's window) have addresses of this process: those stay, and what they
//! show stays, whatever the guest does.
//!
//! The addresses in a guest's registers are taken as its physical ones: its host bridges move none.

use super::super::region::{BarIndex, BarRange};
use super::deed::{Deed, Outcome, Quiet};
use super::deed_error::DeedError;
use super::{Function, SharedDevice};
use peerdma::addr::GuestPhys;
use peerdma::buffer::config_write::Target;
use peerdma::buffer::life::Answers;
use peerdma::pcie::PciAddr;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The Status register.
const STATUS: std::ops::Range<usize> = 0x06..0x08;

/// Something that shows a part of a BAR at an address of a guest: a slot, a mapping in an address space of its devices.
pub trait Placed: Send + Sync {
    /// What it is called in errors.
    fn name(&self) -> String;

    /// Where it shows it, or is to.
    fn at(&self) -> GuestPhys;

    /// Shows it somewhere else from when the memory is back on. Called while nobody reaches the memory through it.
    ///
    /// # Errors
    /// Why it cannot be there; it is where it was.
    fn place(&self, at: GuestPhys) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Where a guest sees the BARs of a device.
///
/// # Examples
/// ```no_run
/// # use peerdma_linux::{kvm::BufferSlot, type1::Type1Space, vfio::{BarRange, Deed, SharedDevice, VfioDevice}};
/// # use std::{sync::Arc, time::Duration};
/// use peerdma_linux::vfio::shared::{DmaImport, GuestBars};
///
/// # fn run(device: &SharedDevice, slot: Arc<BufferSlot>, import: Arc<DmaImport<Type1Space, VfioDevice>>, range: BarRange)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let mut bars = GuestBars::by_registers();
/// bars.show(range, slot).show(range, import);
///
/// // The guest writes BAR 2.
/// let address = 0xd000_0000_u32.to_le_bytes();
/// device.perform_placing(Deed::config(0x18, &address)?, &bars, Duration::from_secs(1))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct GuestBars {
    by_registers: bool,
    parts: Vec<Part>,
    rules: Vec<Rule>,
}

#[derive(Clone)]
struct Part {
    range: BarRange,
    placed: Arc<dyn Placed>,
}

#[derive(Clone, Debug)]
struct Rule {
    bar: BarIndex,
    at: GuestPhys,
    initiator: String,
}

/// Why BARs are not where a guest wants to see them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacingError {
    /// What was to be done to the device was not done, or not by the kernel.
    #[error(transparent)]
    Deed(#[from] DeedError),
    /// An initiator's requests reach the BAR at one address alone. Everything is where it was.
    #[error(
        "{device}'s {bar} cannot be at {asked}: requests of {initiator} pass no IOMMU on their way and reach it at {needed} alone; place it there, or have them redirected"
    )]
    Identity {
        /// The function.
        device: PciAddr,
        /// The BAR.
        bar: BarIndex,
        /// Where it was to be.
        asked: GuestPhys,
        /// Where it has to be.
        needed: GuestPhys,
        /// Whose requests need that.
        initiator: String,
    },
    /// Something cannot be there.
    #[error("{device}'s {bar} cannot be at {asked}: {part} stays at {from}, since {why}; {}", Astray(astray))]
    NoPlace {
        /// The function.
        device: PciAddr,
        /// The BAR.
        bar: BarIndex,
        /// Where its start was to be.
        asked: GuestPhys,
        /// What cannot be there.
        part: String,
        /// Where it is.
        from: GuestPhys,
        /// Why.
        why: Box<dyn Error + Send + Sync>,
        /// What could not be put back where it was; empty if all is as it was.
        astray: Vec<String>,
    },
}

struct Astray<'a>(&'a [String]);

impl fmt::Display for Astray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("all is where it was"),
            some => write!(f, "not back where it was: {}; close the device", some.join(", ")),
        }
    }
}

impl GuestBars {
    /// Of a guest whose writes to BAR registers are passed on to the device: the registers say where BARs are.
    pub fn by_registers() -> Self {
        Self { by_registers: true, ..Self::default() }
    }

    /// Of a monitor that keeps BAR registers itself, and says with [`Deed::BarMove`] when one moves.
    pub fn by_hand() -> Self {
        Self::default()
    }

    /// Has something follow the BAR of a range: it shows the range's bytes, from where the range begins in the BAR on.
    pub fn show(&mut self, range: BarRange, placed: Arc<dyn Placed>) -> &mut Self {
        self.parts.push(Part { range, placed });
        self
    }

    /// Refuses every place of a BAR but one, since requests of `initiator` are routed past the IOMMU and arrive at the BAR's own
    /// address alone: the guest has to see it where the host does.
    pub fn only_at(&mut self, bar: BarIndex, at: GuestPhys, initiator: &str) -> &mut Self {
        self.rules.push(Rule { bar, at, initiator: initiator.into() });
        self
    }

    /// The BARs that something follows, each once.
    fn bars(&self) -> Vec<BarIndex> {
        let mut bars: Vec<_> = self.parts.iter().map(|part| part.range.bar()).collect();
        bars.sort_unstable();
        bars.dedup();
        bars
    }

    /// Puts all of some BARs where they begin now, or leaves all where they are.
    fn place(&self, device: PciAddr, bases: &[(BarIndex, GuestPhys)]) -> Result<(), PlacingError> {
        for (bar, asked) in bases {
            if let Some(rule) = self.rules.iter().find(|rule| rule.bar == *bar && rule.at != *asked) {
                let (needed, initiator) = (rule.at, rule.initiator.clone());
                return Err(PlacingError::Identity { device, bar: *bar, asked: *asked, needed, initiator });
            }
        }
        let mut gone: Vec<(&Part, GuestPhys)> = Vec::new();
        for (bar, asked) in bases {
            for part in self.in_order(*bar, *asked) {
                let from = part.placed.at();
                let placed = match asked.checked_add(part.range.offset()) {
                    Some(to) if to == from => continue,
                    Some(to) => part.placed.place(to),
                    None => Err("addresses end before it does".into()),
                };
                if let Err(why) = placed {
                    let put_back = |(part, from): &(&Part, GuestPhys)| part.placed.place(*from).is_err();
                    let astray = gone.iter().rev().filter(|gone| put_back(gone));
                    let astray = astray.map(|(part, _)| part.placed.name()).collect();
                    let part = part.placed.name();
                    return Err(PlacingError::NoPlace { device, bar: *bar, asked: *asked, part, from, why, astray });
                }
                gone.push((part, from));
            }
        }
        Ok(())
    }

    /// A BAR's parts in an order in which none comes where another one still is.
    fn in_order(&self, bar: BarIndex, base: GuestPhys) -> Vec<&Part> {
        let mut parts: Vec<_> = self.parts.iter().filter(|part| part.range.bar() == bar).collect();
        let goes_up = |part: &&Part| part.placed.at() < base.checked_add(part.range.offset()).unwrap_or(base);
        parts.sort_by_key(|part| part.range.offset());
        if parts.first().is_some_and(goes_up) {
            parts.reverse();
        }
        parts
    }
}

impl fmt::Debug for GuestBars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.iter().map(|part| (part.range, part.placed.name(), part.placed.at()));
        f.debug_struct("GuestBars")
            .field("by_registers", &self.by_registers)
            .field("parts", &parts.collect::<Vec<_>>())
            .field("rules", &self.rules)
            .finish()
    }
}

impl<F: Function> SharedDevice<F> {
    /// Does something to the device as [`perform`](Self::perform) does, and has what a guest sees of its BARs go where they are then.
    /// Blocks for `patience` at most, and then for as long as the kernel takes.
    ///
    /// # Errors
    /// [`PlacingError::Identity`] and [`PlacingError::NoPlace`]: everything is where it was, a register that the deed wrote
    /// included, and importers are back; refuse the guest's write. [`PlacingError::Deed`] as of [`perform`](Self::perform).
    pub fn perform_placing(
        &self,
        deed: Deed<'_>,
        bars: &GuestBars,
        patience: Duration,
    ) -> Result<Outcome, PlacingError> {
        self.quiet_within(deed, patience)?.act_placing(bars)
    }
}

impl<F: Function> Quiet<'_, F> {
    /// Does it as [`act`](Self::act) does, and has what a guest sees of the BARs go where they are then, before anybody comes back.
    ///
    /// # Errors
    /// As [`SharedDevice::perform_placing`].
    pub fn act_placing(self, bars: &GuestBars) -> Result<Outcome, PlacingError> {
        let (device, deed) = (self.device(), self.deed());
        let before = match deed {
            Deed::Config(write) => device.with(|function| written(function, write.offset(), write.bytes().len())),
            _ => None,
        };
        let before = before.transpose().map_err(DeedError::from)?.flatten();
        let address = device.address();
        let is_virtual = device.0.is_virtual;
        let (placed, outcome) = self.act_then(|function, deed| {
            let bases = bases(function, is_virtual, deed, bars)?;
            let mut placed = bases.map_or(Ok(()), |bases| bars.place(address, &bases));
            if let (Err(refused), Deed::Config(write), Some(before)) = (&mut placed, deed, before) {
                // It was writable a moment ago.
                let undone = function.write_config(write.offset(), &before).map_err(DeedError::from);
                match (undone, refused) {
                    (Err(_), PlacingError::NoPlace { astray, .. }) => astray.push("the register".into()),
                    (undone, _) => undone?,
                }
            }
            placed
        });
        placed.unwrap_or(Ok(())).and(outcome.map_err(Into::into))
    }
}

/// The bytes of a register, as they are and may be written back.
fn written<F: Function>(function: &F, offset: u16, len: usize) -> Result<Option<Vec<u8>>, super::super::ConfigError> {
    let config = function.config_space()?;
    let at = usize::from(offset);
    // Whoever writes what stands in the Status register clears it (PCIe 6.0 §7.5.1.1.4); a guest may write it together with Command.
    let end = if at < STATUS.start { STATUS.start.min(at + len) } else { at + len };
    // What lies past the bytes at hand is no BAR's and moves nothing.
    Ok(config.bytes().get(at..end).filter(|_| !STATUS.contains(&at)).map(Into::into))
}

/// Where the BARs that something follows begin; `None` while that is not settled.
fn bases<F: Function>(
    function: &F,
    is_virtual: bool,
    deed: Deed<'_>,
    bars: &GuestBars,
) -> Result<Option<Vec<(BarIndex, GuestPhys)>>, PlacingError> {
    match deed {
        Deed::BarMove { bar, to } => return Ok(Some(vec![(bar, to)])),
        // Asking it would wake it.
        Deed::LowPower(_) | Deed::Close => return Ok(None),
        _ if !bars.by_registers => return Ok(None),
        _ => {}
    }
    let config = function.config_space().map_err(DeedError::from)?;
    let target = Target { config: &config, is_virtual, bars: function.bars().map(Some), rom: None };
    if target.answers() != Some(Answers::YES) {
        return Ok(None);
    }
    let bases = bars.bars().into_iter().filter_map(|bar| {
        let at = target.address(bar.as_u8())?;
        Some((bar, GuestPhys::new(at.as_u64())))
    });
    Ok(Some(bases.collect()))
}
