//! The crate's page tables through Linux's sequences.

use crate::data::{self, Case, Step, Table, Value};
use crate::oracle::Layout;
use crate::oracle::decoder::Decoded;
use crate::oracle::model::merged;
use crate::oracle::sequence::{Op, Pair};
use crate::oracle::subject::{Failed, Subject, decode, device_write, open};
use std::collections::BTreeMap;

/// How one step of a case went.
enum Outcome {
    As,
    /// The types leave no way to ask.
    Unspeakable,
}

fn perform(subject: &dyn Subject, case: &Case, step: &Step) -> Result<Outcome, String> {
    let agrees = |agrees: bool, told: String| if agrees { Ok(Outcome::As) } else { Err(told) };
    match step {
        Step::Map { iova, pa, len, rights, fault } => {
            let mapped = subject.map(*iova, *pa, *len, *rights);
            let agreed = match (&mapped, fault) {
                (Err(Failed::Unspeakable), _) => return Ok(Outcome::Unspeakable),
                (Ok(()), None) => true,
                (Err(Failed::Map(errno, before)), Some((name, after))) => errno == name && before == after,
                _ => false,
            };
            agrees(agreed, format!("{step:x?} gives {mapped:x?}"))
        }
        Step::Unmap { iova, len, returned } => {
            let removed = subject.unmap(*iova, *len);
            agrees(removed == *returned, format!("{step:x?} gives {removed:#x}"))
        }
        Step::DeviceWrite { iova, fault } => {
            let written = device_write(subject, &case.shape, *iova);
            agrees(written.as_ref().err() == fault.as_ref(), format!("{step:x?} gives {written:?}"))
        }
        Step::Dirty { iova, len, clear, fault, ranges } => {
            let (result, found) = subject.dirty(*iova, *len, *clear);
            let as_linux = result.err() == fault.as_deref();
            // Neighbours are one range here.
            let same = merged(found.iter().copied()) == merged(ranges.iter().copied());
            agrees(as_linux && same, format!("{step:x?} gives {result:?}, {found:x?}"))
        }
    }
}

/// Every nonzero entry, table by table; the addresses of tables are the crate's own.
fn same_tables(decoded: &Decoded, tables: &[Table]) -> Result<(), String> {
    let numbers: BTreeMap<u64, usize> = decoded.tables.iter().enumerate().map(|(nth, table)| (table.at, nth)).collect();
    if decoded.tables.len() != tables.len() {
        return Err(format!("{} tables and not {}", decoded.tables.len(), tables.len()));
    }
    for (nth, (table, literal)) in decoded.tables.iter().zip(tables).enumerate() {
        // A table that holds nothing is nowhere in particular.
        let from = literal.from.is_none_or(|from| from == table.from || nth == 0);
        if table.level != literal.level || !from || table.entries.len() != literal.entries.len() {
            return Err(format!("table {nth}: {table:x?} and not {literal:x?}"));
        }
        for ((index, entry), (expected_index, value)) in table.entries.iter().zip(&literal.entries) {
            let expected = match value {
                Value::Leaf(entry) => *entry,
                Value::Table(number, bits) => decoded.tables[*number].at | bits,
            };
            if (index, *entry) != (expected_index, expected) {
                let below = numbers.get(&(entry & 0xf_ffff_ffff_f000));
                return Err(format!(
                    "table {nth}: {entry:#x} (table {below:?}) in {index} and not {expected:#x} in {expected_index}"
                ));
            }
        }
    }
    Ok(())
}

fn replay(case: &Case) -> Result<u32, String> {
    let subject = open(&case.shape)?;
    let mut unspeakable = 0;
    for step in &case.steps {
        match perform(&*subject, case, step)? {
            Outcome::As => {}
            Outcome::Unspeakable => unspeakable += 1,
        }
    }
    let decoded = decode(&*subject, &case.shape)?;
    same_tables(&decoded, &case.tables)?;
    if subject.tables() != case.tables.len() {
        return Err(format!("{} tables are counted", subject.tables()));
    }
    for probe in &case.probes {
        let (found, level) = subject.walk(probe.iova);
        let read = found.map(|found| (found.pa, found.size, found.entry));
        let expected = probe.hit.map(|hit| (hit.pa, hit.size, hit.entry));
        if (read, level) != (expected, probe.level) {
            return Err(format!("a walk to {:#x} finds {read:x?} at level {level:?}, not {expected:x?}", probe.iova));
        }
    }
    Ok(unspeakable)
}

