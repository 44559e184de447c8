//! Two descriptions of one function: bytes and text of one block, or two blocks.

use peerdma::pcie::acs::{Acs, AcsUnread};
use peerdma::pcie::caps::ListEnd;
use peerdma::pcie::decode::{BarRegister, BridgeWindows, Registers};
use peerdma::pcie::express::Express;
use peerdma::pcie::{ClassCode, PciId};
use peerdma::topology::{Bar, FunctionInfo, Origin, Position};

/// `first`, with what it leaves open taken from `second`.
pub(super) fn registers(first: Registers, second: Registers) -> Registers {
    let keeps_list = first.extended_end != ListEnd::Cut(0);
    Registers {
        id: first.id.or(second.id),
        class: class(first.class, second.class),
        header: first.header.or(second.header),
        multifunction: first.multifunction.or(second.multifunction),
        command: first.command.or(second.command),
        buses: first.buses.or(second.buses),
        windows: BridgeWindows {
            memory: first.windows.memory.or(second.windows.memory),
            prefetchable: first.windows.prefetchable.or(second.windows.prefetchable),
        },
        bars: if first.bars.is_empty() { second.bars } else { first.bars },
        port_type: first.port_type.or(second.port_type),
        express: express(first.express, second.express),
        acs: acs(first.acs, second.acs),
        sriov: first.sriov.or(second.sriov),
        ats: first.ats.or(second.ats),
        pri: first.pri.or(second.pri),
        pasid: first.pasid.or(second.pasid),
        resizable: if first.resizable.is_empty() { second.resizable } else { first.resizable },
        extended_end: if keeps_list { first.extended_end } else { second.extended_end },
    }
}

/// A listing does not show the programming interface, which then reads as 0.
fn class(first: Option<ClassCode>, second: Option<ClassCode>) -> Option<ClassCode> {
    match (first, second) {
        (Some(a), Some(b)) if a.base_and_sub() == b.base_and_sub() => Some(a.max(b)),
        _ => first.or(second),
    }
}

fn acs(first: Acs, second: Acs) -> Acs {
    let says_little = matches!(first, Acs::Unknown(AcsUnread::NeverSeen | AcsUnread::TextTooTerse));
    match (&first, &second) {
        (Acs::Unknown(_), Acs::Present(_) | Acs::Absent(_)) => second,
        (Acs::Unknown(_), Acs::Unknown(_)) if says_little => second,
        _ => first,
    }
}

fn express(first: Express, second: Express) -> Express {
    Express {
        max_payload_supported: first.max_payload_supported.or(second.max_payload_supported),
        max_payload: first.max_payload.or(second.max_payload),
        max_read_request: first.max_read_request.or(second.max_read_request),
        relaxed_ordering: first.relaxed_ordering.or(second.relaxed_ordering),
        no_snoop: first.no_snoop.or(second.no_snoop),
        port_number: first.port_number.or(second.port_number),
        atomic_routing: first.atomic_routing.or(second.atomic_routing),
        atomic_egress_blocked: first.atomic_egress_blocked.or(second.atomic_egress_blocked),
        atomic_requester: first.atomic_requester.or(second.atomic_requester),
        atomic_completer: first.atomic_completer.or(second.atomic_completer),
        link: first.link.or(second.link),
    }
}

/// Memory BARs: addresses of the registers from bytes, CPU addresses and sizes from text.
pub(super) fn bars(registers: &[BarRegister], text: &[Bar]) -> Vec<Bar> {
    let from_bytes = registers.iter().filter_map(|register| {
        let address = register.memory?;
        let bus = (address.as_u64() != 0).then_some(address);
        Some(Bar { index: register.index, cpu: None, bus, size: None, prefetchable: register.prefetchable })
    });
    join(from_bytes.chain(text.iter().cloned()).collect())
}

fn join(mut bars: Vec<Bar>) -> Vec<Bar> {
    bars.sort_by_key(|bar| bar.index);
    bars.dedup_by(|later, bar| {
        let same = later.index == bar.index;
        if same {
            bar.cpu = bar.cpu.or(later.cpu);
            bar.bus = bar.bus.or(later.bus);
            bar.size = bar.size.or(later.size);
        }
        same
    });
    bars
}

/// Whether two descriptions cannot both be true.
///
/// One that names ACS and one that proves there is none contradict each other, too;
/// choosing would make the answer depend on which of them was cut.
pub(super) fn contradict(a: &FunctionInfo, b: &FunctionInfo) -> bool {
    fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
        a.is_some() && b.is_some() && a != b
    }
    let (ra, rb) = (&a.registers, &b.registers);
    let code = |class: Option<ClassCode>| class.map(ClassCode::base_and_sub);
    let below = |position| matches!(position, Position::Below(_)).then_some(position);
    let buses = |registers: &Registers| registers.buses.map(|buses| (buses.secondary, buses.subordinate));
    differ::<PciId>(ra.id, rb.id)
        || differ(code(ra.class), code(rb.class))
        || differ(below(a.position), below(b.position))
        || differ(buses(ra), buses(rb))
        || differ(ra.acs.redirects_as_linux_reads().known(), rb.acs.redirects_as_linux_reads().known())
        || matches!((&ra.acs, &rb.acs), (Acs::Present(_), Acs::Absent(_)) | (Acs::Absent(_), Acs::Present(_)))
}

/// Makes one of two descriptions that do not contradict each other; bytes win over text.
pub(super) fn functions(a: FunctionInfo, b: FunctionInfo) -> FunctionInfo {
    let (first, second) = if a.origin != Origin::LspciHex && b.origin == Origin::LspciHex { (b, a) } else { (a, b) };
    let first_knows = !matches!(first.registers.acs, Acs::Unknown(_));
    let second_knows = !matches!(second.registers.acs, Acs::Unknown(_));
    let registers = registers(first.registers, second.registers);
    let ids_by_name = match registers.id {
        Some(_) => Vec::new(),
        None if first.ids_by_name.is_empty() => second.ids_by_name,
        None => first.ids_by_name,
    };
    let mut vendors_by_name = first.vendors_by_name;
    vendors_by_name.extend(second.vendors_by_name);
    if registers.id.is_some() || !ids_by_name.is_empty() {
        vendors_by_name.clear();
    }
    FunctionInfo {
        position: match (first.position, second.position) {
            (Position::ByBusNumber, other) => other,
            (Position::RootBus { .. }, other @ Position::Below(_)) => other,
            (position, _) => position,
        },
        origin: if second_knows && !first_knows { second.origin } else { first.origin },
        registers,
        ids_by_name,
        vendors_by_name,
        bars: join(first.bars.into_iter().chain(second.bars).collect()),
        driver: first.driver.or(second.driver),
        label: first.label.or(second.label),
        numa_node: first.numa_node.or(second.numa_node),
        iommu_group: first.iommu_group.or(second.iommu_group),
        ..FunctionInfo::new(first.address, Position::ByBusNumber)
    }
}
