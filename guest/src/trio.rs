//! `trio`: three processes and one BAR, through a thousand disturbances.
//!
//! ```text
//! owner    has the device and an engine, shares the BAR by the protocol between processes, and does things to the device
//! vmm      attaches, shows the BAR to a running guest, which stores to it without a pause
//! hog      attaches, maps the BAR for its CPU, stores to it, and never lets go
//! ```
//!
//! The engine is an `edu` of the owner's, which writes to the BAR by DMA. What happened is never asked of whom it is about: the
//! owner looks at the BAR through a mapping of its own that nothing announced is told of, and the file behind the BAR is
//! read on the host when all is over.
//!
//! - [`child`]: a process and what it says. [`vmm`], [`hog`]: the roles. [`owner`]: the device, open and shared.
//! - [`bar_move`]: before that, one process with all three, whose machine moves the BAR.
//! - [`rounds`]: what is done to it, drawn from a seed. [`hostile`]: a process that holds on, and a device that goes in the
//!   middle of a deed.

mod bar_move;
mod child;
mod hog;
mod hostile;
mod owner;
mod rounds;
mod vmm;

use crate::checks::{Line, Stop, address};
use crate::failure::Failure;
use hostile::When;
use owner::{Owner, Target};
use peerdma::pcie::PciAddr;
use peerdma::pcie::caps::{self, Lookup, standard};
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::type1::Type1Space;
use rounds::Round;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

pub(crate) const USAGE: &str = "peerdma-guest trio --via type1|iommufd --edu BDF --target BDF --nvme BDF [--rounds N] [--seed S] | trio vmm SOCKET | trio hog SOCKET";

/// What lines are printed under.
const GROUP: &str = "trio";

/// Far longer than anything takes under emulation on a machine that does other work.
const LONG: Duration = Duration::from_secs(60);

/// Which engine and target, and how much is done to them.
struct Asked {
    edu: PciAddr,
    target: PciAddr,
    /// A drive with a persistent memory region.
    drive: PciAddr,
    rounds: u32,
    seed: u64,
    iommufd: bool,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let role = |outcome: Result<(), Stop>| match outcome {
        Ok(()) => Ok(()),
        Err(Stop::Broken(why) | Stop::DoesNotApply(why)) => {
            // Its owner reads this line, and breaks the claim with it.
            child::say(&format!("failed: {why}"));
            Err(Failure::Broken { broken: 1, of: 1 })
        }
    };
    match words.as_slice() {
        ["vmm", socket] => return role(vmm::run(Path::new(socket))),
        ["hog", socket] => return role(hog::run(Path::new(socket))),
        _ => {}
    }
    let asked = parse(&words).map_err(|why| Failure::Usage(format!("{why}\n{USAGE}")))?;
    let mut tally = Tally::default();
    if asked.iommufd {
        claims::<IommufdSpace>(&asked, &mut tally);
    } else {
        claims::<Type1Space>(&asked, &mut tally);
    }
    match tally.broken {
        0 => Ok(()),
        broken => Err(Failure::Broken { broken, of: tally.all }),
    }
}

fn parse(words: &[&str]) -> Result<Asked, String> {
    let (mut edu, mut target, mut drive, mut rounds, mut seed, mut iommufd) = (None, None, None, 50, 1, None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{word} takes a value"))?;
        let number = || value.parse().map_err(|_| format!("{word} takes a number, not `{value}`"));
        match *word {
            "--edu" => edu = Some(address(value)?),
            "--target" => target = Some(address(value)?),
            "--nvme" => drive = Some(address(value)?),
            "--rounds" => rounds = u32::try_from(number()?).map_err(|_| format!("{value} rounds are too many"))?,
            "--seed" => seed = number()?,
            "--via" => {
                iommufd = match *value {
                    "type1" => Some(false),
                    "iommufd" => Some(true),
                    other => return Err(format!("--via takes type1 or iommufd, not `{other}`")),
                }
            }
            other => return Err(format!("no option is called `{other}`")),
        }
    }
    let missing = |what: &str| format!("name it with {what}");
    Ok(Asked {
        edu: edu.ok_or_else(|| missing("--edu"))?,
        target: target.ok_or_else(|| missing("--target"))?,
        drive: drive.ok_or_else(|| missing("--nvme"))?,
        iommufd: iommufd.ok_or_else(|| missing("--via"))?,
        rounds,
        seed,
    })
}