/// Sequences made by chance in which a block falls on pages, which Linux drops without a word.
const REPLACING: [&str; 3] = ["S58", "S59", "T52"];

#[test]
fn every_sequence_that_is_no_quirk_ends_in_linuxs_tables() {
    let mut complaints = Vec::new();
    let mut agreed = 0;
    let mut unspeakable = 0;
    for mut case in data::all().into_iter().filter(|case| !case.quirk) {
        case.shape.replaces_tables = REPLACING.contains(&case.name.as_str());
        match replay(&case) {
            Ok(steps) => {
                agreed += 1;
                unspeakable += steps;
            }
            Err(why) => complaints.push(format!("{} ({}): {why}", case.name, case.says)),
        }
    }
    assert!(complaints.is_empty(), "{} disagree:\n{}", complaints.len(), complaints.join("\n"));
    // Ten pages without any access, and lengths of nothing or beyond 2^64, which no type holds.
    assert_eq!((agreed, unspeakable), (282, 10 + 8));
}

#[test]
fn the_model_foresees_linuxs_answers_too() {
    let foreseen = |case: &&Case| !case.quirk && !REPLACING.contains(&case.name.as_str());
    for case in data::all().iter().filter(foreseen) {
        let mut pair = Pair::new(&case.shape).unwrap();
        for step in &case.steps {
            let op = match *step {
                Step::Map { iova, pa, len, rights, .. } => Op::Map { iova, pa, len, rights },
                Step::Unmap { iova, len, .. } => Op::Unmap { iova, len },
                Step::Dirty { iova, len, clear, .. } => Op::Dirty { iova, len, clear },
                Step::DeviceWrite { iova, .. } => Op::Write { iova },
            };
            // Linux's hook writes where no device may.
            if case.name == "V62" {
                continue;
            }
            pair.apply(op).unwrap_or_else(|why| panic!("{}: {why}", case.name));
        }
        pair.end().unwrap_or_else(|why| panic!("{}: {why}", case.name));
    }
}

/// What is done here instead in one of the sequences in which Linux surprises.
struct Decision {
    case: &'static str,
    /// What each step gives: `ok`, an error, a length, ranges.
    gives: &'static [&'static str],
    /// Whether the final tables are Linux's all the same.
    same_tables: bool,
}

/// All fourteen. A mapping is refused or made whole, never made elsewhere; what is asked for in
/// parts of pages is not done; nothing that is mapped is replaced; dirty answers are whole.
const DECISIONS: [Decision; 14] = [
    // Half a page is not unmapped.
    Decision { case: "V39", gives: &["ok", "0", "0"], same_tables: false },
    Decision { case: "X23", gives: &["ok", "0", "0"], same_tables: false },
    Decision { case: "A23", gives: &["ok", "0", "0"], same_tables: false },
    // The end of a run has to fit the output width as its start does.
    Decision { case: "V48", gives: &["ERANGE"], same_tables: false },
    // The hole of the space takes nothing, and no run crosses it.
    Decision { case: "X28", gives: &["ERANGE", "ok"], same_tables: false },
    Decision { case: "X29", gives: &["ERANGE"], same_tables: false },
    // The last page of a large leaf is as dirty as the others.
    Decision { case: "A69", gives: &["ok", "ok", "40200000+10000"], same_tables: true },
    Decision { case: "A70", gives: &["ok", "ok", "ok", "40200000+10000"], same_tables: true },
    Decision { case: "A71", gives: &["ok", "ok", "40208000+4000", "40208000+1000"], same_tables: true },
    Decision {
        case: "A72",
        gives: &["ok", "ok", "ok", "ok", "ok", "ok", "40200000+200000 40800000+800000 200000000+40000000"],
        same_tables: true,
    },
    // What is mapped is not replaced by a larger leaf.
    Decision { case: "S16", gives: &["ok", "EEXIST"], same_tables: false },
    Decision { case: "T14", gives: &["ok", "EEXIST"], same_tables: false },
    // Holes are passed over, and what begins before a query is answered for its part of it.
    Decision { case: "S54", gives: &["ok", "ok", "712345000+1000 712347000+1000"], same_tables: false },
    Decision { case: "S55", gives: &["ok", "100300000+200000"], same_tables: true },
];

