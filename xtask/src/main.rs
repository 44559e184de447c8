//! Checks and chores of this repository; `cargo xtask` alone lists them.
//!
//! One subcommand, one module. Each prints what it looks at and ends with 0 (as it
//! should be), 1 (something was found, or the check could not be carried out) or
//! 2 (wrong usage).

#[macro_use]
mod say;

mod cases;
mod failure;
mod fuzz;
mod layers;
mod models;
mod mutants;
mod oracle;
mod questions;
mod repo;
mod soak;
mod source;
mod table;
mod vm;

use failure::Failure;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

struct Subcommand {
    name: &'static str,
    does: &'static str,
    examples: &'static [&'static str],
    /// Options, for the help on this subcommand alone.
    options: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const SUBCOMMANDS: [Subcommand; 9] = [
    Subcommand {
        name: "layers",
        does: "imports and dependencies against the arrows of the layering; `unsafe` only where it may be",
        examples: &["cargo xtask layers"],
        options: "",
        run: layers::run,
    },
    Subcommand {
        name: "questions",
        does: "docs/questions.md: every question answered, and every test named there exists",
        examples: &["cargo xtask questions"],
        options: "",
        run: questions::run,
    },
    Subcommand {
        name: "models",
        does: "threads over page tables and other lock-free parts, in many orders of their accesses",
        examples: &["cargo xtask models", "cargo xtask models walker"],
        options: "",
        run: models::run,
    },
    Subcommand {
        name: "oracle",
        does: "resolver against emulator, on random machines until so many requests were sent",
        examples: &["cargo xtask oracle", "cargo xtask oracle --requests 5000000 --seed 7"],
        options: "",
        run: oracle::run,
    },
    Subcommand {
        name: "soak",
        does: "devices that share buffers while everything happens to their memory, for so long; memory is the witness",
        examples: &["cargo xtask soak", "cargo xtask soak --operations 20000000 --seed 7"],
        options: "",
        run: soak::run,
    },
    Subcommand {
        name: "mutants",
        does: "breaks the code in a copy, line by line as xtask/mutants.toml says, and expects the named test to fail",
        examples: &["cargo xtask mutants", "cargo xtask mutants whitelist"],
        options: "",
        run: mutants::run,
    },
    Subcommand {
        name: "cases",
        does: "machines with known answers, in a folder that you give, checked through the command line",
        examples: &["cargo xtask cases ../cases"],
        options: "",
        run: cases::run,
    },
    Subcommand {
        name: "fuzz",
        does: "runs the fuzz targets for a while; with --planted, proves that each can find something",
        examples: &[
            "cargo xtask fuzz --seconds 30",
            "cargo xtask fuzz --runs 1000000 lspci_text",
            "cargo xtask fuzz --planted",
        ],
        options: "",
        run: fuzz::run,
    },
    Subcommand {
        name: "vm",
        does: "a real kernel in QEMU: run a program in a guest, build the small kernel, or run the guest suite",
        examples: &[
            "cargo xtask vm run -- peerdma matrix --all",
            "cargo xtask vm run --user --cpu EPYC --iommu amd -- peerdma topo",
            "cargo xtask vm run --kernel iommufd --topology deep -- sh -c 'ls /sys/bus/pci/devices'",
            "cargo xtask vm kernel",
            "cargo xtask vm test",
        ],
        options: vm::OPTIONS,
        run: vm::run,
    },
];

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let outcome = match words {
        Ok(arguments) => perform(&arguments),
        Err(word) => Err(Failure::Usage(format!("{} is no text", word.display()))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "xtask: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn perform(arguments: &[String]) -> Result<(), Failure> {
    match arguments.split_first() {
        None => {
            say!("{}", help().trim_end());
            Ok(())
        }
        Some((first, _)) if is_help(first) => {
            say!("{}", help().trim_end());
            Ok(())
        }
        Some((first, rest)) => match SUBCOMMANDS.iter().find(|subcommand| subcommand.name == first) {
            // After `--` the words are another program's.
            Some(subcommand) if rest.iter().take_while(|word| *word != "--").any(|argument| is_help(argument)) => {
                say!("{}{}", help_on(subcommand).trim_end(), subcommand.options);
                Ok(())
            }
            Some(subcommand) => (subcommand.run)(rest),
            None => Err(Failure::Usage(format!("no subcommand `{first}`"))),
        },
    }
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "help" | "-h" | "--help")
}

fn help() -> String {
    let mut text = String::from("Checks and chores of this repository.\n\nUsage: cargo xtask <SUBCOMMAND>\n");
    for subcommand in &SUBCOMMANDS {
        text.push('\n');
        text.push_str(&help_on(subcommand));
    }
    text.push_str("\nEverything at once, as before every merge: bash .ci/run\n");
    text
}

fn help_on(subcommand: &Subcommand) -> String {
    let mut text = format!("  {:<10} {}\n", subcommand.name, subcommand.does);
    for example in subcommand.examples {
        text.push_str(&format!("  {:<10}   {example}\n", ""));
    }
    text
}
