//! What an initiator reaches for: a function's memory, and which part of it.

use crate::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use crate::topology::{Bar, FunctionId, Parent, Topology};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A range of a BAR, or a function of whose BARs nothing is known.
///
/// The route is one for all ranges of a function, however small; addresses, masks
/// and windows are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    function: FunctionId,
    bar: Option<u8>,
    offset: Bytes,
    len: Option<Bytes>,
    cpu: Option<AddrRange<PhysAddr>>,
    bus: Option<AddrRange<BusAddr>>,
}

/// A range that a function does not have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// No memory BAR of this number.
    #[error("{function} has no memory BAR {bar} in this input; it has: {has}")]
    NoSuchBar {
        /// The function's address.
        function: String,
        /// The number asked for.
        bar: u8,
        /// Those it has.
        has: String,
    },
    /// The range ends outside the BAR.
    #[error("{function} bar{bar} has {size}; {len} from offset {offset:#x} do not lie in it", offset = offset.as_u64())]
    Outside {
        /// The function's address.
        function: String,
        /// The BAR.
        bar: u8,
        /// Its size.
        size: Bytes,
        /// Start of the range, from the BAR's start.
        offset: Bytes,
        /// Length of the range.
        len: Bytes,
    },
}

impl Target {
    /// The function's largest memory BAR, which is where device memory lies; of several
    /// of one size the first. A function without known BARs is a target all the same.
    pub fn largest_bar(topology: &Topology, function: FunctionId) -> Self {
        let bars = &topology.function(function).info().bars;
        let size = |bar: &Bar| bar.size.or(bar.cpu.map(|range| range.len()));
        let largest = bars.iter().min_by_key(|bar| (core::cmp::Reverse(size(bar)), bar.index));
        match largest {
            Some(bar) => Self::slice(topology, function, bar, Bytes::ZERO, size(bar)),
            None => Self { function, bar: None, offset: Bytes::ZERO, len: None, cpu: None, bus: None },
        }
    }

    /// `range` (offset from the BAR's start, length) of the BAR of this index; without
    /// a range, all of it.
    ///
    /// # Errors
    /// - [`TargetError::NoSuchBar`]: name another BAR.
    /// - [`TargetError::Outside`]: the range is longer than what follows its offset, or empty.
    pub fn of_bar(
        topology: &Topology,
        function: FunctionId,
        index: u8,
        range: Option<(Bytes, Bytes)>,
    ) -> Result<Self, TargetError> {
        let info = topology.function(function).info();
        let Some(bar) = info.bars.iter().find(|bar| bar.index == index) else {
            let known: Vec<String> = info.bars.iter().map(|bar| alloc::format!("bar{}", bar.index)).collect();
            let has = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            return Err(TargetError::NoSuchBar { function: info.address.to_string(), bar: index, has });
        };
        let size = bar.size.or(bar.cpu.map(|range| range.len()));
        let (offset, len) = match range {
            None => (Bytes::ZERO, size),
            Some((offset, len)) => (offset, Some(len)),
        };
        if let (Some(size), Some(len)) = (size, len)
            && (len == Bytes::ZERO || offset.checked_add(len).is_none_or(|end| end > size))
        {
            return Err(TargetError::Outside { function: info.address.to_string(), bar: index, size, offset, len });
        }
        Ok(Self::slice(topology, function, bar, offset, len))
    }

    fn slice(topology: &Topology, function: FunctionId, bar: &Bar, offset: Bytes, len: Option<Bytes>) -> Self {
        let cpu = bar.cpu.zip(len).and_then(|(range, len)| range.slice(offset, len));
        let start = bar.bus.and_then(|start| start.checked_add(offset));
        let bus = start.zip(len).and_then(|(start, len)| AddrRange::new(start, len));
        // The other side of a window is known where the host bridge's windows are.
        let windows = || {
            let mut above = function;
            loop {
                match topology.upstream(above) {
                    Parent::Bridge(bridge) => above = bridge,
                    Parent::Root(host) => break topology.host_bridge(host).facts().windows.as_slice(),
                    Parent::Unknown { .. } => break &[],
                }
            }
        };
        let bus = bus.or_else(|| cpu.and_then(|cpu| windows().iter().find_map(|window| window.to_bus(&cpu))));
        let cpu = cpu.or_else(|| bus.and_then(|bus| windows().iter().find_map(|window| window.to_cpu(&bus))));
        Self { function, bar: Some(bar.index), offset, len, cpu, bus }
    }

    /// Whose memory it is.
    pub fn function(&self) -> FunctionId {
        self.function
    }

    /// Which BAR, 0 to 5; `None` where none of the function's BARs is known.
    pub fn bar(&self) -> Option<u8> {
        self.bar
    }

    /// Start, from the BAR's start.
    pub fn offset(&self) -> Bytes {
        self.offset
    }

    /// Length; `None` where the input does not tell the BAR's size and none was asked for.
    pub fn len(&self) -> Option<Bytes> {
        self.len
    }

    /// Always false: a target of known length holds at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// As the CPU addresses it, where known.
    pub fn cpu(&self) -> Option<AddrRange<PhysAddr>> {
        self.cpu
    }

    /// As it is addressed below its host bridge, where known.
    pub fn bus(&self) -> Option<AddrRange<BusAddr>> {
        self.bus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Builder, FunctionInfo, HostBridgeFacts, HostWindow, Position};
    use alloc::vec;

    fn bar(index: u8, size: u64, bus: Option<u64>) -> Bar {
        Bar { index, cpu: None, bus: bus.map(BusAddr::new), size: Some(Bytes::new(size)), prefetchable: false }
    }

    #[test]
    fn without_a_bar_named_the_largest_is_meant_and_windows_tell_the_cpu_s_side() {
        let mut info = FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 });
        info.bars =
            vec![bar(0, 0x1000, Some(0x9000_0000)), bar(2, 0x10_0000, Some(0x9100_0000)), bar(4, 0x10_0000, None)];
        let mut builder = Builder::new();
        builder.function(info);
        let cpu = AddrRange::new(PhysAddr::new(0x50_9000_0000), Bytes::new(0x1000_0000)).unwrap();
        let windows = vec![HostWindow::new(cpu, BusAddr::new(0x9000_0000)).unwrap()];
        builder.host_bridge(0, 0, HostBridgeFacts { windows, ..HostBridgeFacts::default() });
        let topology = builder.build();
        let function = topology.at("00:01.0".parse().unwrap()).unwrap();
        let target = Target::largest_bar(&topology, function);
        assert_eq!(target.bar(), Some(2));
        assert_eq!(target.cpu().unwrap().start(), PhysAddr::new(0x50_9100_0000));
        let doorbell = Target::of_bar(&topology, function, 0, Some((Bytes::new(0x800), Bytes::new(8)))).unwrap();
        assert_eq!(doorbell.bus().unwrap().start(), BusAddr::new(0x9000_0800));
        let past = Target::of_bar(&topology, function, 0, Some((Bytes::new(0xfff), Bytes::new(2)))).unwrap_err();
        assert!(matches!(past, TargetError::Outside { .. }), "{past}");
        let absent = Target::of_bar(&topology, function, 1, None).unwrap_err().to_string();
        assert!(absent.contains("bar0, bar2, bar4"), "{absent}");
    }
}
