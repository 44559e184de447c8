//! The same comparison on a kernel that nobody prepared.
//!
//! No module there: `peerdma-guest nvme-pairs` moves data directly between the memory of
//! one NVMe controller and the disk of another and reports, per ordered pair, the errno
//! and what a probe saw `pci_p2pdma_map_type` return. Few pairs, but the kernel that
//! people run, asked by a driver that people use.

use super::compare::Mismatch;
use super::kernel::{MapType, Pair};
use super::ours::{self, Ours, Scope};
use crate::failure::Failure;
use crate::vm::guest::Outcome;
use crate::vm::machine::Iommu;
use crate::vm::topology::{self, Model};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Linux `include/uapi/asm-generic/errno-base.h`; what the block layer makes of a refusal.
const EINVAL: i32 = 22;

/// One guest of the stock kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StockPlan {
    pub(crate) name: &'static str,
    pub(crate) topology: &'static str,
    pub(crate) cpu: &'static str,
    pub(crate) iommu: Iommu,
    pub(crate) cmdline: &'static [&'static str],
    /// Kinds of answers that must occur, so that the guest shows what it is for.
    pub(crate) occur: &'static [MapType],
}

/// Each kind of answer from each side of the processor's rule, and what the command line changes.
pub(crate) const STOCK_PLANS: [StockPlan; 4] = [
    StockPlan {
        name: "nvme-intel",
        topology: "default",
        cpu: "qemu64",
        iommu: Iommu::Intel,
        cmdline: &[],
        occur: &[MapType::BusAddr, MapType::NotSupported],
    },
    StockPlan {
        name: "nvme-zen",
        topology: "multifunction",
        cpu: "EPYC",
        iommu: Iommu::Intel,
        cmdline: &[],
        occur: &[MapType::BusAddr, MapType::ThruHostBridge],
    },
    StockPlan {
        name: "nvme-disable",
        topology: "multifunction",
        cpu: "qemu64",
        iommu: Iommu::Intel,
        cmdline: &["pci=disable_acs_redir=0000:00:04.0", "iommu=pt"],
        occur: &[MapType::BusAddr, MapType::NotSupported],
    },
    StockPlan {
        name: "nvme-none",
        topology: "multifunction",
        cpu: "qemu64",
        iommu: Iommu::None,
        cmdline: &[],
        occur: &[MapType::BusAddr, MapType::NotSupported],
    },
];

impl StockPlan {
    /// What the guest is to run, as root: a capture, then the I/O.
    pub(crate) const SCRIPT: &str = "peerdma capture -o /out/root.peerdma && peerdma-guest nvme-pairs > /out/nvme";

    /// Where the devices stand.
    ///
    /// # Errors
    ///
    /// No topology of this name.
    pub(crate) fn model(&self) -> Result<Model, Failure> {
        topology::named(self.topology).ok_or_else(|| {
            Failure::Stopped(format!("no topology is called {}, which guest {} names", self.topology, self.name))
        })
    }
}

/// One ordered pair, as the guest wrote it.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
struct Line {
    provider: String,
    client: String,
    write_errno: i32,
    read_errno: i32,
    map_types: Vec<i32>,
}

/// What one guest showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    /// Ordered pairs of two controllers.
    pub(crate) pairs: usize,
    /// In words.
    pub(crate) mismatches: Vec<String>,
}

