//! What `peerdma fix` prints, carried out.
//!
//! A guest boots and is asked for a fix; a further one boots with each kernel parameter that
//! was printed. Then everything that peerdma foretold is held against what is there:
//!
//! - ACS control words: those of the ports as `parameters` foretells them, all others as
//!   they were;
//! - IOMMU groups: the kernel's own listing against `groups_before` and `groups_after`,
//!   and what merged against `merged` of `fix` and of `whatif`;
//! - the kernel's decision, by the module under `vm/oracle`, against that of `whatif`;
//! - `peerdma verify` with the document of `fix`: 1 before, 0 after.
//!
//! In the first guest the `setpci` lines are carried out too, after all else: words change
//! at once, decisions with them, and groups do not, which `verify` has to call stale.
//!
//! ```text
//! first boot ─ fix.json ─┬─ setpci ─ words, groups, decisions
//!                        ├─ boot with one parameter ─ words, groups, decisions
//!                        └─ boot with the other ─ …
//! ```
//!
//! QEMU has ACS on root ports only, and a pair that meets at a root port turns round there.
//! That is defined where Upstream Forwarding is set, and then leads through the root
//! complex. So a fix exists where the root complex is known to forward, from Zen on,
//! for who wants the decision `BUS_ADDR`; below Zen the honest end of `fix` is 3.

mod ask;
mod boots;
mod compare;
mod document;
mod judge;
mod seen;

use super::setup::{BELOW_ZEN, Laboratory, ZEN};
use super::{Done, Test};
use crate::failure::Failure;
use ask::Asked;
use document::{Fix, Verify};
use judge::Findings;
use seen::Seen;

/// A machine, what is asked of it, and what has to come out.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    topology: &'static str,
    cpu: &'static str,
    /// Words that every boot has.
    cmdline: &'static [&'static str],
    pairs: &'static [Asked<'static>],
    /// Whether only routes below the root count.
    direct: bool,
    found: Found,
}

/// What `fix` has to find.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// Changes of these ports. All parameters that it prints are booted, or the preferred one alone.
    Ports { addresses: &'static [&'static str], boot: Boot },
    /// Nothing, with this exit code; `disable_acs_redir=` is booted all the same, for this port.
    Nothing { exit: u8, disable: &'static str },
}

/// Which of the parameters that were printed are booted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Boot {
    Preferred,
    Both,
}

const CASES: [Case; 3] = [
    Case {
        name: "two root ports, and neither of their neighbours, by either parameter and by setpci",
        topology: "multifunction",
        cpu: ZEN,
        cmdline: &["iommu=pt"],
        pairs: &[("0000:01:00.2", "0000:01:00.3"), ("0000:08:00.0", "0000:0b:00.0")],
        direct: true,
        found: Found::Ports { addresses: &["0000:00:04.0", "0000:00:07.0"], boot: Boot::Both },
    },
    Case {
        name: "a port of another host bridge, beside what the command line already says",
        topology: "pxb",
        cpu: ZEN,
        cmdline: &["iommu=pt", "pci=config_acs=0011001@0000:00:04.0"],
        pairs: &[("0000:82:00.1", "0000:82:00.0"), ("0000:82:00.0", "0000:82:00.1")],
        direct: true,
        found: Found::Ports { addresses: &["0000:80:02.0"], boot: Boot::Preferred },
    },
    Case {
        name: "no fix where nobody knows what the root complex does, although Linux would map the pair",
        topology: "multifunction",
        cpu: BELOW_ZEN,
        cmdline: &[],
        pairs: &[("0000:01:00.2", "0000:01:00.3")],
        direct: false,
        found: Found::Nothing { exit: 3, disable: "0000:00:04.0" },
    },
];

pub(super) fn tests() -> Vec<Test> {
    CASES.map(|case| Test::new("fixes", case.name, move |laboratory| perform(laboratory, &case))).into()
}

fn perform(laboratory: &Laboratory, case: &Case) -> Result<Done, Failure> {
    let first = boots::first(laboratory, case)?;
    let mut findings = Findings::default();
    match case.found {
        Found::Ports { addresses, boot } => {
            judge::before(&mut findings, case, addresses, &first)?;
            judge::written(&mut findings, laboratory, case, &first)?;
            let to_boot = first.fix.to_boot(boot)?;
            for parameter in to_boot {
                let words = [&parameter.argument].into_iter().chain(&first.fix.iommu).map(String::as_str);
                let after = boots::again(laboratory, case, &words.collect::<Vec<_>>(), &first)?;
                judge::booted(&mut findings, laboratory, case, parameter, &first, &after)?;
            }
        }
        Found::Nothing { exit, disable } => {
            judge::nothing(&mut findings, exit, &first);
            let after = boots::again(laboratory, case, &[&format!("pci=disable_acs_redir={disable}")], &first)?;
            judge::disabled(&mut findings, laboratory, case, disable, &first, &after)?;
        }
    }
    findings.done()
}

/// What the first boot brought back.
struct First {
    /// How `fix` ended.
    exit: u8,
    fix: Fix,
    /// Its document, for the other guests.
    document: Vec<u8>,
    seen: Seen,
    /// A capture on this machine, of the same moment.
    capture: std::path::PathBuf,
    written: Option<Written>,
}

/// The lines for setpci, carried out.
struct Written {
    /// What `verify` says before that.
    before: Verified,
    seen: Seen,
    after: Verified,
}

/// What a later boot brought back.
struct After {
    /// The kernel's command line.
    line: String,
    seen: Seen,
    capture: std::path::PathBuf,
    /// Where there is a fix.
    verified: Option<Verified>,
}

/// How `peerdma verify` ended, and what it said.
struct Verified {
    exit: u8,
    said: Verify,
}
