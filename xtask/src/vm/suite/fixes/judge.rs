//! Everything that was foretold, held against what was seen.

use super::ask::{self, Asked, Change};
use super::compare::{self, Foretold};
use super::document::{Parameter, Whatif};
use super::seen::{Seen, Words};
use super::{After, Case, First, Verified, Written};
use crate::failure::Failure;
use crate::vm::pairs::Pair;
use crate::vm::suite::Done;
use crate::vm::suite::setup::Laboratory;
use peerdma::pcie::PciAddr;
use peerdma::pcie::acs::AcsBits;
use std::collections::{BTreeMap, BTreeSet};

/// What held, and what did not, in words.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pairs: usize,
    claims: usize,
    wrong: Vec<String>,
}

impl Findings {
    /// One claim, and what speaks against it.
    fn claim(&mut self, about: &str, against: impl IntoIterator<Item = String>) {
        self.claims += 1;
        self.wrong.extend(against.into_iter().map(|words| format!("{about}: {words}")));
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, about: &str, foretold: &T, seen: &T) {
        self.claim(about, (foretold != seen).then(|| format!("foretold {foretold:?}, seen {seen:?}")));
    }

    /// How the test ends.
    pub(super) fn done(self) -> Result<Done, Failure> {
        if self.wrong.is_empty() {
            return Ok(Done { pairs: self.pairs, claims: self.claims });
        }
        Err(Failure::Found(format!("what was foretold is not what is there:\n  {}", self.wrong.join("\n  "))))
    }
}

/// Where there is a fix: what it is, and the state that it starts from.
pub(super) fn before(findings: &mut Findings, case: &Case, ports: &[&str], first: &First) -> Result<(), Failure> {
    let fix = &first.fix;
    findings.equal("exit code of fix", &0, &first.exit);
    let found: Vec<&str> = fix.ports.iter().map(|port| port.bdf.as_str()).collect();
    findings.equal("ports to change", &ports.to_vec(), &found);
    findings.equal("pairs asked for", &case.pairs.len(), &fix.pairs.len());
    findings.equal("lines for setpci", &ports.len(), &fix.setpci.len());
    let [before, after] = fix.groups()?;
    let open = fix.of_unknown_group()?;
    findings.claim("functions of unknown group", open.iter().map(|function| format!("{function}: root reads it all")));
    findings.claim("groups before", compare::groups(&before, &open, &first.seen.groups));
    let costs_nothing = before == after;
    findings.claim("groups after", costs_nothing.then(|| "the same: this guest shows nothing of groups".to_string()));
    for &pair in case.pairs {
        let as_it_is = first.seen.kernel.decisions.get(&kernel_pair(pair)?);
        let is_direct = as_it_is.is_some_and(|decision| decision.map_type.word() == "BUS_ADDR");
        findings.claim("the pair before", is_direct.then(|| format!("{pair:?} needs no fix")));
    }
    Ok(())
}

/// The lines for setpci, carried out in the first guest.
pub(super) fn written(
    findings: &mut Findings,
    laboratory: &Laboratory,
    case: &Case,
    first: &First,
) -> Result<(), Failure> {
    let Some(Written { before, seen, after }) = &first.written else { return Ok(()) };
    verify(findings, "verify before", before, 1, ("FAIL", "OK"));
    let wanted = exactly(&first.seen.words, &first.fix.wanted()?);
    findings.claim("words after setpci", compare::words(&first.seen.words, &wanted, &seen.words));
    // Formed at boot: whatever is written later, they stay.
    findings.claim("groups after setpci", compare::groups(&first.seen.groups, &BTreeSet::new(), &seen.groups));
    for &pair in case.pairs {
        let then = ask::whatif(&laboratory.peerdma, &first.capture, pair, &Change::Ports(&first.fix.ports))?;
        decided(findings, "after setpci", pair, &then, seen)?;
    }
    verify(findings, "verify after setpci", after, 1, ("OK", "FAIL"));
    findings.equal("stale groups after setpci", &Some(first.fix.merged()?), &after.said.stale()?);
    Ok(())
}

/// A boot with a parameter that was printed.
pub(super) fn booted(
    findings: &mut Findings,
    laboratory: &Laboratory,
    case: &Case,
    parameter: &Parameter,
    first: &First,
    after: &After,
) -> Result<(), Failure> {
    let about = |what: &str| format!("{what} after a boot with {}", parameter.argument);
    let leaves = parameter.leaves()?;
    findings.claim(&about("words"), compare::words(&first.seen.words, &leaves, &after.seen.words));
    let (fix, open) = (&first.fix, first.fix.of_unknown_group()?);
    let [_, groups] = fix.groups()?;
    findings.claim(&about("groups"), compare::groups(&groups, &open, &after.seen.groups));
    let merged = compare::merged(&first.seen.groups, &after.seen.groups);
    findings.equal(&about("merged groups"), &fix.merged()?, &merged);
    if let Some(verified) = &after.verified {
        verify(findings, &about("verify"), verified, 0, ("OK", "OK"));
    }
    let foretold = foretold(findings, laboratory, case, first, after)?;
    if first.fix.prefers(parameter) {
        // The preferred one names every bit, so nothing hangs on what firmware left.
        findings.claim(&about("assumed"), foretold.into_iter().flat_map(|then| then.assumed).map(|one| one.evidence));
    }
    if parameter.suffices {
        for (&pair, foretold) in case.pairs.iter().zip(&fix.pairs) {
            let now = verdict(laboratory, after, pair)?;
            findings.equal(&about(&format!("verdict of {pair:?}")), &foretold.then, &now);
        }
    }
    Ok(())
}

