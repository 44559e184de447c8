//! `rdma`: bytes between two hosts, each a network namespace with a soft-RoCE adapter.
//!
//! ```text
//! link      makes an adapter on a network interface of its namespace
//! serve     one host: its pool is written and read by the other, and it looks what came
//! ask       the other: writes, reads, sends, and asks for what must be refused
//! alone     one adapter connected to itself
//! limits    as a user with a limit: what the kernel says, and what the ledger says before it
//! ```
//!
//! `serve` and `ask` go through the same rounds, and wait for each other over TCP, by which they also tell each other where
//! their queue pairs are. Claims are printed by whoever sees them: of bytes that is the owner of their destination.
//!
//! - [`link`]: the netlink message. [`host`]: one end with its memory and its peer. [`rounds`]: what both do, side by side.
//! - [`alone`] and [`limits`]: without a peer.
//!
//! Not here: making namespaces and interfaces, which the guest's shell does.

mod alone;
mod host;
mod limits;
mod link;
mod rounds;

use crate::checks::{Line, Stop};
use crate::failure::Failure;
use std::io::Write;

pub(crate) const USAGE: &str = "peerdma-guest rdma link NAME INTERFACE | serve DEVICE ADDRESS:PORT | ask DEVICE ADDRESS:PORT | alone DEVICE | limits DEVICE";

/// What lines are printed under.
const GROUP: &str = "rdma";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut tally = Tally::default();
    match words.as_slice() {
        ["link", name, interface] => return Ok(link::make(name, interface)?),
        ["serve", device, address] => rounds::serve(device, address, &mut tally),
        ["ask", device, address] => rounds::ask(device, address, &mut tally),
        ["alone", device] => alone::run(device, &mut tally),
        ["limits", device] => limits::run(device, &mut tally),
        _ => return Err(Failure::Usage(USAGE.into())),
    }
    match tally.broken {
        0 => Ok(()),
        broken => Err(Failure::Broken { broken, of: tally.all }),
    }
}

/// Claims so far.
#[derive(Default)]
struct Tally {
    all: usize,
    broken: usize,
}

impl Tally {
    /// Prints what came of a claim; whether it held.
    fn claim(&mut self, sentence: &str, outcome: Result<(), Stop>) -> bool {
        self.all += 1;
        let held = !matches!(outcome, Err(Stop::Broken(_)));
        self.broken += usize::from(!held);
        let line = serde_json::to_string(&Line::new(GROUP, sentence, outcome)).unwrap_or_default();
        // With standard output gone there is nobody to tell, and the suite misses the line.
        let _ = writeln!(std::io::stdout(), "{line}");
        held
    }
}
