//! Checks what a function says about itself: BARs, widths, payloads.

use super::error::{PlatformError, Source};
use super::hosts;
use super::model::{FunctionAtomics, Iommu, Ordering, Payload};
use super::number::{in_range, payload, size};
use super::problem::RegisterProblem;
use super::raw;
use super::words::TdiState;
use peerdma::addr::Bytes;
use peerdma::pcie::ClassCode;
use peerdma::topology::IommuMode;
use toml::Spanned;

/// A register holds its address above the four lowest bits, which are flags.
const SMALLEST_BAR: u64 = 16;
/// Largest BAR that a 32-bit register can tell from an absent one.
const LARGEST_32_BIT_BAR: u64 = 1 << 31;
/// Smallest size of a resizable BAR (PCIe 6.0 §7.8.6.2).
const SMALLEST_RESIZABLE: u64 = 1 << 20;
/// Reset value of MPS (PCIe 6.0 §7.5.3.4).
pub(super) const RESET_MPS: Bytes = Bytes::new(128);
/// Reset value of MRRS, likewise.
const RESET_MRRS: Bytes = Bytes::new(512);

/// A BAR without addresses yet.
pub(super) struct BarSpec {
    pub(super) index: u8,
    pub(super) size: Bytes,
    pub(super) prefetchable: bool,
    pub(super) resizable: Vec<Bytes>,
    /// Line of the size, for complaints about room.
    pub(super) at: std::ops::Range<usize>,
}

/// What a function says about itself, checked.
pub(super) struct Device {
    pub(super) class: ClassCode,
    pub(super) bars: Vec<BarSpec>,
    pub(super) memory: Option<Bytes>,
    pub(super) ats: bool,
    pub(super) pasid_bits: Option<u8>,
    pub(super) payload: Option<Payload>,
    pub(super) ordering: Ordering,
    pub(super) atomics: FunctionAtomics,
    pub(super) mask_bits: u8,
    pub(super) driver: Option<String>,
    pub(super) iommu_mode: Option<IommuMode>,
    pub(super) tdi: Option<TdiState>,
}

impl Device {
    /// `conventional` is the bridge to conventional PCI that the function sits below, if any.
    pub(super) fn new(
        source: Source<'_>,
        raw: &raw::Function,
        conventional: Option<&str>,
        iommu: Option<&Iommu>,
    ) -> Result<Self, PlatformError> {
        if let Some(parent) = conventional {
            stays_conventional(source, raw, parent)?;
        }
        let class = match &raw.class {
            Some(class) => ClassCode::new(in_range(source, "class", (0, 0xff_ffff), class)?),
            None => model(raw).default_class(),
        };
        let pasid_bits: u8 = match &raw.pasid_bits {
            Some(bits) => in_range(source, "pasid_bits", (0, 20), bits)?,
            None => 0,
        };
        let mask_bits = match &raw.mask_bits {
            Some(bits) => in_range(source, "mask_bits", (1, 64), bits)?,
            None => 64,
        };
        let payload = match conventional {
            Some(_) => None,
            None => Some(Payload {
                max: payload(source, "mps", raw.mps.as_ref(), RESET_MPS)?,
                max_read_request: payload(source, "mrrs", raw.mrrs.as_ref(), RESET_MRRS)?,
            }),
        };
        Ok(Self {
            class,
            bars: bars(source, &raw.bars)?,
            memory: raw.memory.as_ref().map(|memory| size(source, "memory", memory)).transpose()?,
            ats: raw.ats.as_ref().is_some_and(|ats| *ats.get_ref()),
            pasid_bits: (pasid_bits != 0).then_some(pasid_bits),
            payload,
            ordering: Ordering {
                relaxed: raw.relaxed_ordering.as_ref().map(|enabled| *enabled.get_ref()),
                no_snoop: raw.no_snoop.as_ref().map(|enabled| *enabled.get_ref()),
            },
            atomics: raw.atomics.as_ref().map_or_else(FunctionAtomics::default, |atomics| {
                let raw::FunctionAtomics { requester, completer } = atomics.get_ref().0;
                FunctionAtomics { requester, completer }
            }),
            mask_bits,
            driver: raw.driver.as_ref().map(|driver| name_of_driver(source, driver)).transpose()?,
            iommu_mode: hosts::mode_of(source, raw.iommu_mode.as_ref(), iommu)?,
            tdi: raw.tdi.as_ref().map(|tdi| *tdi.get_ref()),
        })
    }
}

