//! What has arrived when an IOMMU has drained.

use super::*;

/// Writes from the first device to memory and, by way of the root complex, to the second; both are
/// as far as the root complex let them go.
fn translated(seed: u64) -> Bench {
    let bench = bench(Delivery::Queued, seed);
    bench.set_acs(bench.ports[0], 0x04);
    bench.set_acs(bench.root, 0x10);
    let mut port = bench.port(0);
    port.write(How::default(), BusAddr::new(0x1000), &[1; 8]).unwrap();
    port.write(How::default(), Bench::at(1, 0), &[2; 8]).unwrap();
    let tree = bench.machine.fabric().tree();
    let mut at = Some(bench.devices[0]);
    while let Some(node) = at {
        bench.machine.flush(Egress::Up(tree.link(node)));
        at = match tree.node(node).above {
            Above::Port(port) => Some(port),
            Above::Root(_) => None,
        };
    }
    bench
}

fn ram(bench: &Bench) -> [u8; 8] {
    let mut bytes = [0; 8];
    bench.ram.read(Bytes::new(0x1000), &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_translated_is_in_memory_when_the_iommu_has_drained() {
    let bench = translated(1);
    assert_eq!(ram(&bench), [0; 8], "it waits");
    bench.machine.drain();
    assert_eq!(ram(&bench), [1; 8]);
}

/// No IOMMU waits for what has left the root complex again.
#[test]
fn a_write_that_went_on_to_a_peer_is_not_drained_and_a_read_from_the_peer_pushes_it() {
    let bench = translated(1);
    bench.machine.drain();
    assert_eq!(bench.holds(1, 0, 8), [0; 8]);
    bench.machine.cpu().load(PhysAddr::new(BAR + STEP + 0x100), &mut [0; 4]);
    assert_eq!(bench.holds(1, 0, 8), [2; 8]);
}

/// What has not come up to the IOMMU is not translated yet, and meets what is mapped when it has.
#[test]
fn a_write_on_its_way_up_is_not_drained() {
    let bench = bench(Delivery::Queued, 1);
    bench.port(0).write(How::default(), BusAddr::new(0x1000), &[1; 8]).unwrap();
    bench.machine.drain();
    assert_eq!(ram(&bench), [0; 8]);
    bench.machine.push_up(bench.devices[0]);
    assert_eq!(ram(&bench), [1; 8], "the completion of an invalidation of its cache does");
}
