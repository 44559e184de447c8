//! The rows of the bench `emu`: what the emulated platform costs beside doing the same work bare.
//!
//! A copy between two vectors of the same size, written before, is the raw limit of every transfer.

use super::adapters;
use crate::row::{Gate, Row, Side, Turn};
use peerdma::addr::{BusAddr, Bytes};
use peerdma_emu::device::{Bus, How};
use peerdma_emu::fabric::NodeId;
use peerdma_emu::machine::{Builder, Delivery, Machine};
use peerdma_emu::memory::{self, Memory, Striped};
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::{Atomic, Operand};
use std::hint::black_box;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a transfer may cost beside `memcpy`: 0.9 of its speed.
const BULK: f64 = 1.0 / 0.9;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![
        transfers("E1", "write to a striped memory", |len| match len {
            Len::K4 => || writes(4 * KIB),
            Len::K64 => || writes(64 * KIB),
            Len::M1 => || writes(MIB),
            Len::M16 => || writes(16 * MIB),
        }),
        transfers("E2", "read from a striped memory", |len| match len {
            Len::K4 => || reads(4 * KIB),
            Len::K64 => || reads(64 * KIB),
            Len::M1 => || reads(MIB),
            Len::M16 => || reads(16 * MIB),
        }),
        transfers("E3", "copy between striped memories", |len| match len {
            Len::K4 => || copies(4 * KIB),
            Len::K64 => || copies(64 * KIB),
            Len::M1 => || copies(MIB),
            Len::M16 => || copies(16 * MIB),
        }),
        Row {
            sides: vec![
                Side::new("write", word_writes).turns(100_000, 10_000),
                Side::new("read", word_reads).turns(100_000, 10_000),
                Side::new("fetch-add", fetch_adds).turns(100_000, 10_000),
            ],
            gates: vec![
                // Some 15 % above what was counted when they were set: 100, 63 and 140.
                Gate::Instructions { of: "write", most: 115.0 },
                Gate::Instructions { of: "read", most: 75.0 },
                Gate::Instructions { of: "fetch-add", most: 160.0 },
                Gate::NoAllocation { of: "write" },
            ],
            ..Row::new("E4", "an aligned word of a striped memory", "access")
        },
        transfers("E5", "peer to peer below a switch, by a course", |len| match len {
            Len::K4 => || peer(4 * KIB),
            Len::K64 => || peer(64 * KIB),
            Len::M1 => || peer(MIB),
            Len::M16 => || peer(16 * MIB),
        }),
        Row {
            sides: vec![
                Side::new("at once", || doorbell(Delivery::AtOnce)).turns(20_000, 5_000),
                Side::new("queued", || doorbell(Delivery::Queued)).turns(2_000, 1_000),
            ],
            gates: vec![
                // Some 13 % above what was counted when they were set: 1108 and 9493. A queued one makes four
                // hops, each decided anew by the registers of a port, and draws who goes next each time.
                Gate::Instructions { of: "at once", most: 1_250.0 },
                Gate::Instructions { of: "queued", most: 10_700.0 },
            ],
            ..Row::new("E6", "a peer's doorbell, rung and heard", "doorbell")
        },
        Row {
            sides: vec![Side::new("4096 functions", build).turns(1, 0)],
            gates: Vec::new(),
            ..Row::new("E7", "a machine of 4096 functions, built", "machine")
        },
        Row {
            sides: vec![
                Side::new("64 KiB", || adapters::write(64 * KIB)).turns(1_000, 0),
                Side::new("memcpy 64 KiB", || bare(64 * KIB)).turns(1_000, 0),
                Side::new("1 MiB", || adapters::write(MIB)).turns(50, 0),
                Side::new("memcpy 1 MiB", || bare(MIB)).turns(50, 0),
                Side::new("16 MiB", || adapters::write(16 * MIB)).turns(4, 0),
                Side::new("memcpy 16 MiB", || bare(16 * MIB)).turns(4, 0),
            ],
            // What posting, messages and completions cost is no speed of memory, so nothing is asked for.
            gates: Vec::new(),
            ..Row::new("E8", "a write from one adapter to another", "write")
        },
    ]
}

