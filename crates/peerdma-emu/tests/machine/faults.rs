//! Each fault by its word, on the way of one device for another, as the command line arms it.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Bytes;
use peerdma::chunk::Chunk;
use peerdma::dma::{Owner, Peers};
use peerdma_emu::device::{Bus, How};
use peerdma_emu::faults::{Fault, Plan};
use peerdma_emu::host::{Kernel, wire_address};
use peerdma_emu::machine::{Builder, Delivery, Event, Happened};
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Failure;
use std::sync::Arc;

const LEN: usize = 0x4000;

/// What came of a write and a read of one device at another.
#[derive(PartialEq, Debug)]
struct Outcome {
    /// Whether the bytes were there once the fault was gone.
    arrived: bool,
    read: Result<bool, Failure>,
    /// Whether what was read was all ones.
    ones: bool,
    strikes: u64,
    log: Vec<Event>,
}

/// A GPU writes to a drive's memory and reads it back while a fault is armed between them.
fn gpu_at_drive(drive: &str, fault: Option<&str>, delivery: Delivery, seed: u64) -> Outcome {
    let platform = Platform::built_in("two-socket").unwrap();
    let machine = Arc::new(Builder::new(&platform).seed(seed).delivery(delivery).build().unwrap());
    let kernel = Kernel::boot(machine.clone(), &platform);
    let (gpu, drive) = (machine.named("gpu0").unwrap(), machine.named(drive).unwrap());
    let (seat, owners, peers) = (kernel.seat(gpu).unwrap(), kernel.owners(), Peers::of(kernel.topology()));
    let context = seat.context(&owners, &peers).unwrap();
    let owner = Owner::Bar { function: kernel.function(drive).unwrap(), bar: 2 };
    let chunk = Chunk::new(owner, Bytes::ZERO, Bytes::new(LEN as u64), MemAttrs::MMIO).unwrap();
    let mapping = context.map_p2p(chunk, Prot::ReadWrite).unwrap();
    let at = wire_address(&mapping.spans().next().unwrap());

    machine.log().keep(true);
    let armed = fault.map(|word| {
        let fault: Fault = word.parse().unwrap();
        machine.arm(Plan::new(fault).between(gpu, drive).seed(seed)).unwrap()
    });
    let (pattern, mut read) = (vec![0x5a; LEN], vec![0; LEN]);
    let sent = machine.port(gpu).write(How::default(), at, &pattern);
    assert!(matches!(sent, Ok(()) | Err(Failure::NotSent)));
    assert!(machine.settle(1_000_000));
    let answer = machine.port(gpu).read(How::default(), at, &mut read);
    let strikes = armed.map_or(0, |armed| machine.disarm(armed).unwrap().strikes);

    let info = kernel.topology().function(kernel.function(drive).unwrap()).info();
    let bar = info.bars.iter().find(|bar| bar.index == 2).unwrap().cpu.unwrap();
    let mut bytes = vec![0; LEN];
    machine.cpu().load(bar.start(), &mut bytes);
    let ones = read.iter().all(|byte| *byte == 0xff);
    let read = answer.map(|()| read == pattern);
    Outcome { arrived: bytes == pattern, read, ones, strikes, log: machine.log().take() }
}

/// Across two root complexes and below one switch: (arrived, what the read came to), as hardware has it.
#[test]
fn each_word_does_on_a_described_machine_what_it_says() {
    let (right, timeout) = (Ok(true), Err(Failure::Timeout));
    let nothing = Err(Failure::UnsupportedRequest);
    let cases = [
        (None, true, right),
        (Some("all-ones"), false, Ok(false)),
        (Some("drop-writes"), false, Ok(false)),
        (Some("dead-reads"), true, timeout),
        (Some("mirror-bar"), false, right),
        (Some("bar-off"), false, nothing),
        (Some("late-completion"), true, timeout),
        (Some("stray-write"), true, right),
        (Some("bit-flip"), false, Ok(false)),
    ];
    for (word, arrived, read) in cases {
        for delivery in [Delivery::Queued, Delivery::AtOnce] {
            let outcome = gpu_at_drive("nvme2", word, delivery, 3);
            assert_eq!((outcome.arrived, outcome.read), (arrived, read), "{word:?} {delivery:?}");
            assert_eq!((outcome.strikes > 0, outcome.ones), (word.is_some(), word == Some("all-ones")), "{word:?}");
            if word.is_some_and(|word| word != "all-ones") {
                let below = gpu_at_drive("nvme0", word, delivery, 3);
                assert_eq!((below.arrived, below.read), (arrived, read), "{word:?} below one switch, {delivery:?}");
            }
        }
    }
    let below = gpu_at_drive("nvme0", Some("all-ones"), Delivery::Queued, 3);
    assert_eq!((below.arrived, below.strikes), (true, 0), "what stays below a switch meets no root complex");
}

#[test]
fn whoever_is_pulled_reset_or_asleep_is_no_peer_any_more() {
    for word in ["surprise-removal", "reset", "d3"] {
        for seed in 0..4 {
            let outcome = gpu_at_drive("nvme0", Some(word), Delivery::Queued, seed);
            assert!(!outcome.arrived && outcome.read.is_err() && outcome.strikes == 1, "{word}: {outcome:?}");
        }
    }
}

#[test]
fn a_seed_repeats_every_strike_and_every_hop() {
    for word in ["drop-writes", "bit-flip", "acs-change", "stray-write", "mps"] {
        let run = || gpu_at_drive("nvme2", Some(word), Delivery::Queued, 11);
        let first = run();
        assert!(first.log.iter().any(|event| matches!(event.what, Happened::Struck(_))), "{word}");
        assert_eq!(first, run(), "{word}");
    }
}
