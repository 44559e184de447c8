//! Numbers that nobody was asked about, and what becomes of requests to them.

use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::dma::Prot;
use peerdma::topology::IommuMode;
use peerdma_emu::config::Width;
use peerdma_emu::device::{Behind, Bus, How};
use peerdma_emu::fabric::NodeId;
use peerdma_emu::host::Kernel;
use peerdma_emu::machine::Builder;
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Failure;
use std::sync::Arc;

fn boot(platform: &Platform) -> Kernel {
    Kernel::boot(Arc::new(Builder::new(platform).build().unwrap()), platform)
}

/// The first bytes of a BAR as the CPU sees them.
fn bar(kernel: &Kernel, node: NodeId, index: u8, len: u64) -> AddrRange<peerdma::addr::PhysAddr> {
    let info = kernel.topology().function(kernel.function(node).unwrap()).info();
    let cpu = info.bars.iter().find(|bar| bar.index == index).unwrap().cpu.unwrap();
    AddrRange::new(cpu.start(), Bytes::new(len)).unwrap()
}

#[test]
fn a_range_mapped_unasked_is_reached_only_where_the_fabric_carries_it() {
    let platform = Platform::built_in("two-socket").unwrap();
    let kernel = boot(&platform);
    let node = |name| kernel.machine().named(name).unwrap();
    let seat = kernel.seat(node("nic0")).unwrap();
    // Socket 0 forwards to socket 1, and nobody forwards to the chipset.
    for (target, index, told) in [("gpu1", 2, Ok(())), ("nvme4", 0, Err(Failure::UnsupportedRequest))] {
        let range = bar(&kernel, node(target), index, 0x100);
        let at = seat.map_unasked(range, Prot::Read).unwrap();
        assert_ne!(at.as_u64(), range.start().as_u64(), "an IOVA");
        let read = kernel.machine().port(node("nic0")).read(How::default(), at, &mut [0; 8]);
        assert_eq!(read, told, "{target}");
    }
}

#[test]
fn a_machine_whose_file_states_no_iommu_has_none_and_hands_out_the_number_of_the_cpu() {
    let text = "schema = 1\n[[ram]]\nbase = 0x0\nsize = \"1GiB\"\n\
        [[host_bridge]]\nname = \"hb0\"\npeer = \"forwards\"\n\
        windows = [{ cpu = 0x40_0000_0000, bus = 0x40_0000_0000, size = \"1GiB\", prefetch = true }]\n\
        [[function]]\nname = \"a\"\nparent = \"hb0\"\nbdf = \"00:01.0\"\nmodel = \"plain\"\nbars = [{ n = 0, size = \"1MiB\", prefetch = true }]\n\
        [[function]]\nname = \"b\"\nparent = \"hb0\"\nbdf = \"00:02.0\"\nmodel = \"plain\"\nbars = [{ n = 0, size = \"1MiB\", prefetch = true }]\n";
    let platform = Platform::parse(text, "two.toml").unwrap();
    let kernel = boot(&platform);
    assert_eq!(kernel.topology().machine().iommu, Some(IommuMode::None));
    let node = |name| kernel.machine().named(name).unwrap();
    let range = bar(&kernel, node("b"), 0, 0x100);
    let at = kernel.seat(node("a")).unwrap().map_unasked(range, Prot::ReadWrite).unwrap();
    assert_eq!(at.as_u64(), range.start().as_u64());
}

#[test]
fn vram_is_behind_the_largest_bar_of_a_card() {
    for (platform, index) in [("two-socket", 2), ("client", 1)] {
        let kernel = boot(&Platform::built_in(platform).unwrap());
        let gpu = kernel.machine().named("gpu0").unwrap();
        let memory = |index| {
            let mut regions = kernel.machine().layout(gpu).regions().iter();
            regions.any(|region| region.bar == index && matches!(region.behind, Behind::Memory(..)))
        };
        assert!((0..6).all(|other| memory(other) == (other == index)), "{platform}");
    }
}

/// Two functions on one bus of conventional PCI, whose IOVAs lead through the root complex to each other.
fn neighbours(root_control: u16, port_control: u16, replaces: bool) -> Platform {
    let text = format!(
        r#"
schema = 1
[iommu]
kind = "vtd"
mode = "translated"
[[ram]]
base = 0x0
size = "1GiB"
[[host_bridge]]
name = "hb0"
peer = "forwards"
replaces_requester = {replaces}
windows = [{{ cpu = 0x9000_0000, bus = 0x9000_0000, size = "256MiB" }}]
[[port]]
name = "rp"
parent = "hb0"
kind = "root"
bdf = "00:01.0"
acs = {{ cap = 0x7f, ctl = {root_control:#x} }}
[[port]]
name = "up"
parent = "rp"
kind = "upstream"
bdf = "01:00.0"
[[port]]
name = "down"
parent = "up"
kind = "downstream"
bdf = "02:00.0"
acs = {{ cap = 0x7f, ctl = {port_control:#x} }}
[[port]]
name = "bridge"
parent = "down"
kind = "pcie-pci"
bdf = "03:00.0"
[[function]]
name = "p"
parent = "bridge"
bdf = "04:00.0"
model = "plain"
bars = [{{ n = 0, size = "64KiB" }}]
[[function]]
name = "q"
parent = "bridge"
bdf = "04:01.0"
model = "plain"
bars = [{{ n = 0, size = "64KiB" }}]
"#
    );
    Platform::parse(&text, "neighbours.toml").unwrap()
}

/// The bridge answers what comes down to it, and the answer is for its own bus, below the port that it comes up to.
/// The name of that bus is also the address of the first device there, which had taken the answer for its own.
#[test]
fn an_answer_to_a_neighbour_on_conventional_pci_that_asked_through_the_root_goes_that_way_too() {
    const FORWARDING: u16 = 1 << 4;
    let told = |root, port, replaces, from: &str, to: &str| {
        let kernel = boot(&neighbours(root, port, replaces));
        let node = |name| kernel.machine().named(name).unwrap();
        let seat = kernel.seat(node(from)).unwrap();
        let range = bar(&kernel, node(to), 0, 0x1000);
        let at = seat.map_unasked(range, Prot::ReadWrite).unwrap();
        let mut port = kernel.machine().port(node(from));
        let short = port.read(How::default(), at, &mut [0; 8]);
        assert_eq!(port.read(How::default(), at, &mut [0; 0x1000]), short);
        short
    };
    for (from, to) in [("p", "q"), ("q", "p")] {
        assert_eq!(told(0, 0, false, from, to), Err(Failure::Timeout), "{from}");
        assert_eq!(told(0, FORWARDING, false, from, to), Err(Failure::Timeout), "{from}");
        assert_eq!(told(FORWARDING, FORWARDING, false, from, to), Ok(()), "{from}");
        assert_eq!(told(0, 0, true, from, to), Ok(()), "{from}");
    }
}

#[test]
fn what_a_bridge_to_conventional_pci_does_not_take_up_it_refuses_on_the_bus() {
    let kernel = boot(&neighbours(0, 0, false));
    let machine = kernel.machine();
    let [p, bridge] = ["p", "bridge"].map(|name| machine.named(name).unwrap());
    let command = machine.cpu().config_read(bridge, 4, Width::Two);
    machine.cpu().config_write(bridge, 4, Width::Two, command & !4);
    let read = machine.port(p).read(How::default(), BusAddr::new(0x1000), &mut [0; 8]);
    assert_eq!(read, Err(Failure::UnsupportedRequest));
}
