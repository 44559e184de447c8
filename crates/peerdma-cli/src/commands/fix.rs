//! `peerdma fix`: the smallest set of ports to change for chosen pairs, and how.
//!
//! Prints; writes nothing.

mod document;
mod print;

use crate::args::FixArguments;
use crate::commands::isolation::Isolation;
use crate::document::fix::FixDocument;
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use crate::progress::Progress;
use crate::select;
use peerdma::pcie::acs::AcsBits;
use peerdma::route::fix::{self, BootParameters, FixOptions, Outcome, Plan};
use peerdma::route::lint::passthrough_parameter;
use peerdma::route::{AddressKind, Gate, Judge, Target};
use peerdma::topology::FunctionId;

/// Everything that is printed, in either form.
struct Answer<'l> {
    loaded: &'l Loaded,
    plan: Plan,
    parameters: Option<BootParameters>,
    isolation: Isolation<'l>,
    notes: Vec<String>,
    /// What to boot with besides, where a pair's initiator sits in a translated domain of
    /// the kernel's, or may.
    passthrough: Option<&'static str>,
}

pub(crate) fn run(arguments: &FixArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<FixDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let loaded = input::load(&arguments.input)?;
    let pairs = pairs(&loaded, &arguments.pairs)?;
    let options = FixOptions { need: arguments.need.into(), direct_only: arguments.direct };
    let plan = {
        let _progress = Progress::start("trying changes");
        fix::plan(&loaded.topology, &pairs, &options)
    };
    let answer = Answer::new(&loaded, plan);
    let printed = if arguments.output.json {
        output::json(&answer.document())
    } else {
        output::notes(&loaded.notes).and_then(|()| answer.print())
    };
    output::concluded(answer.exit(), printed)
}

/// Initiators and targets, by turns.
fn pairs(loaded: &Loaded, words: &[String]) -> Result<Vec<(FunctionId, Target)>, Failure> {
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(Failure::usage("fix takes pairs, FROM TO [FROM TO]…, such as peerdma fix nvme0 mlx5_0"));
    }
    let pair = |pair: &[String]| {
        let initiator = select::function(&loaded.topology, &pair[0])?;
        Ok((initiator, select::target(&loaded.topology, &pair[1])?.target))
    };
    words.chunks_exact(2).map(pair).collect()
}

impl<'l> Answer<'l> {
    fn new(loaded: &'l Loaded, plan: Plan) -> Self {
        let topology = &loaded.topology;
        let parameters = BootParameters::for_ports(topology, plan.ports(), &plan.pairs);
        let isolation = Isolation::new(topology, &plan.after.topology);
        let mut notes: Vec<String> = parameters.iter().flat_map(|parameters| parameters.notes.clone()).collect();
        if !plan.proven_smallest {
            notes.push(
                "fewer ports may do: not everything that decides it was read, or there are too many combinations to try \
                 them all"
                    .into(),
            );
        }
        notes.extend(plan.after.assumed.iter().map(ToString::to_string));
        let may_translate = plan
            .pairs
            .iter()
            .any(|pair| pair.then.address.kind() == AddressKind::Bus && pair.then.domain.translates() != Some(false));
        let word = passthrough_parameter(topology.machine());
        if matches!(plan.outcome, Outcome::Found(_) | Outcome::NotNeeded) {
            notes.extend(domain_notes(&plan));
        }
        let passthrough = may_translate.then_some(word);
        Self { loaded, plan, parameters, isolation, notes, passthrough }
    }

    fn exit(&self) -> Exit {
        match &self.plan.outcome {
            Outcome::NotNeeded | Outcome::Found(_) => Exit::Done,
            Outcome::Impossible { .. } => Exit::Refused,
            Outcome::FactsMissing { .. } => Exit::Unknown,
        }
    }

    fn address(&self, function: FunctionId) -> String {
        self.loaded.topology.function(function).address().to_string()
    }
}

/// What the initiators' domains have to do with the addresses they must be given.
fn domain_notes(plan: &Plan) -> Vec<String> {
    let judge = Judge::new(&plan.after.topology);
    let mut notes: Vec<String> = Vec::new();
    for pair in &plan.pairs {
        let reasons = judge.reasons(&pair.then).into_iter().filter(|reason| reason.gate == Gate::IommuMode);
        for note in reasons.map(|reason| reason.to_string()) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

/// The bits in small letters, as arguments and documents name them.
fn words(bits: AcsBits) -> Vec<String> {
    bits.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect()
}