/// Modules and drivers are named by C identifiers, in which some write `-` for `_`.
fn name_of_driver(source: Source<'_>, driver: &Spanned<String>) -> Result<String, PlatformError> {
    let text = driver.get_ref();
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if text.is_empty() || text.len() > 64 || !is_name {
        return Err(source.error(&driver.span(), RegisterProblem::Driver { driver: text.clone() }));
    }
    Ok(text.clone())
}

/// The function's model; one that states none has BARs and nothing else.
pub(super) fn model(raw: &raw::Function) -> super::words::Model {
    raw.model.unwrap_or(super::words::Model::Plain)
}

/// Below a PCIe-to-PCI bridge there is neither a PCI Express capability nor extended space.
fn stays_conventional(source: Source<'_>, raw: &raw::Function, parent: &str) -> Result<(), PlatformError> {
    let registers = raw.acs.as_ref().filter(|acs| matches!(acs.get_ref(), raw::Acs::Registers(_)));
    let resizable = raw.bars.iter().find_map(|bar| bar.0.resizable.as_ref());
    let found = [
        ("acs", registers.map(Spanned::span)),
        ("ats", raw.ats.as_ref().filter(|ats| *ats.get_ref()).map(Spanned::span)),
        ("pasid_bits", raw.pasid_bits.as_ref().filter(|bits| bits.get_ref().0 != 0).map(Spanned::span)),
        ("mps", raw.mps.as_ref().map(Spanned::span)),
        ("mrrs", raw.mrrs.as_ref().map(Spanned::span)),
        ("relaxed_ordering", raw.relaxed_ordering.as_ref().map(Spanned::span)),
        ("no_snoop", raw.no_snoop.as_ref().map(Spanned::span)),
        ("atomics", raw.atomics.as_ref().map(Spanned::span)),
        ("link", raw.link.as_ref().map(Spanned::span)),
        ("resizable", resizable.map(Spanned::span)),
        ("tdi", raw.tdi.as_ref().map(Spanned::span)),
    ];
    match found.into_iter().find_map(|(key, span)| Some((key, span?))) {
        None => Ok(()),
        Some((key, span)) => {
            Err(source.error(&span, RegisterProblem::Conventional { key, parent: parent.to_string() }))
        }
    }
}

fn bars(source: Source<'_>, raw: &[raw::Table<raw::Bar>]) -> Result<Vec<BarSpec>, PlatformError> {
    let mut registers: [Option<(u8, &Spanned<raw::Integer>)>; 6] = [None; 6];
    let mut bars = Vec::new();
    for raw in raw.iter().map(|bar| &bar.0) {
        let index: u8 = in_range(source, "n", (0, 5), &raw.n)?;
        let prefetchable = raw.prefetch.unwrap_or(false);
        if prefetchable && index == 5 {
            return Err(source.error(&raw.n.span(), RegisterProblem::BarPastEnd));
        }
        let width = if prefetchable { 2 } else { 1 };
        for register in registers.iter_mut().skip(usize::from(index)).take(width) {
            if let Some((other, n)) = *register {
                let line = source.line(&n.span());
                return Err(source.error(&raw.n.span(), RegisterProblem::BarTaken { index, other, line }));
            }
            *register = Some((index, &raw.n));
        }
        let size = size(source, "size", &raw.size)?;
        let at = raw.size.span();
        if !size.as_u64().is_power_of_two() || size.as_u64() < SMALLEST_BAR {
            return Err(source.error(&at, RegisterProblem::BarSize { size }));
        }
        if !prefetchable && size.as_u64() > LARGEST_32_BIT_BAR {
            return Err(source.error(&at, RegisterProblem::BarTooLarge { size }));
        }
        let resizable = resizable(source, raw, size, prefetchable)?;
        bars.push(BarSpec { index, size, prefetchable, resizable, at });
    }
    bars.sort_by_key(|bar| bar.index);
    Ok(bars)
}

fn resizable(source: Source<'_>, raw: &raw::Bar, size: Bytes, prefetchable: bool) -> Result<Vec<Bytes>, PlatformError> {
    let Some(list) = &raw.resizable else { return Ok(Vec::new()) };
    let largest = if prefetchable { 1 << 63 } else { LARGEST_32_BIT_BAR };
    let mut sizes = Vec::with_capacity(list.get_ref().len());
    for entry in list.get_ref() {
        let bytes = entry.get_ref().0;
        if !bytes.is_power_of_two() || !(SMALLEST_RESIZABLE..=largest).contains(&bytes) {
            return Err(source.error(&entry.span(), RegisterProblem::ResizableSize { size: Bytes::new(bytes) }));
        }
        sizes.push(Bytes::new(bytes));
    }
    if !sizes.contains(&size) {
        return Err(source.error(&list.span(), RegisterProblem::ResizableLacksSize { size }));
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}
