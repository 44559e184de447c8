//! What several threads that step one machine take from its queues: in order, and passed by no read.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

const ROUNDS: u64 = 2000;
const MEMORY: u64 = 0x1000;

/// Runs `body` while two threads step the machine; what panics stops them too.
fn stepped(bench: &Bench, body: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    bench.machine.step();
                }
            });
        }
        let _stop = Stop(&over);
        body();
    });
}

fn ram(bench: &Bench) -> u64 {
    let mut bytes = [0; 8];
    bench.ram.read(Bytes::new(MEMORY), &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// The first write of an egress in this thread's hand, put down after `meanwhile` had its time.
fn in_hand(bench: &Bench, egress: Egress, meanwhile: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (posted, taking) = bench.machine.queues.lock().unwrap().take(egress, 0).expect("a write waits there");
        let arrival = bench.machine.fabric().arrive(egress, posted.head);
        scope.spawn(meanwhile);
        // Whoever does not wait for the hand is done long before this.
        std::thread::sleep(std::time::Duration::from_millis(50));
        bench.machine.put(posted, Some(egress), arrival);
        bench.machine.queues.lock().unwrap().put_down(taking);
        bench.machine.waiting.fetch_sub(1, Ordering::AcqRel);
    });
}

fn first_egress(bench: &Bench) -> Egress {
    Egress::Up(bench.machine.fabric().tree().link(bench.devices[0]))
}

/// It found the queue empty, and passed what had been taken from there.
#[test]
fn a_read_waits_for_the_write_that_is_in_a_hand() {
    let bench = bench(Delivery::Queued, 1);
    bench.port(0).write(How::default(), BusAddr::new(MEMORY), &7_u64.to_le_bytes()).unwrap();
    in_hand(&bench, first_egress(&bench), || {
        let mut seen = [0; 8];
        bench.port(0).read(How::default(), BusAddr::new(MEMORY), &mut seen).unwrap();
        assert_eq!(u64::from_le_bytes(seen), 7);
    });
}

#[test]
fn a_write_behind_one_in_a_hand_stays_behind_it() {
    let bench = bench(Delivery::Queued, 1);
    for value in [7_u64, 8] {
        bench.port(0).write(How::default(), BusAddr::new(MEMORY), &value.to_le_bytes()).unwrap();
    }
    in_hand(&bench, first_egress(&bench), || bench.machine.push_up(bench.devices[0]));
    bench.machine.settle(100);
    assert_eq!(ram(&bench), 8);
}

/// What had been translated on its way up went into the queue to memory when that had been emptied.
#[test]
fn a_drain_awaits_what_is_in_a_hand_before_it_empties_the_way_to_memory() {
    let bench = bench(Delivery::Queued, 1);
    let tree = bench.machine.fabric().tree();
    bench.port(0).write(How::default(), BusAddr::new(MEMORY), &7_u64.to_le_bytes()).unwrap();
    let up = |node| Egress::Up(tree.link(node));
    bench.machine.flush(up(bench.devices[0]));
    bench.machine.flush(up(bench.ports[0]));
    let Above::Port(upstream) = tree.node(bench.ports[0]).above else { unreachable!("a switch's port is below one") };
    in_hand(&bench, up(upstream), || {
        bench.machine.drain();
        assert_eq!(ram(&bench), 7);
    });
}

/// A write that another thread had taken out was passed by the read behind it.
#[test]
fn a_read_passes_no_write_that_another_thread_has_in_hand() {
    let bench = bench(Delivery::Queued, 1);
    stepped(&bench, || {
        let mut port = bench.port(0);
        for round in 1..=ROUNDS {
            port.write(How::default(), BusAddr::new(MEMORY), &round.to_le_bytes()).unwrap();
            let mut seen = [0; 8];
            port.read(How::default(), BusAddr::new(MEMORY), &mut seen).unwrap();
            assert_eq!(u64::from_le_bytes(seen), round, "a read comes after what was written before it");
        }
    });
}

/// Two writes of one sender in the hands of two threads were put down in either order.
#[test]
fn writes_arrive_in_the_order_in_which_they_were_sent_whoever_moves_them() {
    let bench = bench(Delivery::Queued, 2);
    stepped(&bench, || {
        let mut port = bench.port(0);
        let mut last = 0;
        for round in 1..=ROUNDS {
            port.write(How::default(), BusAddr::new(MEMORY), &round.to_le_bytes()).unwrap();
            let seen = ram(&bench);
            assert!(seen >= last, "{seen} came after {last}");
            last = seen;
        }
        bench.machine.push_up(bench.devices[0]);
        assert_eq!(ram(&bench), ROUNDS, "and all of them are there when they have been pushed");
    });
}

/// One that was translated, and in a hand still, went to memory when the drain had ended.
#[test]
fn a_drain_leaves_nothing_translated_on_its_way() {
    let bench = bench(Delivery::Queued, 3);
    let tree = bench.machine.fabric().tree();
    let mut up = vec![bench.devices[0]];
    while let Above::Port(port) = tree.node(*up.last().unwrap()).above {
        up.push(port);
    }
    let up: Vec<Egress> = up.into_iter().map(|node| Egress::Up(tree.link(node))).collect();
    stepped(&bench, || {
        let mut port = bench.port(0);
        for round in 1..=ROUNDS {
            port.write(How::default(), BusAddr::new(MEMORY), &round.to_le_bytes()).unwrap();
            // As far as the root complex, where it is translated while other threads bring it on.
            up.iter().for_each(|&egress| bench.machine.flush(egress));
            bench.machine.drain();
            assert_eq!(ram(&bench), round);
        }
    });
}
