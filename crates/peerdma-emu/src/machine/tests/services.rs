//! Address translation services of a function: its cache, its page requests, and steps under way.

use super::*;
use crate::config::Width;
use crate::device::PageResponse;
use crate::iommu::{Attachment, Iommu};
use crate::platform::IommuKind;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// An engine that takes a translation in its step, and holds it until it is let go.
struct Holder {
    registers: Arc<Registers>,
    /// It has the translation now; and it may go on.
    taken: Arc<AtomicBool>,
    go: Arc<AtomicBool>,
}

impl Device for Holder {
    fn layout(&self) -> Layout {
        Layout::new().registers(0, Bytes::ZERO, &self.registers)
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        if bus.next_write().is_none() {
            return Progress::Idle;
        }
        let Ok(Some(found)) = bus.translate(How::default(), BusAddr::new(0x4000), true) else { return Progress::Idle };
        self.taken.store(true, Ordering::Release);
        while !self.go.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let how = How { at: crate::wire::AddressType::Translated, ..How::default() };
        let _ = bus.write(how, found.to, &[9; 8]);
        Progress::Idle
    }

    fn reset(&mut self) {}
}

struct Alone {
    machine: Machine,
    ram: Arc<Striped>,
    registers: Arc<Registers>,
    taken: Arc<AtomicBool>,
    go: Arc<AtomicBool>,
    node: NodeId,
}

/// A function with ATS on the root bus, below an IOMMU that passes it through.
fn alone() -> Alone {
    let mut tree = Tree::new(1);
    let description = Description { ats: Some(true), pri: Some(true), ..Description::express(PortType::Endpoint) };
    let (address, config) = (PciAddr::new(0, 0, DevFn::new(8)), Arc::new(Space::new(&description)));
    let above = Above::Root(HostId::new(0));
    let node = tree.add(Node { address, config, above, peers_inside: false, group: None }).unwrap();
    let iommu = Iommu::new(IommuKind::Vtd);
    iommu.attach(address, Attachment::Identity);
    iommu.allow_ats(address, true);
    iommu.allow_pri(address, true);
    let host = Host {
        segment: 0,
        root_bus: 0,
        windows: Vec::new(),
        peer: PeerForwarding::Forwards,
        interrupts: None,
        replaces_requester: false,
        between_ports: false,
        splits: true,
    };
    let range = AddrRange::new(PhysAddr::new(0), Bytes::new(1 << 20)).unwrap();
    let ram = Arc::new(Striped::new(range.len()));
    let stretch = Stretch { range, memory: ram.clone() };
    let fabric = Fabric::new(tree, Root::new(vec![host], vec![range], Some(Arc::new(iommu))));
    let registers = Arc::new(Registers::new(Bytes::new(64)));
    let (taken, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let device = Holder { registers: registers.clone(), taken: taken.clone(), go: go.clone() };
    let part = Part { name: None, device: Some(Box::new(device)), mask_bits: 64, tdi: None };
    let machine = Machine::new(fabric, vec![part], vec![stretch], Delivery::AtOnce, 1);
    Alone { machine, ram, registers, taken, go, node }
}

/// Memory is given to others when an invalidation returns. A step that has taken a translation
/// sends with it still, so that the invalidation is done only when the step is.
#[test]
fn an_invalidation_waits_for_the_step_that_took_the_translation() {
    let Alone { machine, ram, registers, taken, go, node } = alone();
    let all = AddrRange::new(BusAddr::new(0), Bytes::new(1 << 20)).unwrap();
    machine.with_threads(|| {
        registers.write(0, &[1]);
        while !taken.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                machine.invalidate(node, None, all);
                done.store(true, Ordering::Release);
                let mut bytes = [0; 8];
                ram.read(Bytes::new(0x4000), &mut bytes).unwrap();
                assert_eq!(bytes, [9; 8], "what it sent has arrived");
            });
            // Long enough for an invalidation that does not wait.
            std::thread::sleep(Duration::from_millis(50));
            assert!(!done.load(Ordering::Acquire));
            go.store(true, Ordering::Release);
        });
        assert!(done.load(Ordering::Acquire));
    });
    assert!(machine.function(node).translations.find(None, BusAddr::new(0x4000), true).is_none());
}

/// What is given after ATS was switched off and on again is all that the cache knows.
#[test]
fn a_function_whose_ats_is_switched_off_remembers_no_translation() {
    let Alone { machine, node, .. } = alone();
    let known = |at| machine.function(node).translations.find(None, BusAddr::new(at), true).is_some();
    let config = machine.fabric().tree().config(node);
    let at = (0x100..0x1000_u16).step_by(4).find(|&at| config.read(at, Width::Four) & 0xffff == 0xf).unwrap();
    let control = config.read(at + 6, Width::Two);
    machine.port(node).translate(How::default(), BusAddr::new(0x4000), true).unwrap().unwrap();
    machine.cpu().config_write(node, at + 6, Width::Two, control | 1);
    assert!(known(0x4000), "what stays on keeps what it knows");
    machine.cpu().config_write(node, at + 6, Width::Two, control & !0x8000);
    assert!(!known(0x4000));
    machine.cpu().config_write(node, at + 6, Width::Two, control);
    assert!(!known(0x4000));
    let mut port = machine.port(node);
    assert!(port.translate(How::default(), BusAddr::new(0x4000), true).is_ok_and(|found| found.is_some()));
    assert!(known(0x4000));
}

/// A function sends no more page requests than software allocated to it, whatever its engine asks for.
#[test]
fn page_requests_go_as_far_as_their_allocation_and_no_response_comes_unasked() {
    let Alone { machine, node, .. } = alone();
    let config = machine.fabric().tree().config(node);
    let at = (0x100..0x1000_u16).step_by(4).find(|&at| config.read(at, Width::Four) & 0xffff == 0x13).unwrap();
    machine.cpu().config_write(node, at + 12, Width::Four, 2);
    let mut port = machine.port(node);
    let mut ask = |group| port.request_page(How::default(), BusAddr::new(0x4000), true, group);
    assert_eq!([ask(1), ask(2), ask(3)], [Ok(()), Ok(()), Err(Failure::NotSent)]);
    let unexpected = || machine.unexpected_page_responses(node);
    for group in [1, 1, 7] {
        machine.respond(node, group, PageResponse::Success);
    }
    assert_eq!(unexpected(), 2);
    assert_eq!(config.read(at + 6, Width::Two) & 2, 2, "noted in its status register");
    let mut port = machine.port(node);
    assert_eq!((port.next_page_response(), port.next_page_response()), (Some((1, PageResponse::Success)), None));
    machine.reset(node);
    machine.respond(node, 2, PageResponse::Success);
    assert_eq!((unexpected(), machine.port(node).next_page_response()), (3, None));
}