/// Compares what a guest brought back with what `peerdma` says about its capture.
///
/// # Errors
///
/// A guest that did not do what it was to do, or a program that failed. Mismatches are no
/// error here.
pub(crate) fn check(plan: &StockPlan, outcome: &Outcome, peerdma: &Path, folder: &Path) -> Result<Shown, Failure> {
    let stopped = |what: &str| Failure::Stopped(format!("guest {}: {what}", plan.name));
    let said = || String::from_utf8_lossy(&outcome.stderr).trim().to_string();
    if outcome.exit != 0 {
        return Err(stopped(&format!("its program ended with {}: {}", outcome.exit, said())));
    }
    let file = |name: &str| {
        outcome.files.get(name).ok_or_else(|| stopped(&format!("it did not leave {name}; what it said: {:?}", said())))
    };
    let path = folder.join(format!("{}.root.peerdma", plan.name));
    fs::write(&path, file("root.peerdma")?).map_err(|error| Failure::io("write", &path, &error))?;
    let ours = ours::decide(peerdma, &path, Scope::Devices, std::iter::empty())?;
    let text = String::from_utf8_lossy(file("nvme")?).into_owned();
    let lines: Result<Vec<Line>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines.map_err(|error| stopped(&format!("a pair cannot be read: {error}")))?;
    for kind in plan.occur {
        if !lines.iter().any(|line| line.map_types.iter().any(|&number| MapType::from_number(number) == Some(*kind))) {
            return Err(stopped(&format!("no pair was answered with {kind}, which it is there for")));
        }
    }
    let mismatches =
        lines.iter().flat_map(|line| differences(line, &ours)).map(|words| format!("{}: {words}", plan.name));
    let pairs = lines.iter().filter(|line| line.provider != line.client).count();
    Ok(Shown { pairs, mismatches: mismatches.collect() })
}

/// What is wrong with one pair, in words.
fn differences(line: &Line, ours: &Ours) -> Vec<String> {
    let (Ok(provider), Ok(client)) = (line.provider.parse(), line.client.parse()) else {
        return vec![format!("{} and {} are no addresses", line.provider, line.client)];
    };
    let pair = Pair { provider, client };
    let mut wrong = Vec::new();
    let Some(answer) = ours.answers.iter().find(|answer| answer.pair == pair) else {
        return vec![Mismatch::NotOurs { pair }.to_string()];
    };
    if line.map_types.is_empty() {
        wrong.push(format!("{pair}: the kernel was not seen to decide"));
    }
    for &number in &line.map_types {
        match MapType::from_number(number) {
            Some(kernel) if answer.map_type == Some(kernel) => {}
            Some(kernel) => wrong.push(Mismatch::MapType { pair, ours: answer.map_type, kernel }.to_string()),
            None => wrong.push(format!("{pair}: the kernel answered {number}, which is no map type for this")),
        }
    }
    let expected = if answer.map_type == Some(MapType::NotSupported) { EINVAL } else { 0 };
    for (what, errno) in [("write", line.write_errno), ("read", line.read_errno)] {
        if errno != expected {
            let ours = answer.map_type.map_or("UNKNOWN", MapType::word);
            wrong.push(format!("{pair}: ours {ours}, but the {what} ended with errno {errno} and not {expected}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::ours::Answer;
    use super::*;

    fn line(errno: i32, map_types: &[i32]) -> Line {
        Line {
            provider: "0000:03:00.0".into(),
            client: "0000:07:00.0".into(),
            write_errno: errno,
            read_errno: errno,
            map_types: map_types.into(),
        }
    }

    fn ours(map_type: Option<MapType>) -> Ours {
        let pair = Pair { provider: "0000:03:00.0".parse().unwrap(), client: "0000:07:00.0".parse().unwrap() };
        let answer = Answer { pair, map_type, distance: 4, distance_is_lower_bound: false };
        Ours { answers: vec![answer], table: Some("7.3".into()) }
    }

    #[test]
    fn errno_and_map_type_have_to_agree_with_us_both() {
        let refused = ours(Some(MapType::NotSupported));
        assert_eq!(differences(&line(EINVAL, &[2, 2]), &refused), [""; 0]);
        assert_eq!(differences(&line(0, &[2, 2]), &refused).len(), 2);
        assert_eq!(differences(&line(EINVAL, &[2, 3]), &refused).len(), 1);
        let direct = ours(Some(MapType::BusAddr));
        assert_eq!(differences(&line(0, &[3]), &direct), [""; 0]);
        assert_eq!(differences(&line(121, &[3]), &direct).len(), 2);
    }

    #[test]
    fn io_that_asked_nobody_and_a_pair_of_unknown_verdict_are_wrong() {
        assert_eq!(differences(&line(0, &[]), &ours(Some(MapType::BusAddr))).len(), 1);
        assert_eq!(differences(&line(0, &[3]), &ours(None)).len(), 1);
        assert_eq!(differences(&line(0, &[0]), &ours(Some(MapType::BusAddr))).len(), 1);
    }
}
