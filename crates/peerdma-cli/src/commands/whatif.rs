//! `peerdma whatif`: the verdict after a change, beside the verdict now.

use crate::args::WhatifArguments;
use crate::commands::isolation::Isolation;
use crate::commands::route::{naming, write_reasons};
use crate::document::whatif::{MergedDocument, WhatifDocument, addresses, groups};
use crate::document::{Pair, SCHEMA, Source};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output;
use crate::select;
use peerdma::pcie::acs::AcsBits;
use peerdma::route::change::{self, Change, ChangeError};
use peerdma::route::groups::Merged;
use peerdma::route::{Judge, PairVerdict};
use peerdma::topology::{FunctionId, Topology};
use std::collections::BTreeMap;
use std::io::Write;

pub(crate) fn run(arguments: &WhatifArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<WhatifDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let (Some(from), Some(to)) = (&arguments.pair.from_function, &arguments.pair.to_function) else {
        return Err(Failure::usage("whatif needs FROM and TO, such as peerdma whatif mlx5_0 card1 --iommu identity"));
    };
    let loaded = input::load(&arguments.unchanged_input())?;
    let topology = &loaded.topology;
    let initiator = select::function(topology, from)?;
    let asked = select::target(topology, to)?;
    let changes = changes(topology, arguments)?;
    if changes.is_empty() {
        return Err(Failure::usage(
            "nothing changes: give --clear, --set, --iommu, --kernel, --cpu, --move or --cmdline",
        ));
    }
    let after = change::apply(topology, &changes).map_err(unfit)?;
    let (judge, later) = (Judge::new(topology), Judge::new(&after.topology));
    let (now, then) = (judge.judge(initiator, &asked.target), later.judge(initiator, &asked.target));
    let isolation = Isolation::new(topology, &after.topology);
    let printed = if arguments.output.json {
        let documents = |list: &[Merged]| list.iter().map(|merged| MergedDocument::new(topology, merged)).collect();
        output::json(&WhatifDocument {
            schema: SCHEMA,
            source: Source::new(&loaded),
            now: Pair::new(&judge, &now),
            then: Pair::new(&later, &then),
            groups_before: groups(topology, &isolation.before),
            groups_after: groups(topology, &isolation.after),
            groups_unknown: addresses(topology, &isolation.unknown),
            merged: documents(&isolation.merged),
            split: documents(&isolation.split),
            assumed: after.assumed.iter().cloned().map(Into::into).collect(),
        })
    } else {
        output::notes(&loaded.notes).and_then(|()| {
            print(&judge, &now, &later, &then)?;
            let mut out = anstream::stdout().lock();
            isolation.print(&mut out, "  isolation  ")?;
            Ok(write_reasons(&mut out, "assumed", &after.assumed)?)
        })
    };
    output::concluded(Exit::judge([then.permits(arguments.pair.need.into())]), printed)
}

/// The changes asked for, in the order of their options.
fn changes(topology: &Topology, arguments: &WhatifArguments) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    changes.extend(arguments.input.kernel.map(Change::Kernel));
    changes.extend(arguments.input.cpu.clone().map(Change::Cpu));
    changes.extend(arguments.cmdline.clone().map(Change::CommandLine));
    changes.extend(arguments.input.iommu.map(|mode| Change::Iommu(mode.into())));
    let none = AcsBits::empty();
    let clears = arguments.clear.iter().map(|wanted| (wanted.address, wanted.bits, none));
    let sets = arguments.set.iter().map(|wanted| (wanted.address, none, wanted.bits));
    // One change a port, so that a bit asked for both ways is found.
    let mut ports: BTreeMap<FunctionId, (AcsBits, AcsBits)> = BTreeMap::new();
    for (address, clear, set) in clears.chain(sets) {
        let bits = ports.entry(select::function(topology, &address.to_string())?).or_insert((none, none));
        *bits = (bits.0 | clear, bits.1 | set);
    }
    changes.extend(ports.into_iter().map(|(function, (clear, set))| Change::Acs { function, clear, set }));
    for text in &arguments.moves {
        let (function, below) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{text:?}: --move takes FUNCTION=PORT, such as mlx5_0=0000:00:02.0"))
        })?;
        let (function, below) = (select::function(topology, function)?, select::function(topology, below)?);
        changes.push(Change::Move { function, below });
    }
    Ok(changes)
}

fn unfit(error: ChangeError) -> Failure {
    Failure::usage(error.to_string())
}

fn print(judge: &Judge<'_>, now: &PairVerdict, later: &Judge<'_>, then: &PairVerdict) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let topology = judge.topology();
    let (from, to) = (naming(topology, now.initiator), naming(topology, now.target.function()));
    writeln!(out, "{heading}{from} -> {to}{heading:#}")?;
    writeln!(out, "  {heading}{:<10} {:<24} then{heading:#}", "", "now")?;
    let mut row = |title: &str, now: String, then: String| {
        let then = if now == then { "the same".to_string() } else { then };
        writeln!(out, "  {title:<10} {now:<24} {then}")
    };
    row("verdict", now.verdict.to_string(), then.verdict.to_string())?;
    row("Linux", now.kernel.map_type.to_string(), then.kernel.map_type.to_string())?;
    row("read", now.read.to_string(), then.read.to_string())?;
    row("write", now.write.to_string(), then.write.to_string())?;
    row("atomic", now.atomic.to_string(), then.atomic.to_string())?;
    row("address", now.address.kind().to_string(), then.address.kind().to_string())?;
    let mode = |pair: &PairVerdict| pair.domain.mode.map_or("unknown".to_string(), |mode| mode.to_string());
    row("iommu", mode(now), mode(then))?;
    let mut assumed = later.assumed(then);
    assumed.retain(|reason| !judge.assumed(now).contains(reason));
    write_reasons(&mut out, "then", &later.reasons(then))?;
    Ok(write_reasons(&mut out, "taken", &assumed)?)
}
