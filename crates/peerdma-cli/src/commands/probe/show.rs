//! The text of `probe`.

use super::trial::{Row, Trial};
use crate::commands::route;
use crate::exit::Failure;
use crate::output::{self, printable};
use peerdma::route::{Judge, PairVerdict, Verdict};
use std::io::Write;

pub(super) fn print(judge: &Judge<'_>, pair: &PairVerdict, trial: &Trial) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let topology = judge.topology();
    let naming = |id| route::naming(topology, id);
    writeln!(out, "{heading}{} -> {}{heading:#}", naming(pair.initiator), naming(pair.target.function()))?;
    let style = output::style(pair.verdict);
    writeln!(out, "  verdict    {style}{}{style:#}: {}", pair.verdict, route::verdict_words(pair))?;
    if matches!(pair.verdict, Verdict::Refused | Verdict::Unknown) {
        route::write_reasons(&mut out, "why", &judge.reasons(pair))?;
    }
    let cells = |row: &Row| -> Vec<String> {
        let [engine, way, permitted] = [row.engine, row.way.word(), row.permitted.word()].map(str::to_string);
        vec![engine, way, permitted, row.granted.word().into(), row.verified.word().into()]
    };
    let rows: Vec<Vec<String>> = trial.rows.iter().map(cells).collect();
    output::columns(&mut out, &["engine", "direction", "permitted", "granted", "verified"], &rows)?;
    for row in &trial.rows {
        let (engine, way) = (row.engine, row.way.word());
        writeln!(out, "  {engine} {way}, granted: {}", printable(row.granted.evidence()))?;
        writeln!(out, "  {engine} {way}, verified: {}", printable(row.verified.evidence()))?;
        if let Some(contradiction) = &row.contradiction {
            let warning = output::warning();
            writeln!(out, "  {warning}{engine} {way}{warning:#}: {contradiction}")?;
        }
    }
    if !trial.absent.is_empty() {
        writeln!(out, "{heading}engines that are not here{heading:#}")?;
    }
    for absent in &trial.absent {
        for (index, need) in absent.needs.iter().enumerate() {
            let engine = if index == 0 { absent.engine } else { "" };
            writeln!(out, "  {engine:<8} {}", printable(need))?;
        }
    }
    Ok(())
}
