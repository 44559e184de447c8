//! The same copies in a guest and in the emulated machine of one file.
//!
//! `two-engines.toml` has an engine and a memory in three relations: below one switch, behind
//! root ports of their own, and as functions of one device. In the guest the engine is an `edu`,
//! in the emulated machine the DMA engine, and either is told two things:
//!
//! - *mapped*: a page of memory into the peer's BAR and back, through the mapping that VFIO
//!   makes; the rules are asked first, and a refused pair is copied with `--force` only. The
//!   emulated engine gets the IOVAs that the guest's got.
//! - *by bus address*: within the peer's BAR, with the numbers in its register.
//!
//! Where both answer alike, [`Expected::Both`] says so once. The one difference is QEMU's and
//! known: below a switch a bus address needs no IOMMU, on hardware and in the emulated machine,
//! while QEMU shows it to the IOMMU, which under translation stops it.

use super::emulated::{Emulated, Granted, USUAL};
use super::outcome::{Came, Landed};
use super::{said, same_machine, setup, topology_of};
use crate::failure::Failure;
use crate::vm::guest::Job;
use crate::vm::suite::setup::{Laboratory, expect_exit};
use crate::vm::suite::{Done, Test};
use crate::vm::topology::{self, Exported};
use peerdma::route::kernel_view::{KernelView, MapType};
use peerdma::topology::{Machine, Topology};
use peerdma_emu::platform::Platform;

const FILE: &str = include_str!("../../topology/platform/two-engines.toml");

/// Has an edu copy by bus addresses.
const WIRE: &str = include_str!("wire.sh");

/// Engine and memory, by name and by address: the file's, and the guest's too.
#[derive(Clone, Copy, Debug)]
struct Pair {
    engine: (&'static str, &'static str),
    memory: (&'static str, &'static str),
}

/// Below one switch.
const NEAR: Pair = Pair { engine: ("engine0", "0000:03:00.0"), memory: ("memory0", "0000:04:00.0") };
/// Behind root ports of their own.
const FAR: Pair = Pair { engine: ("engine1", "0000:05:00.0"), memory: ("memory1", "0000:06:00.0") };
/// Two functions of one device, below a root port that redirects.
const SLOT: Pair = Pair { engine: ("engine2", "0000:07:00.0"), memory: ("memory2", "0000:07:00.1") };

const FUNCTIONS: [&str; 6] = [NEAR.engine.1, NEAR.memory.1, FAR.engine.1, FAR.memory.1, SLOT.engine.1, SLOT.memory.1];

/// How a copy is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Through a mapping, if the rules permit the pair.
    Mapped,
    /// Through a mapping, whatever the rules say.
    Forced,
    /// Without a mapping.
    BusAddress,
}

/// What has to become of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// The rules refuse, and nothing is touched.
    Refused,
    /// The same in both machines.
    Both(Landed),
    /// Not in QEMU, which shows to the IOMMU what a switch would deliver.
    NotInQemu,
}

impl Expected {
    fn in_guest(self) -> Came {
        match self {
            Self::Refused => Came::Refused,
            Self::Both(landed) => Came::Landed(landed),
            Self::NotInQemu => Came::Landed(Landed::Nothing),
        }
    }

    fn in_emulated(self) -> Came {
        match self {
            Self::Refused => Came::Refused,
            Self::Both(landed) => Came::Landed(landed),
            Self::NotInQemu => Came::Landed(Landed::All),
        }
    }
}

use Expected::{Both, NotInQemu, Refused};
use Landed::{All, Nothing};
use Way::{BusAddress, Forced, Mapped};

/// A change of the file, and what becomes of copies then.
struct Case {
    name: &'static str,
    /// Texts of the file and what stands in their places.
    changes: &'static [(&'static str, &'static str)],
    /// Whether functions can be given to VFIO, which needs an IOMMU.
    vfio: bool,
    copies: &'static [(Pair, Way, Expected)],
}

