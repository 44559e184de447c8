//! One accelerator that works for other processes, each with its own PASID and all at the same addresses.
//!
//! The test is the server: it runs the machine. Clients are this program again, in processes of their own ([`client`]); each
//! shares its memory by the sharing protocol, and drives its context alone: rings, lists and buffers lie in that
//! memory, at addresses that are the same in each.

mod client;
mod server;

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use server::Server;
use std::time::{Duration, Instant};

/// Where every client has its memory, to itself and to the accelerator.
const BASE: u64 = 0x7000_0000_0000;
/// How much that is.
const SIZE: u64 = 4 << 20;
/// In the memory: rings, the bell, a list, what nobody is to write to, results, and two long buffers.
const RINGS: u64 = 0;
const BELL: u64 = 0x1000;
const LIST: u64 = 0x2000;
const KEPT: u64 = 0x3000;
const RESULT: u64 = 0x4000;
const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const LONG: u64 = 0x10_0000;
/// Where each client alone has the page of its results once more.
const PRIVATE: [u64; 2] = [0x7100_0000_0000, 0x7200_0000_0000];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn at(offset: u64) -> ProcVa {
    ProcVa::new(BASE + offset)
}

fn all() -> AddrRange<ProcVa> {
    AddrRange::new(ProcVa::new(BASE), Bytes::new(SIZE)).unwrap()
}

#[test]
fn two_processes_get_their_own_sums_from_lists_at_the_same_address() {
    let mut server = Server::new("sums");
    let mut clients = [server.client("summer"), server.client("summer")];
    for _ in 0..3 {
        clients.iter().for_each(|client| server.wait_for(client, "summed"));
    }
    clients.iter_mut().for_each(|client| client.tell("end"));
    clients.iter().for_each(|client| server.wait_for(client, "as it was"));
    assert!(server.brought(0) > 0 && server.brought(1) > 0, "pages came as they were asked for");
}

#[test]
fn a_hostile_process_reaches_nothing_of_the_other() {
    let mut server = Server::new("hostile");
    let mut honest = server.client("summer");
    let hostile = server.client("hostile");
    server.wait_for(&honest, "summed");
    let before = server.bytes(0, RESULT, 0x1000);
    server.wait_for(&hostile, "refused what is the other's");
    server.wait_for(&hostile, "wrote to its own");
    server.wait_for(&hostile, "said nonsense");
    // Whatever it said, the other one's work goes on, on memory that is as it was.
    server.wait_for_more_of(&honest);
    assert_eq!(server.bytes(0, RESULT, 0x1000), before);
    honest.tell("end");
    server.wait_for(&honest, "as it was");
    assert!(server.refused(1) > 0, "its requests for what is not its own were answered with a no");
}

#[test]
fn a_process_that_is_unbound_is_not_written_to_any_more() {
    let mut server = Server::new("unbound");
    let mut honest = server.client("summer");
    let copier = server.client("copier");
    server.wait_for(&copier, "copying");
    server.wait_until(|server| server.bytes(1, TO, 1) != [0]);
    server.unbind(1);
    let before = server.bytes(1, TO, LONG);
    server.wait_for_more_of(&honest);
    assert!(server.bytes(1, TO, LONG) == before, "something arrived after the unbinding");
    honest.tell("end");
    server.wait_for(&honest, "as it was");
}

#[test]
fn a_process_that_is_killed_at_work_leaves_the_other_unharmed() {
    let mut server = Server::new("killed");
    let mut honest = server.client("summer");
    let mut copier = server.client("copier");
    server.wait_for(&copier, "copying");
    server.wait_for(&honest, "summed");
    copier.kill();
    server.wait_until(|server| server.is_gone(1));
    let before = server.bytes(1, TO, LONG);
    server.wait_for_more_of(&honest);
    assert!(server.bytes(1, TO, LONG) == before, "the accelerator goes on for who is dead");
    honest.tell("end");
    server.wait_for(&honest, "as it was");
}
