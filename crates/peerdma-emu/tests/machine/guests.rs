//! A guest's addresses on the wire: where its BARs are decides whether bytes arrive.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, GuestPhys, Iova, PhysAddr};
use peerdma::dma::{IoSpace, Source};
use peerdma::route::guest::{GuestLayout, Initiator, Place, Proposal, Stray, check, needed_place};
use peerdma::route::{Judge, Permission, Target};
use peerdma::topology::FunctionId;
use peerdma_emu::device::{Bus, How};
use peerdma_emu::host::{Kernel, Seat};
use peerdma_emu::machine::Builder;
use peerdma_emu::platform::Platform;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
/// A guest address that is no number of this machine's windows.
const MOVED: u64 = 0x20_0000_0000;

/// A and its peers B and C below one switch whose ports redirect nothing.
fn platform(peer: &str, control: u16) -> Platform {
    let mut text = format!(
        r#"
schema = 1
[iommu]
kind = "vtd"
mode = "translated"
[[ram]]
base = 0x0
size = "1GiB"
[[host_bridge]]
name = "hb"
peer = "{peer}"
windows = [{{ cpu = 0x9000_0000, bus = 0x9000_0000, size = "256MiB", prefetch = false }}]
[[port]]
name = "rp"
parent = "hb"
kind = "root"
bdf = "00:01.0"
acs = {{ cap = 0x5f, ctl = 0x1d }}
[[port]]
name = "up"
parent = "rp"
kind = "upstream"
bdf = "01:00.0"
"#
    );
    for (nth, name) in ["a", "b", "c"].iter().enumerate() {
        text.push_str(&format!(
            r#"
[[port]]
name = "d{nth}"
parent = "up"
kind = "downstream"
bdf = "02:{nth:02x}.0"
acs = {{ cap = 0x5f, ctl = {control:#x} }}
[[function]]
name = "{name}"
parent = "d{nth}"
bdf = "{:02x}:00.0"
model = "plain"
bars = [{{ n = 0, size = "1MiB" }}]
"#,
            nth + 3
        ));
    }
    Platform::parse(&text, "guest.toml").unwrap()
}

/// A guest whose devices are A and B; C is somebody else's.
struct Guest<'k> {
    kernel: &'k Kernel,
    seat: Seat<'k>,
}

impl<'k> Guest<'k> {
    fn new(kernel: &'k Kernel) -> Self {
        Self { kernel, seat: kernel.seat(kernel.machine().named("a").unwrap()).unwrap() }
    }

    fn id(&self, name: &str) -> FunctionId {
        self.kernel.function(self.kernel.machine().named(name).unwrap()).unwrap()
    }

    fn bar(&self, name: &str) -> (u64, PhysAddr) {
        let bar = &self.kernel.topology().function(self.id(name)).info().bars[0];
        (bar.bus.unwrap().as_u64(), bar.cpu.unwrap().start())
    }

    fn map(&self, at: u64, to: PhysAddr) {
        let iova = AddrRange::new(Iova::new(at), Bytes::new(MIB)).unwrap();
        self.seat.handle().map(iova, &Source::Physical(to), Prot::ReadWrite, MemAttrs::empty()).unwrap();
    }

    /// Where the bytes are that A writes to a guest address.
    fn write(&self, at: u64) -> Vec<&'static str> {
        let machine = self.kernel.machine();
        for name in ["b", "c"] {
            machine.cpu().store(self.bar(name).1, &[0; 8]);
        }
        // Posted writes of the processor, too, that nothing orders with the device's.
        assert!(machine.settle(10_000));
        machine.port(self.seat.node()).write(How::default(), BusAddr::new(at), b"payload!").unwrap();
        assert!(machine.settle(10_000));
        let has = |name: &&str| {
            let mut bytes = [0; 8];
            machine.cpu().load(self.bar(name).1, &mut bytes);
            bytes == *b"payload!"
        };
        ["b", "c"].into_iter().filter(has).collect()
    }

    /// What is said of a guest with this RAM and B's BAR there.
    fn said(&self, ram: u64, bar: Option<u64>) -> (Permission, Vec<Stray>, Option<Place>) {
        let topology = self.kernel.topology();
        let a = Initiator::of(topology, self.id("a"));
        let ram = AddrRange::new(GuestPhys::new(ram), Bytes::new(MIB)).unwrap();
        let bars: Vec<_> = bar.map(|at| (self.id("b"), 0, GuestPhys::new(at))).into_iter().collect();
        let layout = GuestLayout::new(topology, &[a], &[ram], &bars).unwrap();
        let mut report = check(&Judge::new(topology), &layout);
        let strays = report.findings.iter().map(|finding| finding.stray.clone()).collect();
        (report.permission(), strays, report.bars.pop().map(|bar| bar.place))
    }
}

fn boot(peer: &str, control: u16) -> Kernel {
    Kernel::boot(Arc::new(Builder::new(&platform(peer, control)).build().unwrap()), &platform(peer, control))
}

#[test]
fn below_a_switch_an_identity_bar_is_reached_and_a_moved_one_is_not() {
    let kernel = boot("none", 0);
    let guest = Guest::new(&kernel);
    let ((own, cpu), (other, _)) = (guest.bar("b"), guest.bar("c"));
    guest.map(own, cpu);
    let identity = Place::Identity { at: GuestPhys::new(own), elsewhere: Permission::Refused };
    assert_eq!(guest.said(0, Some(own)), (Permission::Permitted, vec![], Some(identity.clone())));
    assert_eq!(guest.write(own), ["b"]);
    // The monitor has mapped it as well, and the root complex does not send it back.
    guest.map(MOVED, cpu);
    let (permission, strays, place) = guest.said(0, Some(MOVED));
    assert_eq!((permission, place), (Permission::Refused, Some(identity.clone())));
    assert!(matches!(strays.as_slice(), [Stray::Lost(_)]), "{strays:?}");
    assert!(guest.write(MOVED).is_empty());
    // At the number of a BAR that is not the guest's at all.
    guest.map(other, cpu);
    let captured = Stray::Captured { by: guest.id("c"), bar: Some(0) };
    assert_eq!(guest.said(0, Some(other)), (Permission::Refused, vec![captured], Some(identity)));
    assert_eq!(guest.write(other), ["c"]);
    let judge = Judge::new(kernel.topology());
    let target = Target::of_bar(kernel.topology(), guest.id("b"), 0, None).unwrap();
    let needed = needed_place(&judge, &[Initiator::of(kernel.topology(), guest.id("a"))], &target);
    let must = Proposal::MustBe { at: GuestPhys::new(own), needed_by: vec![guest.id("a")] };
    assert_eq!(needed.propose(GuestPhys::new(MOVED)), Ok(must));
    assert_eq!(needed.propose(GuestPhys::new(own)), Ok(Proposal::Fits));
}

#[test]
fn guest_ram_at_the_number_of_a_bar_is_written_into_the_bar() {
    let kernel = boot("none", 0);
    let guest = Guest::new(&kernel);
    let (own, _) = guest.bar("b");
    let ram = kernel.allocate(Bytes::new(MIB)).unwrap();
    guest.map(own, ram.range().start());
    let captured = Stray::Captured { by: guest.id("b"), bar: Some(0) };
    assert_eq!(guest.said(own, None), (Permission::Refused, vec![captured], None));
    assert_eq!(guest.write(own), ["b"]);
    let mut bytes = [0; 8];
    kernel.machine().cpu().load(ram.range().start(), &mut bytes);
    assert_eq!(bytes, [0; 8], "and nothing came to RAM");
}

/// SV, RR, CR and UF at every port, as Linux sets them, and a root complex that sends peer requests back.
#[test]
fn where_ports_redirect_the_iommu_leads_every_address_where_the_guest_means() {
    let kernel = boot("forwards", 0x1d);
    let guest = Guest::new(&kernel);
    let ((own, cpu), (other, _)) = (guest.bar("b"), guest.bar("c"));
    for at in [own, MOVED, other] {
        guest.map(at, cpu);
        let said = guest.said(0, Some(at));
        assert_eq!(said, (Permission::Permitted, vec![], Some(Place::Any { direct: None })), "{at:#x}");
        assert_eq!(guest.write(at), ["b"], "{at:#x}");
    }
    // Redirected, and nothing comes back: no address will do.
    let kernel = boot("none", 0x1d);
    let guest = Guest::new(&kernel);
    guest.map(own, cpu);
    let (permission, strays, place) = guest.said(0, Some(own));
    assert!(matches!(strays.as_slice(), [Stray::Lost(_)]), "{strays:?}");
    assert!(permission == Permission::Refused && matches!(place, Some(Place::Refused(_))), "{place:?}");
    assert!(guest.write(own).is_empty());
}

/// Both ways lead there: at its own number sooner, at any other through the IOMMU.
#[test]
fn where_the_root_complex_forwards_a_moved_bar_below_an_open_switch_is_reached_too() {
    let kernel = boot("forwards", 0);
    let guest = Guest::new(&kernel);
    let (own, cpu) = guest.bar("b");
    let either = Place::Any { direct: Some(GuestPhys::new(own)) };
    for at in [own, MOVED] {
        guest.map(at, cpu);
        assert_eq!(guest.said(0, Some(at)), (Permission::Permitted, vec![], Some(either.clone())), "{at:#x}");
        assert_eq!(guest.write(at), ["b"], "{at:#x}");
    }
}