/// Lengths of transfers.
#[derive(Clone, Copy)]
enum Len {
    K4,
    K64,
    M1,
    M16,
}

/// A row of ours beside bare copies, of all lengths; from 1 MiB on the ratio is asked for.
fn transfers(id: &'static str, what: &'static str, ours: fn(Len) -> fn() -> Turn) -> Row {
    Row {
        sides: vec![
            Side::new("4 KiB", ours(Len::K4)).turns(20_000, 0),
            Side::new("memcpy 4 KiB", || bare(4 * KIB)).turns(20_000, 0),
            Side::new("64 KiB", ours(Len::K64)).turns(1_000, 0),
            Side::new("memcpy 64 KiB", || bare(64 * KIB)).turns(1_000, 0),
            Side::new("1 MiB", ours(Len::M1)).turns(50, 0),
            Side::new("memcpy 1 MiB", || bare(MIB)).turns(50, 0),
            Side::new("16 MiB", ours(Len::M16)).turns(4, 0),
            Side::new("memcpy 16 MiB", || bare(16 * MIB)).turns(4, 0),
        ],
        gates: vec![
            Gate::Ratio { of: "1 MiB", to: "memcpy 1 MiB", most: BULK },
            Gate::Ratio { of: "16 MiB", to: "memcpy 16 MiB", most: BULK },
        ],
        ..Row::new(id, what, "transfer")
    }
}

/// Bytes that are not the kernel's one page of zeros.
fn filled(len: usize) -> Vec<u8> {
    (0..len).map(|byte| byte as u8).collect()
}

