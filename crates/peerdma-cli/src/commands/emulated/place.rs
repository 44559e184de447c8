//! Where bytes of a described machine are.

use super::Booted;
use crate::exit::Failure;
use crate::select;
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::route::Target;
use peerdma::topology::FunctionId;
use peerdma_emu::device::Behind;
use peerdma_emu::fabric::NodeId;
use peerdma_emu::platform::Model;
use peerdma_linux::verified::GUARD;

/// Where a copy begins in a place of which nobody said where: there is something on both sides of it then.
const DEFAULT_OFFSET: Bytes = Bytes::new(1 << 20);

/// What bytes are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// RAM.
    Ram,
    /// The blocks of a drive; no address leads there.
    Medium,
    /// Memory behind a BAR.
    Memory {
        /// Index of the BAR.
        bar: u8,
    },
    /// RAM that an engine without memory of its own works on.
    Staged,
}

/// A function of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) node: NodeId,
    pub(crate) function: FunctionId,
    pub(crate) model: Model,
}

/// Some bytes of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The function's name as it was typed.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Whose they are; `None` for RAM.
    pub(crate) at: Option<At>,
    /// Where in the medium or BAR they begin.
    pub(crate) offset: Bytes,
    pub(crate) len: Bytes,
    /// All that is there, the bytes before `offset` included.
    pub(crate) room: Bytes,
}

impl Place {
    /// Reads `ram`, `NAME`, `NAME/barN` or `NAME/barN+OFFSET`, for `len` bytes.
    pub(crate) fn parse(booted: &Booted, text: &str, len: Bytes) -> Result<Self, Failure> {
        if text == "ram" {
            return Ok(Self { name: text.to_string(), kind: Kind::Ram, at: None, offset: Bytes::ZERO, len, room: len });
        }
        let (name, range) = match text.split_once('/') {
            Some((name, range)) => (name, Some(range)),
            None => (text, None),
        };
        let (node, function) = booted.function(name)?;
        let Some(model) = booted.model(node) else {
            return Err(Failure::usage(format!("{name} is a port; bytes come from and go to devices")));
        };
        let at = At { node, function, model };
        let (kind, offset) = match range {
            Some(range) => bar_range(text, range)?,
            None => (natural(booted, at), None),
        };
        let room = match kind {
            Kind::Ram | Kind::Staged => len,
            Kind::Medium => booted.medium(node).map_or(Bytes::ZERO, |medium| medium.len()),
            Kind::Memory { bar } => {
                memory_behind(booted, node, bar).ok_or_else(|| not_memory(booted, at, text, bar))?
            }
        };
        let offset = match offset {
            Some(offset) => offset,
            None if kind == Kind::Staged => Bytes::ZERO,
            None => {
                let beyond = [len, GUARD].iter().try_fold(DEFAULT_OFFSET, |sum, more| sum.checked_add(*more));
                if beyond.is_some_and(|end| end <= room) { DEFAULT_OFFSET } else { Bytes::ZERO }
            }
        };
        if offset.checked_add(len).is_none_or(|end| end > room) {
            return Err(Failure::usage(format!("{text} has {room}, fewer than {len} from offset {offset}")));
        }
        Ok(Self { name: name.to_string(), kind, at: Some(at), offset, len, room })
    }

    /// A device, whatever its bytes are.
    pub(crate) fn device(booted: &Booted, text: &str) -> Result<Self, Failure> {
        let (node, function) = booted.function(text)?;
        let Some(model) = booted.model(node) else {
            return Err(Failure::usage(format!("{text} is a port; devices send requests")));
        };
        let (at, zero) = (Some(At { node, function, model }), Bytes::ZERO);
        Ok(Self { name: text.to_string(), kind: Kind::Staged, at, offset: zero, len: zero, room: zero })
    }

    /// A range of a BAR, whether memory or registers are behind it.
    pub(crate) fn of_target(booted: &Booted, target: &Target, len: Bytes) -> Result<Self, Failure> {
        let address = booted.kernel.topology().function(target.function()).address().to_string();
        let place = Self::device(booted, &address)?;
        let (kind, offset) = (Kind::Memory { bar: target.bar().unwrap_or(0) }, target.offset());
        Ok(Self { kind, offset, len, room: len, ..place })
    }

    /// Whether others reach it by an address.
    pub(crate) fn has_addresses(&self) -> bool {
        matches!(self.kind, Kind::Ram | Kind::Memory { .. })
    }

    /// Whether its own device moves the bytes when it is asked to.
    pub(crate) fn moves(&self) -> bool {
        match self.kind {
            Kind::Ram => false,
            Kind::Medium | Kind::Staged => true,
            Kind::Memory { .. } => self.is_gpu_memory(),
        }
    }