const CASES: [Case; 3] = [
    Case {
        name: "translated, and Linux does not know the host bridge",
        changes: &[],
        vfio: true,
        copies: &[
            (NEAR, BusAddress, NotInQemu),
            (FAR, BusAddress, Both(Nothing)),
            (SLOT, BusAddress, Both(Nothing)),
            (NEAR, Mapped, Both(All)),
            (FAR, Mapped, Refused),
            (FAR, Forced, Both(All)),
            (SLOT, Mapped, Refused),
            (SLOT, Forced, Both(All)),
        ],
    },
    Case {
        name: "passed through, and Linux takes the host bridge to forward",
        changes: &[("family = 0x0f", "family = 0x17"), ("\"translated\"", "\"identity\"")],
        vfio: true,
        copies: &[
            (NEAR, BusAddress, Both(All)),
            (FAR, BusAddress, Both(All)),
            (SLOT, BusAddress, Both(All)),
            (NEAR, Mapped, Both(All)),
            (FAR, Mapped, Both(All)),
            (SLOT, Mapped, Both(All)),
        ],
    },
    Case {
        name: "without an IOMMU",
        changes: &[("kind = \"vtd\"\nmode = \"translated\"", "kind = \"none\"")],
        vfio: false,
        copies: &[(NEAR, BusAddress, Both(All)), (FAR, BusAddress, Both(All)), (SLOT, BusAddress, Both(All))],
    },
];

pub(super) fn tests() -> Vec<Test> {
    let test = |case: &'static Case| {
        let name = format!("the same copies in a guest and in the emulated machine: {}", case.name);
        Test::new("platforms", name, move |laboratory| perform(laboratory, case))
    };
    CASES.iter().map(test).collect()
}

/// The file as the case has it.
fn platform(case: &Case) -> Result<Platform, Failure> {
    let text = case.changes.iter().try_fold(FILE.to_string(), |text, (from, to)| {
        if text.contains(from) { Ok(text.replacen(from, to, 1)) } else { Err(from) }
    });
    let text = text.map_err(|from| Failure::Stopped(format!("two-engines.toml does not say `{from}`")))?;
    Platform::parse(&text, "two-engines.toml").map_err(|error| Failure::Stopped(error.to_string()))
}

fn perform(laboratory: &Laboratory, case: &Case) -> Result<Done, Failure> {
    let platform = platform(case)?;
    let exported = topology::from_platform(&platform).map_err(|refusals| Failure::Stopped(refusals.to_string()))?;
    let setup = setup(&exported).vfio(if case.vfio { &FUNCTIONS } else { &[] });
    let mut job = Job::new(vec!["sh".into(), "-c".into(), script(case)]);
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    expect_exit(&outcome, 0, "the guest's copies")?;
    let guest = topology_of(&outcome)?;
    let same = same_machine(&platform, &exported, &Emulated::new(&platform)?, &guest)?;
    same_addresses(&exported, &guest)?;
    let mut wrong = Vec::new();
    for (at, (pair, way, expected)) in case.copies.iter().enumerate() {
        let (in_guest, granted) = match way {
            BusAddress => (Came::Landed(said::words(&outcome, at)?), None),
            Mapped | Forced => said::copy(&outcome, at)?,
        };
        let emulated = in_emulated(&platform, *pair, *way, granted.unwrap_or(USUAL), guest.machine())?;
        for (machine, came, expected) in
            [("guest", in_guest, expected.in_guest()), ("emulated machine", emulated, expected.in_emulated())]
        {
            if came != expected {
                let (engine, memory) = (pair.engine.0, pair.memory.0);
                wrong.push(format!(
                    "{engine} to {memory}, {way:?}: in the {machine} {came}, and it should be that {expected}"
                ));
            }
        }
    }
    if wrong.is_empty() {
        Ok(Done { pairs: 0, claims: same + case.copies.len() })
    } else {
        Err(Failure::Found(wrong.join("\n  ")))
    }
}

/// What becomes of a copy in the emulated machine of a platform, one that nothing has happened to.
///
/// `known` is a machine with the kernel whose rules are asked.
fn in_emulated(platform: &Platform, pair: Pair, way: Way, granted: Granted, known: &Machine) -> Result<Came, Failure> {
    let emulated = Emulated::new(platform)?;
    let (engine, memory) = (pair.engine.0, pair.memory.0);
    match way {
        Mapped if !permits(&emulated, pair, known)? => Ok(Came::Refused),
        Mapped | Forced => emulated.mapped(engine, memory, granted).map(Came::Landed),
        BusAddress => emulated.by_bus_address(engine, memory).map(Came::Landed),
    }
}