fn bare(len: usize) -> Turn {
    let (from, mut to) = (filled(len), filled(len));
    Box::new(move |turns| {
        for _ in 0..turns {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
    })
}

/// A memory of that many bytes, all of them written.
fn striped(len: usize) -> Striped {
    let memory = Striped::new(Bytes::new(len as u64));
    done(memory.write(Bytes::ZERO, &filled(len)));
    memory
}

fn writes(len: usize) -> Turn {
    let (from, to) = (filled(len), striped(len));
    Box::new(move |turns| (0..turns).for_each(|_| done(to.write(Bytes::ZERO, black_box(&from)))))
}

fn reads(len: usize) -> Turn {
    let (from, mut to) = (striped(len), filled(len));
    Box::new(move |turns| {
        for _ in 0..turns {
            done(from.read(Bytes::ZERO, &mut to));
            black_box(&mut to);
        }
    })
}

fn copies(len: usize) -> Turn {
    let (from, to, len) = (striped(len), striped(len), Bytes::new(len as u64));
    Box::new(move |turns| {
        for _ in 0..turns {
            done(memory::copy((black_box(&from), Bytes::ZERO), (black_box(&to), Bytes::ZERO), len));
        }
    })
}

/// A machine that comes with the platform; its GPU and the memory of a drive below the same switch.
fn two_socket(delivery: Delivery) -> (Machine, NodeId, BusAddr) {
    let platform = Platform::built_in("two-socket").unwrap_or_else(|| unreachable!("a built-in platform"));
    let machine = Builder::new(&platform).delivery(delivery).build();
    let machine = machine.unwrap_or_else(|error| unreachable!("a built-in platform runs: {error}"));
    let node = |name| machine.named(name).unwrap_or_else(|| unreachable!("a function of the platform"));
    let bar = machine.fabric().tree().config(node("nvme0")).bar(2);
    let at = bar.map_or(BusAddr::new(0), |bar| bar.start());
    let gpu = node("gpu0");
    (machine, gpu, at)
}

/// From memory of the initiator's into the drive's.
fn peer(len: usize) -> Turn {
    let (machine, gpu, at) = two_socket(Delivery::AtOnce);
    let (own, len) = (striped(len), Bytes::new(len as u64));
    Box::new(move |turns| {
        for _ in 0..turns {
            done(machine.port(gpu).send(How::default(), (black_box(&own), Bytes::ZERO), at, len));
        }
    })
}

/// Four bytes to a doorbell of a NIC below the same switch, and the NIC's engine told of it.
fn doorbell(delivery: Delivery) -> Turn {
    let (machine, gpu, _) = two_socket(delivery);
    let nic = machine.named("nic0").unwrap_or(gpu);
    let bar = machine.fabric().tree().config(nic).bar(0).map_or(BusAddr::new(0), |bar| bar.start());
    let bell = BusAddr::new(bar.as_u64() + 0x1000);
    machine.settle(1_000_000);
    Box::new(move |turns| {
        for turn in 0..turns {
            done(machine.port(gpu).write(How::default(), bell, &(turn as u32).to_le_bytes()));
            while machine.port(nic).next_write().is_none() {
                machine.step();
            }
        }
    })
}

/// A machine of 4096 functions, from its file on.
fn build() -> Turn {
    let text = large_platform();
    Box::new(move |turns| {
        for _ in 0..turns {
            let platform = Platform::parse(&text, "large").unwrap_or_else(|error| unreachable!("{error}"));
            black_box(Builder::new(&platform).build().is_ok());
        }
    })
}

/// Host bridges of a segment each, with as many devices of eight functions as make 4096.
fn large_platform() -> String {
    let mut text = String::from(
        "schema = 1\n[cpu]\nvendor = \"intel\"\nfamily = 6\n[iommu]\nkind = \"vtd\"\nmode = \"translated\"\n\
         [[ram]]\nbase = 0x0\nsize = \"1GiB\"\n",
    );
    for host in 0..4_u64 {
        let cpu = 0x1000_0000_0000 + (host << 40);
        text.push_str(&format!(
            "[[host_bridge]]\nname = \"h{host}\"\nsegment = {host}\npeer = \"forwards\"\n\
             windows = [{{ cpu = {cpu:#x}, bus = {cpu:#x}, size = \"512GiB\", prefetch = true }}]\n"
        ));
        for port in 0..128_u64 {
            let (device, function, bus) = (1 + port / 8, port % 8, 1 + port);
            text.push_str(&format!(
                "[[port]]\nname = \"h{host}p{port}\"\nparent = \"h{host}\"\nkind = \"root\"\n\
                 bdf = \"{host:04x}:00:{device:02x}.{function}\"\n"
            ));
            for function in 0..8 {
                text.push_str(&format!(
                    "[[function]]\nname = \"h{host}p{port}f{function}\"\nparent = \"h{host}p{port}\"\n\
                     bdf = \"{host:04x}:{bus:02x}:00.{function}\"\nmodel = \"plain\"\n\
                     bars = [{{ n = 0, size = \"1MiB\", prefetch = true }}]\n"
                ));
            }
        }
    }
    text
}

/// Words of a megabyte, in turn.
fn words(mut access: impl FnMut(&Striped, Bytes) + 'static) -> Turn {
    let (memory, mut at) = (striped(MIB), 0);
    Box::new(move |turns| {
        for _ in 0..turns {
            access(&memory, Bytes::new(at));
            at = (at + 4104) & (MIB as u64 - 1);
        }
    })
}

fn word_writes() -> Turn {
    words(|memory, at| done(memory.write(at, black_box(&[1; 8]))))
}

fn word_reads() -> Turn {
    words(|memory, at| {
        let mut word = [0; 8];
        done(memory.read(at, &mut word));
        black_box(word);
    })
}

fn fetch_adds() -> Turn {
    words(|memory, at| {
        done(memory.atomic(at, Atomic::FetchAdd(Operand::Double(1))).map(|found| {
            black_box(found);
        }));
    })
}

fn done<E: std::fmt::Display>(outcome: Result<(), E>) {
    if let Err(error) = outcome {
        unreachable!("addresses and lengths are the machine's: {error}");
    }
}
