//! A way that was found before counts no more once any register on it was written, by whomever.

use super::*;
use crate::config::Width;

/// What a transfer each way does.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    written: bool,
    /// Whether all of it was read as it was written.
    read: Result<bool, Failure>,
    counts: Counts,
}

const LEN: usize = 10_000;

/// Transfers between the first two devices, after a register was changed; with courses that were
/// found before the change, or without any.
fn outcome(delivery: Delivery, warm: bool, change: impl Fn(&Bench)) -> Outcome {
    let bench = bench(delivery, 1);
    bench.memories[1].write(Bytes::ZERO, &[1; LEN]).unwrap();
    if warm {
        bench.port(0).write(How::default(), Bench::at(1, 0), &[1; LEN]).unwrap();
        bench.port(0).read(How::default(), Bench::at(1, 0), &mut [0; LEN]).unwrap();
        bench.machine.settle(1000);
        assert_eq!(bench.machine.counts(), Counts::new());
    }
    change(&bench);
    let _ = bench.port(0).write(How::default(), Bench::at(1, 0), &[2; LEN]);
    let mut bytes = vec![0; LEN];
    let read = bench.port(0).read(How::default(), Bench::at(1, 0), &mut bytes).map(|()| bytes == [2; LEN]);
    bench.machine.settle(1000);
    Outcome { written: bench.holds(1, 0, LEN) == [2; LEN], read, counts: bench.machine.counts() }
}

/// A register of the way from the first device to the second, as a word of two bytes.
struct Register {
    what: &'static str,
    node: fn(&Bench) -> NodeId,
    at: fn(&Space) -> u16,
    change: fn(u32) -> u32,
}

fn registers() -> Vec<Register> {
    fn register(
        what: &'static str,
        node: fn(&Bench) -> NodeId,
        at: fn(&Space) -> u16,
        change: fn(u32) -> u32,
    ) -> Register {
        Register { what, node, at, change }
    }
    let acs = |config: &Space| config.acs_control_at().map_or(0, |(at, _)| at);
    let payload = |config: &Space| config.device_control_at().unwrap_or(0);
    vec![
        register("memory base of a window", |bench| bench.ports[1], |_| 0x20, |_| 0xfff0),
        register("memory limit of a window", |bench| bench.ports[1], |_| 0x22, |_| 0),
        register("subordinate and secondary bus", |bench| bench.ports[0], |_| 0x18, |word| word & 0xff | 9 << 8),
        register("ACS control", |bench| bench.ports[0], acs, |_| 4),
        register("command of a function", |bench| bench.devices[1], |_| 4, |word| word & !2),
        register("command of a port", |bench| bench.ports[1], |_| 4, |word| word & !2),
        register("bus master of a port", |bench| bench.ports[0], |_| 4, |word| word & !4),
        register("BAR", |bench| bench.devices[1], |_| 0x12, |word| word ^ 0x80),
        register("payload of a port", |bench| bench.ports[1], payload, |word| word & !0xe0),
        register(
            "power state of a port",
            |bench| bench.ports[1],
            |space| space.power_control_at().unwrap_or(0),
            |word| word | 3,
        ),
    ]
}

/// Registers were followed only where a processor of the machine wrote them.
#[test]
fn no_write_to_a_register_on_the_way_leaves_a_course_behind() {
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        let before = |bench: &Bench| {
            // Packets longer than the smallest, so that a smaller limit is felt.
            for node in bench.machine.fabric().tree().ids() {
                let config = bench.machine.fabric().tree().config(node);
                if let Some(at) = config.device_control_at() {
                    config.write(at, Width::Two, config.read(at, Width::Two) | 1 << 5);
                }
            }
        };
        let unchanged = outcome(delivery, false, before);
        assert!(unchanged.written && unchanged.read == Ok(true));
        for register in registers() {
            let change = |bench: &Bench| {
                before(bench);
                // A course with the registers as they are before the last one.
                let _ = bench.port(0).write(How::default(), Bench::at(1, 0), &[1; LEN]);
                let _ = bench.port(0).read(How::default(), Bench::at(1, 0), &mut [0; LEN]);
                bench.machine.settle(1000);
                let config = bench.machine.fabric().tree().config((register.node)(bench));
                let at = (register.at)(config);
                config.write(at, Width::Two, (register.change)(config.read(at, Width::Two)));
            };
            let fresh = |bench: &Bench| {
                before(bench);
                let config = bench.machine.fabric().tree().config((register.node)(bench));
                let at = (register.at)(config);
                config.write(at, Width::Two, (register.change)(config.read(at, Width::Two)));
            };
            let (stale, fresh) = (outcome(delivery, true, change), outcome(delivery, false, fresh));
            assert_ne!(fresh, unchanged, "{delivery:?} {} is on the way", register.what);
            assert_eq!(stale, fresh, "{delivery:?} {}", register.what);
        }
    }
}

/// Of bridge control the secondary bus reset acts: what is below is reset, and decodes nothing.
#[test]
fn a_bridge_that_resets_what_is_below_ends_the_ways_there() {
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        let reset = |bench: &Bench| bench.machine.cpu().config_write(bench.ports[1], 0x3e, Width::Two, 1 << 6);
        let (stale, fresh) = (outcome(delivery, true, reset), outcome(delivery, false, reset));
        assert!(!fresh.written && fresh.read.is_err());
        assert_eq!(stale, fresh);
    }
}