    /// Whether it is memory that a GPU's own engine works on.
    pub(crate) fn is_gpu_memory(&self) -> bool {
        // Behind all other BARs of a GPU are registers, or nothing.
        matches!(self.kind, Kind::Memory { .. }) && self.at.is_some_and(|at| at.model == Model::Gpu)
    }

    /// Refuses lengths and offsets of a drive's medium that are no whole blocks.
    pub(crate) fn check_blocks(&self) -> Result<(), Failure> {
        const BLOCK: u64 = 512;
        if self.kind != Kind::Medium || (self.offset.as_u64() | self.len.as_u64()).is_multiple_of(BLOCK) {
            return Ok(());
        }
        Err(Failure::usage(format!("{} is a drive, which moves whole blocks of {}", self.name, Bytes::new(BLOCK))))
    }

    /// The range as the resolver takes it; `None` of what has no BAR.
    pub(crate) fn target(&self, booted: &Booted) -> Result<Option<Target>, Failure> {
        let (Kind::Memory { bar }, Some(at)) = (self.kind, self.at) else { return Ok(None) };
        let slice = Some((self.offset, self.len));
        let target = Target::of_bar(booted.kernel.topology(), at.function, bar, slice);
        target.map(Some).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Where the CPU sees its first byte; `None` of what has no address of its own.
    pub(crate) fn cpu(&self, booted: &Booted) -> Option<PhysAddr> {
        let (Kind::Memory { bar }, Some(at)) = (self.kind, self.at) else { return None };
        let info = booted.kernel.topology().function(at.function).info();
        info.bars.iter().find(|other| other.index == bar)?.cpu?.start().checked_add(self.offset)
    }

    /// What it is, for a line of text.
    pub(crate) fn words(&self) -> String {
        let (name, offset) = (&self.name, self.offset.as_u64());
        match self.kind {
            Kind::Ram => "RAM".to_string(),
            Kind::Medium => format!("{name}'s medium from byte {offset:#x}"),
            Kind::Memory { bar } if self.is_gpu_memory() => format!("{name}'s VRAM (bar{bar}+{offset:#x})"),
            Kind::Memory { bar } => format!("{name}'s memory (bar{bar}+{offset:#x})"),
            Kind::Staged => format!("RAM that {name} works on"),
        }
    }
}

/// `barN` or `barN+OFFSET`.
fn bar_range(text: &str, range: &str) -> Result<(Kind, Option<Bytes>), Failure> {
    let form = || {
        Failure::usage(format!(
            "{text:?}: after the / comes barN, with N from 0 to 5, or barN+OFFSET, such as bar2+1MiB"
        ))
    };
    let (bar, offset) = match range.split_once('+') {
        Some((bar, offset)) => (bar, Some(select::size(offset).ok_or_else(form)?)),
        None => (range, None),
    };
    let bar = bar.strip_prefix("bar").and_then(|digits| digits.parse().ok()).filter(|bar| *bar < 6).ok_or_else(form)?;
    Ok((Kind::Memory { bar }, offset))
}

/// What a device's name alone means.
fn natural(booted: &Booted, at: At) -> Kind {
    match at.model {
        Model::Nvme => Kind::Medium,
        Model::Nic | Model::Dma | Model::Accel => Kind::Staged,
        Model::Gpu | Model::Plain => {
            let bars = (0..6).filter_map(|bar| Some((memory_behind(booted, at.node, bar)?, bar)));
            Kind::Memory { bar: bars.max().map_or(0, |(_, bar)| bar) }
        }
    }
}

/// How much memory a BAR shows from its start on; `None` where there are registers or nothing.
fn memory_behind(booted: &Booted, node: NodeId, bar: u8) -> Option<Bytes> {
    let regions = booted.machine().layout(node).regions();
    let region = regions.iter().find(|region| region.bar == bar && region.offset == Bytes::ZERO)?;
    let Behind::Memory(..) = region.behind else { return None };
    let (_, id) = booted.function(&booted.machine().fabric().tree().node(node).address.to_string()).ok()?;
    let info = booted.kernel.topology().function(id).info();
    let shown = info.bars.iter().find(|other| other.index == bar)?.size?;
    Some(shown.min(region.len))
}

fn not_memory(booted: &Booted, at: At, text: &str, bar: u8) -> Failure {
    let others = (0..6).filter(|other| memory_behind(booted, at.node, *other).is_some());
    let others: Vec<String> = others.map(|other| format!("bar{other}")).collect();
    let others =
        if others.is_empty() { "no BAR of it does".to_string() } else { format!("{} does", others.join(", ")) };
    Failure::usage(format!("{text}: bar{bar} shows no memory that bytes could be copied to or from; {others}"))
}
