//! The answer as text.

use super::{Answer, Told, lines};
use crate::exit::Failure;
use crate::output::{columns, printable};
use anstyle::AnsiColor;
use peerdma::addr::Bytes;
use peerdma::pin::{Backend, CounterNeed};
use std::io::Write;

pub(super) fn print(told: &Told) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let (need, standing) = (&told.need, &told.standing);
    writeln!(out, "needs      RLIMIT_MEMLOCK of {}", need.limit)?;
    let style = match standing.answer {
        Answer::Suffices | Answer::NotHeld => AnsiColor::Green.on_default(),
        Answer::May => AnsiColor::Yellow.on_default(),
        Answer::Lacks => AnsiColor::Red.on_default(),
    };
    let hard = match (standing.limit.hard, standing.limit.soft) {
        (hard, soft) if hard == soft => String::new(),
        (Some(hard), _) => format!(", hard {hard}"),
        (None, _) => ", hard unlimited".into(),
    };
    let whose = if standing.given { "as given" } else { "of this process" };
    writeln!(out, "limit      {}{hard}, {whose}: {style}{}{style:#}", standing.limit, words(told))?;
    if standing.charged > Bytes::ZERO || !standing.complete {
        let about = if standing.complete { "about" } else { "at least" };
        writeln!(out, "charged    user {} has {about} {} in user->locked_vm now", standing.uid, standing.charged)?;
    }
    writeln!(out)?;
    let rows: Vec<Vec<String>> = need.counters.iter().map(|it| counter_row(told, it)).collect();
    columns(&mut out, &["COUNTER", "WHOSE", "NEED", "HELD TO THE LIMIT"], &rows)?;
    writeln!(out)?;
    let charged = |backend: Backend| {
        let known = need.backends.iter().find(|(it, _)| *it == backend);
        known.map_or("-".into(), |(_, bytes)| bytes.to_string())
    };
    let rows: Vec<Vec<String>> = told
        .through
        .iter()
        .map(|(backend, all)| {
            let rule = backend.rule();
            let counter = rule.counter.map_or("none", |counter| counter.word());
            let basis = rule.counter.map_or("-", |counter| counter.basis().word());
            let words = [backend.word(), counter, basis, rule.counted.words()].map(str::to_string);
            let [backend_word, counter, basis, counted] = words;
            vec![backend_word, charged(*backend), all.limit.to_string(), counter, basis, counted]
        })
        .collect();
    columns(&mut out, &["BACKEND", "CHARGED HERE", "IF ALL WERE", "COUNTER", "PER", "COUNTED IN"], &rows)?;
    if need.limit > Bytes::ZERO {
        writeln!(out, "\nto set a limit of {}:", standing.with_charged)?;
        for line in lines(standing.with_charged) {
            writeln!(out, "  {:<12} {}", line.program, line.line)?;
            let note = if line.note.is_empty() { String::new() } else { format!("; {}", line.note) };
            writeln!(out, "  {:<12}   {}{note}", "", line.place)?;
        }
    }
    Ok(())
}

fn words(told: &Told) -> String {
    let standing = &told.standing;
    let short = |need: Bytes| {
        let soft = standing.limit.soft.unwrap_or(Bytes::new(u64::MAX));
        Bytes::new(need.as_u64().saturating_sub(soft.as_u64()))
    };
    match standing.answer {
        Answer::Suffices => "suffices".into(),
        Answer::NotHeld if short(standing.with_charged) > Bytes::ZERO => format!(
            "this process has CAP_IPC_LOCK and is held to none; without it {} would lack",
            short(standing.with_charged)
        ),
        Answer::NotHeld => "suffices, and this process has CAP_IPC_LOCK and is held to none".into(),
        Answer::May => "suffices if the user has little charged, which cannot be told from here".into(),
        Answer::Lacks if short(told.need.limit) == Bytes::ZERO => {
            format!("{} lacks beside what the user has charged already", short(standing.with_charged))
        }
        Answer::Lacks => format!("{} lacks", short(standing.with_charged)),
    }
}

fn counter_row(told: &Told, it: &CounterNeed) -> Vec<String> {
    let name = |process: peerdma::pin::ProcessId| {
        let name = usize::try_from(process.number()).ok().and_then(|at| told.processes.get(at));
        name.map_or_else(|| process.to_string(), |name| printable(name))
    };
    let whose = it.process.map_or("the user's".into(), name);
    let by = Backend::ALL.into_iter().filter(|backend| {
        told.need.backends.iter().any(|(it, _)| it == backend) && backend.rule().counter == Some(it.counter)
    });
    let by: Vec<&str> = by.map(Backend::word).collect();
    let limited = if it.limited { format!("by {}", by.join(", ")) } else { "no, only raised".into() };
    vec![it.counter.to_string(), whose, it.need.to_string(), limited]
}
