//! Where a pool can lie so that each of its devices reaches it at the CPU's address.

use super::error::NoPlace;
use crate::addr::{AddrRange, Bytes, Granule, Iova, ProcVa};
use crate::iova::IovaRanges;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Which addresses one device can be told.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
/// use peerdma::iova::IovaRanges;
/// use peerdma::pool::Reach;
///
/// let aperture = IovaRanges::from_inclusive([(Iova::new(0), Iova::new((1 << 39) - 1))])?;
/// let nic = Reach::new("nic", aperture).with_mask_bits(32);
/// let pool = AddrRange::new(ProcVa::new(0x7f00_0000_0000), Bytes::new(2 << 20)).unwrap();
/// let refused = nic.obstacle(&pool).unwrap();
/// assert!(refused.to_string().starts_with("nic maps 0x0-0x7fffffffff"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    name: String,
    usable: IovaRanges,
    reserved: Vec<(AddrRange<Iova>, String)>,
    limit: Iova,
}

impl Reach {
    /// A device whose address space maps `usable`, and which forms every address.
    pub fn new(name: impl Into<String>, usable: IovaRanges) -> Self {
        Self { name: name.into(), usable, reserved: Vec::new(), limit: Iova::new(u64::MAX) }
    }

    /// With a DMA mask of so many bits; 64 and more are no limit.
    #[must_use]
    pub fn with_mask_bits(mut self, bits: u8) -> Self {
        let highest = u64::MAX.checked_shr(64_u32.saturating_sub(u32::from(bits))).unwrap_or(0);
        self.limit = self.limit.min(Iova::new(highest));
        self
    }

    /// With a window that is somebody else's, and whose: interrupts, what firmware reserved, a peer's BAR.
    #[must_use]
    pub fn with_reserved(mut self, window: AddrRange<Iova>, whose: impl Into<String>) -> Self {
        self.reserved.push((window, whose.into()));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why the device does not reach all of `range` at the CPU's addresses; `None` if it does.
    ///
    /// Of several reasons the first: what the space maps at all, reserved windows, the mask.
    pub fn obstacle(&self, range: &AddrRange<ProcVa>) -> Option<Obstacle> {
        let device = || self.name.clone();
        let numbers = AddrRange::new(Iova::new(range.start().as_u64()), range.len())?;
        if !self.usable.contain(&numbers) {
            return Some(Obstacle::Aperture { device: device(), nearest: self.usable.nearest(numbers.start()) });
        }
        if let Some((window, whose)) = self.reserved.iter().find(|(window, _)| overlap(window, &numbers)) {
            return Some(Obstacle::Reserved { device: device(), window: *window, whose: whose.clone() });
        }
        (numbers.last() > self.limit).then(|| Obstacle::Mask { device: device(), limit: self.limit })
    }
}

/// What keeps a pool from a device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Obstacle {
    /// The process has no such gap left.
    Process,
    /// The device's address space maps nothing there.
    Aperture {
        /// The device.
        device: String,
        /// The nearest range that it maps; `None` if it maps nothing.
        nearest: Option<AddrRange<Iova>>,
    },
    /// A window that is somebody else's.
    Reserved {
        /// The device.
        device: String,
        /// The window.
        window: AddrRange<Iova>,
        /// Whose it is.
        whose: String,
    },
    /// The device does not form addresses so high.
    Mask {
        /// The device.
        device: String,
        /// The highest it forms, inclusive.
        limit: Iova,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("the process has no gap of that length and alignment; make a smaller pool"),
            Self::Aperture { device, nearest: Some(nearest) } => {
                write!(
                    f,
                    "{device} maps {nearest}, and not there; place the pool for its devices, or leave {device} out"
                )
            }
            Self::Aperture { device, nearest: None } => {
                write!(f, "{device} maps no addresses at all; attach it to an address space first")
            }
            Self::Reserved { device, window, whose } => write!(
                f,
                "{window} is {whose} for {device}; place the pool for its devices, or make it small enough to lie beside"
            ),
            Self::Mask { device, limit } => write!(
                f,
                "{device} forms no address above {limit}; place the pool for its devices, or leave {device} out"
            ),
        }
    }
}

/// The highest place for `len` bytes that is free in the process and that all devices reach.
///
/// `gaps` are the addresses that nothing in the process uses. The start is a multiple of `align`.
///
/// # Errors
/// [`NoPlace`] with the first device that leaves no room beside those before it.
pub fn place(
    len: Bytes,
    align: Granule,
    gaps: &[AddrRange<ProcVa>],
    devices: &[Reach],
) -> Result<AddrRange<ProcVa>, NoPlace> {
    let refused = |obstacle| NoPlace { len, obstacle };
    let as_numbers = |gap: &AddrRange<ProcVa>| AddrRange::new(Iova::new(gap.start().as_u64()), gap.len());
    let mut left: Vec<AddrRange<Iova>> = gaps.iter().filter_map(as_numbers).collect();
    let mut best = highest(&left, len, align).ok_or_else(|| refused(Obstacle::Process))?;
    for device in devices {
        let name = || device.name.clone();
        left = left.iter().flat_map(|gap| device.usable.as_slice().iter().filter_map(|it| common(gap, it))).collect();
        let nearest = device.usable.nearest(best);
        highest(&left, len, align).ok_or_else(|| refused(Obstacle::Aperture { device: name(), nearest }))?;
        for (window, whose) in &device.reserved {
            left = left.iter().flat_map(|gap| gap.outside(&[*window])).collect();
            let taken = || Obstacle::Reserved { device: name(), window: *window, whose: whose.clone() };
            highest(&left, len, align).ok_or_else(|| refused(taken()))?;
        }
        let below = |gap: &AddrRange<Iova>| AddrRange::from_inclusive(gap.start(), gap.last().min(device.limit));
        left = left.iter().filter_map(below).collect();
        best = highest(&left, len, align)
            .ok_or_else(|| refused(Obstacle::Mask { device: name(), limit: device.limit }))?;
    }
    AddrRange::new(ProcVa::new(best.as_u64()), len).ok_or_else(|| refused(Obstacle::Process))
}

/// The highest start of `len` bytes that is a multiple of `align`.
fn highest(gaps: &[AddrRange<Iova>], len: Bytes, align: Granule) -> Option<Iova> {
    let within = align.bytes().as_u64() - 1;
    let starts = gaps.iter().filter_map(|gap| {
        let start = gap.last().as_u64().checked_sub(len.as_u64().checked_sub(1)?)? & !within;
        (start >= gap.start().as_u64()).then_some(Iova::new(start))
    });
    starts.max()
}

fn common(a: &AddrRange<Iova>, b: &AddrRange<Iova>) -> Option<AddrRange<Iova>> {
    AddrRange::from_inclusive(a.start().max(b.start()), a.last().min(b.last()))
}

fn overlap(a: &AddrRange<Iova>, b: &AddrRange<Iova>) -> bool {
    common(a, b).is_some()
}
