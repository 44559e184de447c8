//! Programs that run inside a virtual machine of `cargo xtask vm`.
//!
//! Each asks the kernel it runs on a question that only a real kernel answers, and
//! writes the answers down without judging them: the comparison with peerdma's own
//! answers is made outside, where it can be repeated from the files.
//!
//! One static binary, since a guest holds little more than a shell. It needs root,
//! and it changes the machine it runs on (ACS registers, kernel modules, probes), so
//! it has no business anywhere else.

mod acs;
mod checks;
mod drives;
mod failure;
mod nvme_pairs;
mod oracle;
mod pins;
mod probes;
mod rdma;
mod setpci;
mod trio;
mod virtual_functions;

use failure::Failure;
use std::io::Write;
use std::process::ExitCode;

struct Subcommand {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const SUBCOMMANDS: [Subcommand; 7] = [
    Subcommand { name: "oracle", usage: oracle::USAGE, run: oracle::run },
    Subcommand { name: "nvme-pairs", usage: nvme_pairs::USAGE, run: nvme_pairs::run },
    Subcommand { name: "setpci", usage: setpci::USAGE, run: setpci::run },
    Subcommand { name: "pins", usage: pins::USAGE, run: pins::run },
    Subcommand { name: "rdma", usage: rdma::USAGE, run: rdma::run },
    Subcommand { name: "trio", usage: trio::USAGE, run: trio::run },
    Subcommand { name: "checks", usage: checks::USAGE, run: checks::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = arguments.split_first().and_then(|(name, rest)| {
        SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name).map(|subcommand| (subcommand, rest))
    });
    let outcome = match chosen {
        Some((subcommand, rest)) => (subcommand.run)(rest),
        None => Err(Failure::Usage(
            SUBCOMMANDS.iter().map(|subcommand| subcommand.usage).collect::<Vec<_>>().join("\n       "),
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut text = failure.to_string();
            let mut source = std::error::Error::source(&failure);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            // With standard error gone there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "peerdma-guest: {text}");
            ExitCode::from(failure.exit_code())
        }
    }
}
