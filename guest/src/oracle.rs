//! `oracle`: what the kernel decides for every pair, beside captures of the same moment.
//!
//! Virtual functions come first, where asked for. A round is then one state of the ACS
//! registers: what the boot left, then one round for each `--acs`. In every round
//! `peerdma capture` runs as root and as nobody, then the kernel is asked through the
//! module under `vm/oracle`. Nothing changes the machine between the three, so the answers
//! belong together.
//!
//! Files left in the folder, with N counting rounds from 0: `N.root.peerdma`,
//! `N.user.peerdma`, `N.kernel` (the module's file, as it is), `N.acs.json` (what was
//! written and what stuck; not for round 0).

use crate::failure::Failure;
use crate::{acs, virtual_functions};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const USAGE: &str = "peerdma-guest oracle --peerdma PROGRAM --module P2P_ORACLE.KO --out FOLDER \
[--virtual-functions N] [--acs WORD[,WORD]...]...
           N: virtual functions to make of each NVMe drive that can have them, before anything else
           WORD: ACS control word in hexadecimal; the functions that have ACS get them in turn";

/// Nobody's, by convention; a number, since the guest has no list of users to look in.
const NOBODY: u32 = 65534;
/// The kernel function that the module calls.
const CALC: &str = "calc_map_type_and_dist";
/// The module's file.
const ANSWERS: &str = "/proc/p2p_oracle";

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    peerdma: PathBuf,
    module: PathBuf,
    out: PathBuf,
    /// Virtual functions of each function that can have them.
    virtual_functions: Option<u16>,
    /// One list of control words per round after the first.
    acs: Vec<Vec<u16>>,
}

impl Arguments {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let usage = || Failure::Usage(USAGE.into());
        let (mut peerdma, mut module, mut out) = (None, None, None);
        let (mut virtual_functions, mut acs) = (None, Vec::new());
        for pair in arguments.chunks(2) {
            let [option, value] = pair else { return Err(usage()) };
            match option.as_str() {
                "--peerdma" => peerdma = Some(PathBuf::from(value)),
                "--module" => module = Some(PathBuf::from(value)),
                "--out" => out = Some(PathBuf::from(value)),
                "--virtual-functions" => virtual_functions = Some(value.parse().map_err(|_| usage())?),
                "--acs" => {
                    let words = value.split(',').map(|word| u16::from_str_radix(word, 16));
                    acs.push(words.collect::<Result<_, _>>().map_err(|_| usage())?);
                }
                _ => return Err(usage()),
            }
        }
        match (peerdma, module, out) {
            (Some(peerdma), Some(module), Some(out)) => Ok(Self { peerdma, module, out, virtual_functions, acs }),
            _ => Err(usage()),
        }
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments)?;
    if let Some(count) = arguments.virtual_functions
        && virtual_functions::make(count)? == 0
    {
        return Err(Failure::Nothing { what: "no NVMe drive with SR-IOV", next: "give the guest one" });
    }
    load(&arguments.module)?;
    round(&arguments, 0)?;
    for (index, words) in arguments.acs.iter().enumerate() {
        let written = acs::write_in_turn(words)?;
        let path = arguments.out.join(format!("{}.acs.json", index + 1));
        let text = serde_json::to_vec(&written).map_err(std::io::Error::from)?;
        fs::write(&path, text).map_err(Failure::file("write", &path))?;
        round(&arguments, index + 1)?;
    }
    Ok(())
}

fn round(arguments: &Arguments, number: usize) -> Result<(), Failure> {
    capture(arguments, &format!("{number}.root.peerdma"), None)?;
    capture(arguments, &format!("{number}.user.peerdma"), Some(NOBODY))?;
    let path = arguments.out.join(format!("{number}.kernel"));
    let answers = fs::read(ANSWERS).map_err(Failure::file("read", Path::new(ANSWERS)))?;
    fs::write(&path, answers).map_err(Failure::file("write", &path))
}

/// Runs `peerdma capture`; the capture comes through a pipe, so that a user who may
/// not write the folder can take one.
fn capture(arguments: &Arguments, file: &str, user: Option<u32>) -> Result<(), Failure> {
    let mut command = Command::new(&arguments.peerdma);
    command.args(["capture", "-o", "-"]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let bytes = output(command)?;
    let path = arguments.out.join(file);
    fs::write(&path, bytes).map_err(Failure::file("write", &path))
}

fn load(module: &Path) -> Result<(), Failure> {
    let symbols = Path::new("/proc/kallsyms");
    let text = fs::read_to_string(symbols).map_err(Failure::file("read", symbols))?;
    let address = address_of(&text, CALC).ok_or(Failure::NoSymbol {
        symbol: CALC,
        next: "run as root; if it is there under a longer name, build the kernel with the flags of vm/oracle/README.md",
    })?;
    let mut insmod = Command::new("insmod");
    insmod.arg(module).arg(format!("calc={address:#x}"));
    output(insmod).map(drop)
}

/// The address of a function of exactly this name. Zeros are what the kernel shows to
/// those who may not know.
fn address_of(kallsyms: &str, symbol: &str) -> Option<u64> {
    kallsyms.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        (words.nth(1)? == symbol && address != 0).then_some(address)
    })
}

fn output(mut command: Command) -> Result<Vec<u8>, Failure> {
    let program = format!("{command:?}");
    let output =
        command.stdin(Stdio::null()).output().map_err(|source| Failure::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Failure::Ended { program, status: output.status, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_clone_and_a_hidden_address_are_not_the_function() {
        let symbols = "ffffffff81000000 T _stext\nffffffff81400010 t calc_map_type_and_dist.isra.0\n\
                       0000000000000000 t calc_map_type_and_dist\nffffffff81400020 t calc_map_type_and_dist\t[m]\n";
        assert_eq!(address_of(symbols, CALC), Some(0xffff_ffff_8140_0020));
        assert_eq!(address_of(symbols, "_etext"), None);
        assert_eq!(address_of("nonsense\n\n", CALC), None);
    }

    #[test]
    fn every_acs_option_is_a_round_of_its_own() {
        let words = ["--peerdma", "/p", "--acs", "001d,0", "--module", "/m", "--out", "/o", "--acs", "4"];
        let arguments = Arguments::parse(&words.map(String::from)).unwrap();
        assert_eq!(arguments.acs, [vec![0x1d, 0], vec![4]]);
        for wrong in [&words[..7], &words[..4], &["--acs", "xyz"]] {
            let wrong: Vec<String> = wrong.iter().map(|word| (*word).to_string()).collect();
            assert!(matches!(Arguments::parse(&wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