fn told(result: Result<(), String>) -> String {
    result.err().unwrap_or_else(|| "ok".to_string())
}

fn outcome(pair: &Pair, case: &Case, step: &Step) -> String {
    let subject = pair.subject();
    match *step {
        Step::Map { iova, pa, len, rights, .. } => told(subject.map(iova, pa, len, rights).map_err(|failed| {
            let Failed::Map(errno, 0) = failed else { panic!("{}: {failed:?}", case.name) };
            errno.to_string()
        })),
        Step::Unmap { iova, len, .. } => format!("{:x}", subject.unmap(iova, len)),
        Step::DeviceWrite { iova, .. } => told(device_write(subject, pair.shape(), iova)),
        Step::Dirty { iova, len, clear, .. } => {
            let (result, ranges) = subject.dirty(iova, len, clear);
            assert_eq!(result, Ok(()), "{}", case.name);
            ranges.iter().map(|(from, len)| format!("{from:x}+{len:x}")).collect::<Vec<_>>().join(" ")
        }
    }
}

#[test]
fn each_quirk_is_decided() {
    let cases: Vec<Case> = data::all().into_iter().filter(|case| case.quirk).collect();
    assert_eq!(cases.len(), DECISIONS.len());
    for case in &cases {
        let decision = DECISIONS.iter().find(|decision| decision.case == case.name).unwrap();
        let pair = Pair::new(&case.shape).unwrap();
        let gives: Vec<String> = case.steps.iter().map(|step| outcome(&pair, case, step)).collect();
        assert_eq!(gives, decision.gives, "{}", case.name);
        let decoded = decode(pair.subject(), &case.shape).unwrap();
        let same = same_tables(&decoded, &case.tables);
        assert_eq!(same.is_ok(), decision.same_tables, "{}: {same:?}", case.name);
    }
}

#[test]
fn arm_tables_that_may_be_replaced_are_replaced_as_by_linux() {
    let replaced: Vec<Case> =
        data::all().into_iter().filter(|case| ["S16", "T14"].contains(&case.name.as_str())).collect();
    assert_eq!(replaced.len(), 2);
    for mut case in replaced {
        case.shape.replaces_tables = true;
        assert_eq!(replay(&case), Ok(0), "{}", case.name);
    }
}

#[test]
fn what_a_quirk_refuses_leaves_no_trace() {
    let refused = ["V48", "X29"];
    for case in data::all().iter().filter(|case| refused.contains(&case.name.as_str())) {
        let subject = open(&case.shape).unwrap();
        assert!(perform(&*subject, case, &case.steps[0]).is_err());
        assert_eq!(subject.tables(), 1, "{}", case.name);
        assert!(decode(&*subject, &case.shape).unwrap().leaves.is_empty(), "{}", case.name);
    }
}

#[test]
fn the_top_grows_as_far_as_linux_lets_it() {
    let grown: Vec<(String, u8)> = data::all()
        .iter()
        .filter(|case| case.shape.layout == Layout::Amd && case.tables[0].level != case.shape.root_level())
        .map(|case| (case.name.clone(), case.tables[0].level))
        .collect();
    // These are in the first test's number, so the crate's roots have grown to the same levels.
    assert_eq!(grown.len(), 12);
    assert!(grown.iter().any(|(_, level)| *level == 5));
}
