//! The claims that `peerdma-guest checks` makes inside a guest, group by group.

use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Outcome;
use serde::Deserialize;

/// One group in one guest. Functions are those of the topology `default`, see `copies`.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) kernel: Which,
    /// Whether the host bridge forwards, so that routes between root ports are permitted.
    pub(super) zen: bool,
    /// Functions for vfio-pci.
    pub(super) vfio: &'static [&'static str],
    /// What follows `peerdma-guest checks`, in turn until one ends badly.
    pub(super) words: &'static [&'static str],
    /// How many claims hold at least: one that no longer applies is a change to look at.
    pub(super) fewest: usize,
}

const GROUPS: [Group; 8] = [
    Group {
        name: "dma-buf export",
        kernel: Which::Stock,
        zen: false,
        vfio: &["0000:06:00.0", "0000:04:00.0"],
        words: &["export --target 06:00.0 --nvme 04:00.0"],
        fewest: 72,
    },
    Group {
        name: "type1 below one switch",
        kernel: Which::Stock,
        zen: false,
        vfio: &["0000:05:00.0", "0000:06:00.0"],
        words: &["type1 --edu 05:00.0 --target 06:00.0 --shared 03:00.0"],
        fewest: 48,
    },
    Group {
        name: "type1 across root ports",
        kernel: Which::Stock,
        zen: true,
        vfio: &["0000:08:00.0", "0000:09:00.0"],
        words: &["type1 --edu 08:00.0 --target 09:00.0"],
        fewest: 47,
    },
    Group {
        name: "iommufd below one switch",
        kernel: Which::Small,
        zen: false,
        vfio: &["0000:05:00.0", "0000:06:00.0"],
        words: &["iommufd --edu 05:00.0 --target 06:00.0"],
        fewest: 77,
    },
    Group {
        name: "iommufd across root ports",
        kernel: Which::Small,
        zen: true,
        vfio: &["0000:08:00.0", "0000:09:00.0"],
        words: &["iommufd --edu 08:00.0 --target 09:00.0"],
        fewest: 77,
    },
    Group {
        name: "the contract on type1, stock kernel",
        kernel: Which::Stock,
        zen: false,
        vfio: &["0000:05:00.0"],
        words: &["contract-type1 --edu 05:00.0"],
        fewest: 20,
    },
    // One guest for three, since each closes what it opened.
    Group {
        name: "the contract on type1 and iommufd, memory and BARs",
        kernel: Which::Small,
        zen: false,
        vfio: &["0000:05:00.0", "0000:06:00.0"],
        words: &[
            "contract-type1-bar --edu 05:00.0 --target 06:00.0",
            "contract-iommufd --edu 05:00.0",
            "contract-iommufd-bar --edu 05:00.0 --target 06:00.0",
        ],
        fewest: 76,
    },
    // Memory, a BAR below the same switch, one across root ports and a doorbell in one mapping.
    Group {
        name: "one mapping of everything, on type1 and iommufd",
        kernel: Which::Small,
        zen: true,
        vfio: &["0000:05:00.0", "0000:06:00.0", "0000:08:00.0", "0000:09:00.0"],
        words: &[
            "mixed-type1 --edu 05:00.0 --target 06:00.0 --far 09:00.0 --bell 08:00.0",
            "mixed-iommufd --edu 05:00.0 --target 06:00.0 --far 09:00.0 --bell 08:00.0",
        ],
        fewest: 6,
    },
];

pub(super) fn tests() -> Vec<Test> {
    tests_of("checks", &GROUPS)
}

/// Tests of groups of claims, under a word of the suite's.
pub(super) fn tests_of(word: &'static str, groups: &'static [Group]) -> Vec<Test> {
    let test = |group: &'static Group| {
        Test::new(word, group.name, move |laboratory| {
            let setup = Setup::named(group.kernel, "default").vfio(group.vfio);
            let setup = if group.zen { setup.zen() } else { setup };
            perform(laboratory, &setup, group)
        })
    };
    groups.iter().map(test).collect()
}

/// What the program in the guest prints for each claim.
#[derive(Debug, Deserialize)]
struct Line {
    claim: String,
    result: String,
    #[serde(default)]
    why: Option<String>,
}

/// Boots a guest for one group and counts the claims that held.
fn perform(laboratory: &Laboratory, setup: &Setup, group: &Group) -> Result<Done, Failure> {
    let commands: Vec<String> = group.words.iter().map(|words| format!("peerdma-guest checks {words}")).collect();
    let script = commands.join(" && ");
    let boot = || laboratory.boot(setup, &["sh", "-c", &script]);
    let judged = |outcome: &Outcome| {
        count(&String::from_utf8_lossy(&outcome.stdout), outcome.exit, group.fewest)
            .map_err(|failure| Failure::Found(format!("{failure}\n{}", String::from_utf8_lossy(&outcome.stderr))))
    };
    let outcome = boot()?;
    match judged(&outcome) {
        // The guest says that all claims were tried and none is broken, so that lines were lost on their way (seen once in some
        // hundreds of boots), or a claim is no more: then it is missing again.
        Err(failure) if outcome.exit == 0 => {
            say!("vm: fewer claims than there are, once more: {failure}");
            judged(&boot()?)
        }
        done => done,
    }
}

pub(super) fn count(said: &str, exit: u8, fewest: usize) -> Result<Done, Failure> {
    let mut held = 0;
    let mut broken = Vec::new();
    for text in said.lines().filter(|text| !text.is_empty()) {
        let line: Line = serde_json::from_str(text).map_err(|error| {
            Failure::Found(format!("the guest's checks wrote `{text}`, which is no claim: {error}"))
        })?;
        match line.result.as_str() {
            "held" => held += 1,
            "does-not-apply" => {}
            _ => broken.push(format!("{}: {}", line.claim, line.why.unwrap_or_default())),
        }
    }
    if !broken.is_empty() {
        return Err(Failure::Found(format!("{} claims do not hold:\n  {}", broken.len(), broken.join("\n  "))));
    }
    if exit != 0 || held < fewest {
        let last = said.lines().rfind(|text| !text.is_empty()).unwrap_or("nothing");
        return Err(Failure::Found(format!(
            "the guest's checks ended with {exit} after {held} claims that held, and {fewest} are to hold; they said last: {last}"
        )));
    }
    Ok(Done { claims: held, pairs: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_claim_fails_its_group_and_is_quoted() {
        let said = "{\"group\":\"export\",\"claim\":\"a slice is taken\",\"result\":\"held\"}\n\
                    {\"group\":\"export\",\"claim\":\"nothing is refused\",\"result\":\"broken\",\"why\":\"EPERM\"}\n";
        let failure = count(said, 1, 1).unwrap_err().to_string();
        assert!(failure.contains("nothing is refused: EPERM") && failure.contains("1 claims"), "{failure}");
    }

    #[test]
    fn checks_that_said_nothing_did_not_pass() {
        assert!(count("", 0, 1).is_err());
        assert!(count("{\"claim\":\"a\",\"result\":\"held\"}", 101, 1).is_err());
        assert!(count("not json", 0, 1).is_err());
        assert!(count("{\"claim\":\"a\",\"result\":\"held\"}", 0, 2).is_err());
        assert_eq!(count("{\"claim\":\"a\",\"result\":\"held\"}", 0, 1).unwrap(), Done { claims: 1, pairs: 0 });
    }
}