/// Everything that the guest does, results in files named by position.
fn script(case: &Case) -> String {
    let mut script = format!("{WIRE}\npeerdma capture -o /out/guest.peerdma || exit\n");
    for (at, (Pair { engine, memory }, way, _)) in case.copies.iter().enumerate() {
        let (engine, memory) = (engine.1, memory.1);
        let copy = format!("peerdma copy {engine} {memory}/bar2 --engine edu --verify --json");
        script.push_str(&match way {
            BusAddress => format!("wire {at} {engine} {memory} {:#x}\n", said::pattern(at)),
            Mapped => format!("{copy} > /out/{at}.json; echo $? > /out/{at}.exit\n"),
            Forced => format!("{copy} --force > /out/{at}.json; echo $? > /out/{at}.exit\n"),
        });
    }
    script.push_str("true\n");
    script
}

/// The file is written with the numbers that firmware hands out.
fn same_addresses(exported: &Exported, guest: &Topology) -> Result<(), Failure> {
    match exported.twins.iter().find(|twin| guest.at(twin.file).is_none()) {
        Some(twin) => Err(Failure::Found(format!("{}: the guest shows nothing at {}", twin.name, twin.file))),
        None => Ok(()),
    }
}

/// Whether Linux's rules permit a pair, by the emulated machine's registers and the guest's kernel.
fn permits(emulated: &Emulated, pair: Pair, known: &Machine) -> Result<bool, Failure> {
    let topology = emulated.kernel.topology().clone();
    let machine =
        Machine { kernel: known.kernel, p2pdma_configured: known.p2pdma_configured, ..topology.machine().clone() };
    let topology = topology.with_machine(machine);
    let at = |address: &str| address.parse().ok().and_then(|address| topology.at(address));
    let (Some(target), Some(initiator)) = (at(pair.memory.1), at(pair.engine.1)) else {
        return Err(Failure::Stopped(format!(
            "the emulated machine does not have {} or {}",
            pair.engine.1, pair.memory.1
        )));
    };
    let map_type = KernelView::new(&topology).decide(target, initiator).map_type;
    Ok(matches!(map_type, MapType::BusAddr | MapType::ThruHostBridge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::pcie::Fact;

    /// The half of each case that needs no guest.
    #[test]
    fn every_copy_comes_out_in_the_emulated_machine_as_its_case_says() {
        let known = Machine { kernel: "7.2".parse().ok(), p2pdma_configured: Fact::Known(true), ..Machine::default() };
        for case in &CASES {
            let platform = platform(case).unwrap();
            for &(pair, way, expected) in case.copies {
                let came = in_emulated(&platform, pair, way, USUAL, &known).unwrap();
                assert_eq!(came, expected.in_emulated(), "{}: {pair:?} {way:?}", case.name);
            }
        }
    }

    /// That bytes arrive is no habit of the comparison.
    #[test]
    fn a_root_complex_that_forwards_otherwise_is_seen_in_the_bytes() {
        let landed = |peer: &str, pair| {
            let text = FILE.replacen("\"forwards\"", peer, 1);
            let platform = Platform::parse(&text, "two-engines.toml").unwrap();
            in_emulated(&platform, pair, Forced, USUAL, &Machine::default()).unwrap()
        };
        assert_eq!(landed("\"none\"", FAR), Came::Landed(Nothing));
        assert_eq!(landed("\"all_ones\"", FAR), Came::Landed(Landed::Something));
    }

    /// IOVAs of the guest would else be the emulated engine's, and other functions bound to VFIO.
    #[test]
    fn the_file_numbers_buses_as_firmware_does() {
        for case in &CASES {
            let exported = topology::from_platform(&platform(case).unwrap()).unwrap();
            let mut foretold: Vec<_> = exported.model.functions().iter().map(|planned| planned.address).collect();
            let mut written: Vec<_> = exported.twins.iter().map(|twin| twin.file).collect();
            foretold.sort();
            written.sort();
            assert_eq!(written, foretold, "{}", case.name);
        }
    }
}
