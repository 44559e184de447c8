//! What a step costs does not grow with the machine.

use super::*;

/// Functions on the root bus of one host bridge, each with registers.
fn machine(functions: u16) -> (Machine, Vec<Arc<Registers>>) {
    let mut tree = Tree::new(1);
    let (mut parts, mut registers) = (Vec::new(), Vec::new());
    for number in 0..functions {
        let address = PciAddr::new(0, (number >> 8) as u8, DevFn::new(number as u8));
        let config = Arc::new(Space::new(&Description::express(PortType::Endpoint)));
        let above = Above::Root(HostId::new(0));
        tree.add(Node { address, config, above, peers_inside: false, group: None }).unwrap();
        let (memory, own) = (Arc::new(Striped::new(Bytes::new(64))), Arc::new(Registers::new(Bytes::new(64))));
        let device = Box::new(Plain { memory, registers: own.clone() });
        parts.push(Part { name: None, device: Some(device), mask_bits: 64, tdi: None });
        registers.push(own);
    }
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
    let stretch = Stretch { range, memory: Arc::new(Striped::new(range.len())) };
    let fabric = Fabric::new(tree, Root::new(vec![host], vec![range], None));
    (Machine::new(fabric, parts, vec![stretch], Delivery::Queued, 1), registers)
}

/// How many functions each step looks at, for a doorbell that is rung and a write that goes to memory.
fn looks(functions: u16) -> Vec<u64> {
    let (machine, registers) = machine(functions);
    assert!(machine.settle(u64::from(functions) + 1), "each engine is stepped once at first");
    let node = NodeId::new(usize::from(functions / 2));
    registers[node.index()].write(0, &[1]);
    machine.port(node).write(How::default(), BusAddr::new(0x100), &[7; 8]).unwrap();
    let mut looks = Vec::new();
    loop {
        machine.looked.store(0, Ordering::Relaxed);
        let more = machine.step();
        looks.push(machine.looked.load(Ordering::Relaxed));
        if !more {
            break;
        }
    }
    assert!(!registers[node.index()].has_writes(), "it has heard");
    looks.sort_unstable();
    looks
}

#[test]
fn a_step_looks_at_as_many_functions_in_a_machine_of_4096_as_in_one_of_16() {
    let few = looks(16);
    // The engine's step, two hops of the write, and the end; an engine looks at its own function.
    assert!(few.len() == 4 && few.iter().sum::<u64>() <= 4, "{few:?}");
    assert_eq!(looks(4096), few);
}

#[test]
fn a_machine_in_which_nothing_is_to_do_looks_at_nobody() {
    let (machine, _registers) = machine(512);
    assert!(machine.settle(513));
    machine.looked.store(0, Ordering::Relaxed);
    assert!(!machine.step() && !machine.pause());
    assert_eq!(machine.looked.load(Ordering::Relaxed), 0);
}

/// An engine that is stepped without hearing is stepped again, as it was told something.
#[test]
fn an_engine_that_leaves_a_write_unheard_stays_awake() {
    struct Deaf(Arc<Registers>);

    impl Device for Deaf {
        fn layout(&self) -> Layout {
            Layout::new().registers(0, Bytes::ZERO, &self.0)
        }

        fn step(&mut self, _bus: &mut dyn Bus) -> Progress {
            Progress::Idle
        }

        fn reset(&mut self) {}
    }

    let mut tree = Tree::new(1);
    let config = Arc::new(Space::new(&Description::express(PortType::Endpoint)));
    let (address, above) = (PciAddr::new(0, 0, DevFn::new(8)), Above::Root(HostId::new(0)));
    tree.add(Node { address, config, above, peers_inside: false, group: None }).unwrap();
    let registers = Arc::new(Registers::new(Bytes::new(8)));
    let part = Part { name: None, device: Some(Box::new(Deaf(registers.clone()))), mask_bits: 64, tdi: None };
    let fabric = Fabric::new(tree, Root::new(Vec::new(), Vec::new(), None));
    let machine = Machine::new(fabric, vec![part], Vec::new(), Delivery::Queued, 1);
    assert!(machine.settle(2));
    registers.write(0, &[1]);
    assert!(!machine.settle(100));
    assert!(registers.take_write().is_some() && machine.settle(2));
}