fn claims<S: crate::checks::Via>(asked: &Asked, tally: &mut Tally) {
    tally.claim(
        "a BAR that a virtual machine moves is at its new place for processor and engine, and at the old one for nobody; where one cannot go all stay",
        bar_move::all::<S>(asked.edu, Target::memory(asked.target)),
    );
    let broken = tally.broken;
    let mut owner = match Owner::<S>::open(asked.edu, Target::memory(asked.target)) {
        Ok(owner) => owner,
        Err(stop) => return tally.claim("three processes are joined at one BAR", Err(stop)),
    };
    tally.claim("three processes are joined at one BAR", owner.joined());
    let (figures, outcome) = rounds::all(&mut owner, asked.rounds, asked.seed);
    let sentence = format!(
        "the guest's stores, DMA and the CPU's view stop and go on together, and nothing lands meanwhile: {figures}"
    );
    tally.claim(&sentence, outcome);
    if broken < tally.broken {
        // What follows begins where the rounds ended.
        return;
    }
    tally.claim(
        "a process that does not let go keeps a reset waiting by name and alone, and its end lets the reset go on",
        hostile::holds_on(&mut owner),
    );
    for when in When::ALL {
        let sentence =
            format!("a device that is removed {} is gone for everybody, and a new export starts anew", when.words());
        match hostile::removed(owner, when) {
            Ok(anew) => owner = anew,
            Err(stop) => return tally.claim(&sentence, Err(stop)),
        }
        tally.claim(&sentence, Ok(()));
    }
    let outcome = rounds::one(&mut owner, Round::OffAndOn, true);
    tally.claim("what came back after all that goes off and on as before", outcome);
    tally.claim("closed, the memory keeps what it holds, as the host sees", rounds::last(owner, "held"));
    tally.claim(
        "a drive in D3 is announced, its persistent memory is out of everybody's reach, and back in D0 for all",
        drive::<S>(asked.edu, asked.drive),
    );
}

/// The same processes at the persistent memory of a drive, which goes to D3.
fn drive<S: crate::checks::Via>(edu: PciAddr, drive: PciAddr) -> Result<(), Stop> {
    let mut owner = Owner::<S>::open(edu, Target::drive(drive))?;
    owner.joined()?;
    let config = owner.now()?.device.with(|device| device.config_space());
    let config = config.ok_or_else(|| Stop::broken("the drive is closed"))??;
    let Lookup::At(at) = caps::standard_list(&config).find(standard::POWER_MANAGEMENT) else {
        return Err(Stop::broken("the drive has no power management"));
    };
    for meanwhile in [false, true] {
        rounds::one(&mut owner, Round::Sleep(at), meanwhile)?;
    }
    rounds::one(&mut owner, Round::Anew, true)?;
    rounds::last(owner, "held-by-drive")
}

/// Claims so far.
#[derive(Default)]
struct Tally {
    all: usize,
    broken: usize,
}

impl Tally {
    fn claim(&mut self, sentence: &str, outcome: Result<(), Stop>) {
        self.all += 1;
        self.broken += usize::from(matches!(outcome, Err(Stop::Broken(_))));
        let line = serde_json::to_string(&Line::new(GROUP, sentence, outcome)).unwrap_or_default();
        // With standard output gone there is nobody to tell, and the suite misses the line.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let parsed = |line: &str| parse(&line.split_whitespace().collect::<Vec<_>>()).map(|asked| asked.rounds);
        assert_eq!(parsed("--via type1 --edu 05:00.0 --target 06:00.0 --nvme 04:00.0 --rounds 1000"), Ok(1000));
        for (line, word) in [
            ("--via type1 --edu 05:00.0", "--target"),
            ("--via fast", "`fast`"),
            ("--rounds many", "`many`"),
            ("--seed", "--seed"),
            ("--fast 1", "`--fast`"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(word), "{line}: {why}");
        }
    }
}