/// A boot with `disable_acs_redir=` for one port, which `fix` did not print.
pub(super) fn disabled(
    findings: &mut Findings,
    laboratory: &Laboratory,
    case: &Case,
    port: &str,
    first: &First,
    after: &After,
) -> Result<(), Failure> {
    let cleared = [(address(port)?, Foretold { clear: AcsBits::REDIRECT.bits(), set: 0 })].into();
    findings.claim("words after disable_acs_redir", compare::words(&first.seen.words, &cleared, &after.seen.words));
    foretold(findings, laboratory, case, first, after).map(drop)
}

/// What `whatif` said of a boot with this line, for each pair.
fn foretold(
    findings: &mut Findings,
    laboratory: &Laboratory,
    case: &Case,
    first: &First,
    after: &After,
) -> Result<Vec<Whatif>, Failure> {
    let merged = compare::merged(&first.seen.groups, &after.seen.groups);
    let mut all = Vec::new();
    for &pair in case.pairs {
        let then = ask::whatif(&laboratory.peerdma, &first.capture, pair, &Change::Boot(&after.line))?;
        let about = format!("whatif of a boot with {}", after.line);
        decided(findings, &about, pair, &then, &after.seen)?;
        findings.equal(&format!("{about}: merged groups"), &then.merged()?, &merged);
        if then.assumed.is_empty() {
            let now = verdict(laboratory, after, pair)?;
            findings.equal(&format!("{about}: verdict of {pair:?}"), &then.then.verdict, &now);
        }
        all.push(then);
    }
    Ok(all)
}

/// The verdict on the words that a boot left.
fn verdict(laboratory: &Laboratory, after: &After, pair: Asked<'_>) -> Result<String, Failure> {
    let there = ask::route(&laboratory.peerdma, &after.capture, pair)?.pairs.into_iter().next();
    let there = there.ok_or_else(|| Failure::Stopped(format!("peerdma route has no verdict on {pair:?}")))?;
    Ok(there.verdict)
}

/// Where there is no fix: how that is told.
pub(super) fn nothing(findings: &mut Findings, exit: u8, first: &First) {
    findings.equal("exit code of fix", &exit, &first.exit);
    let fix = &first.fix;
    let printed = !fix.ports.is_empty() || !fix.setpci.is_empty() || fix.names_parameters();
    findings.claim("nothing to do", printed.then(|| format!("printed all the same: {fix:?}")));
}

/// The kernel's decision, against that which a change was to bring.
fn decided(findings: &mut Findings, about: &str, pair: Asked<'_>, then: &Whatif, seen: &Seen) -> Result<(), Failure> {
    let pair = kernel_pair(pair)?;
    let decision = seen.kernel.decisions.get(&pair);
    let decision = decision.ok_or_else(|| Failure::Stopped(format!("the kernel was not asked about {pair}")))?;
    findings.pairs += 1;
    findings.claim(about, compare::decision(pair, &then.then.kernel.map_type, decision.map_type));
    Ok(())
}

/// How `verify` ended, what it said of all ports, and of the groups.
fn verify(findings: &mut Findings, about: &str, verified: &Verified, exit: u8, (ports, groups): (&str, &str)) {
    findings.equal(about, &(exit, ([ports].into(), groups)), &(verified.exit, verified.said.words()));
}

/// The kernel's order: whose memory, then who reaches for it.
fn kernel_pair((initiator, target): Asked<'_>) -> Result<Pair, Failure> {
    Ok(Pair { provider: address(target)?, client: address(initiator)? })
}

fn address(text: &str) -> Result<PciAddr, Failure> {
    text.parse().map_err(|_| Failure::Stopped(format!("{text} is no address")))
}

/// Every bit foretold: those that are not to change stay as they were.
fn exactly(before: &Words, wanted: &BTreeMap<PciAddr, Foretold>) -> BTreeMap<PciAddr, Foretold> {
    let whole = |(&address, foretold): (&PciAddr, &Foretold)| {
        let word = (before.get(&address).copied().unwrap_or_default() & !foretold.clear) | foretold.set;
        (address, Foretold { clear: !word, set: word })
    };
    wanted.iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_claim_fails_the_test_and_is_told() {
        let mut findings = Findings::default();
        findings.claim("groups", None);
        assert_eq!(findings.done().unwrap(), Done { pairs: 0, claims: 1 });
        let mut findings = Findings::default();
        findings.equal("ports", &1, &1);
        findings.equal("exit code", &0, &3);
        let said = findings.done().unwrap_err().to_string();
        assert!(said.contains("exit code: foretold 0, seen 3") && !said.contains("ports"), "{said}");
    }

    #[test]
    fn setpci_is_to_leave_the_bits_that_it_does_not_name() {
        let port: PciAddr = "00:04.0".parse().unwrap();
        let before: Words = [(port, 0x1d)].into();
        let wanted = exactly(&before, &[(port, Foretold { clear: 0x0c, set: 0x40 })].into());
        let wrong = |word| compare::words(&before, &wanted, &[(port, word)].into()).len();
        assert_eq!((wrong(0x51), wrong(0x11), wrong(0x53), wrong(0x50)), (0, 1, 1, 1));
    }
}
