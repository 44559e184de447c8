//! What the gates of a row make of what was found.

use crate::count::{self, Heap, Programs};
use crate::round;
use crate::row::{Bound, Gate, Row};
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// A peer or limit whose instructions differ by more than this from what it took when the
/// targets were set does something else, and what is measured against it means nothing.
const PLAUSIBLE: f64 = 0.20;

/// Turns of which a steady state must not take memory.
const STEADY_TURNS: u64 = 64;

/// What was found of a gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As wanted.
    Met,
    /// Not as wanted, which fails nothing.
    Missed,
    /// Not as wanted, and the bench fails.
    Failed,
    /// Compared with something implausible.
    LimitInvalid,
    /// Not measured here.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Failed => "FAILED",
            Self::LimitInvalid => "limit invalid",
            Self::Skipped => "skipped",
        })
    }
}

/// One line of the table.
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What is wanted of it.
    pub target: String,
    /// What was found.
    pub result: String,
    /// Whether it is as wanted.
    pub verdict: Verdict,
}

/// What a side took.
pub struct Taken {
    /// Its name.
    pub side: &'static str,
    /// Instructions a unit.
    pub instructions: Option<f64>,
    /// What they were when the targets were set.
    pub reference: Option<f64>,
    /// Nanoseconds a unit.
    pub nanoseconds: Option<f64>,
    /// Bytes held and allocations, where a gate asks.
    pub heap: Option<Heap>,
}

impl Taken {
    /// Whether it did what it did when the targets were set, as far as that can be told.
    fn is_plausible(&self) -> bool {
        match (self.instructions, self.reference) {
            (Some(instructions), Some(reference)) => (instructions / reference - 1.0).abs() <= PLAUSIBLE,
            _ => true,
        }
    }
}

/// A row with everything found.
pub struct Outcome {
    /// What each side took.
    pub taken: Vec<Taken>,
    /// The lines of the table.
    pub findings: Vec<Finding>,
}

/// How to measure.
pub struct Conditions<'p> {
    /// What to start.
    pub programs: &'p Programs,
    /// Whether valgrind is there.
    pub counts: bool,
    /// How often the rounds are repeated; the median ratio counts.
    pub repeat: usize,
    /// Whether times decide.
    pub strict: bool,
}

/// Measures a row and judges it.
///
/// # Errors
/// If a program that counts cannot be run.
pub fn judge(row: &Row, conditions: &Conditions<'_>) -> io::Result<Outcome> {
    let counts =
        if conditions.counts { count::instructions(row, conditions.programs)? } else { vec![None; row.sides.len()] };
    let repeats: Vec<round::Times> = (0..conditions.repeat).map(|_| round::times(row)).collect();
    let mut heaps = heaps(row, conditions.programs)?;
    let taken = (row.sides.iter().zip(&counts).enumerate())
        .map(|(nth, (side, &instructions))| Taken {
            side: side.name,
            instructions,
            reference: side.reference,
            nanoseconds: round::median(repeats.iter().filter_map(|times| times[nth]).collect()),
            heap: heaps.remove(side.name),
        })
        .collect();
    let judge = Judge { row, taken, repeats, strict: conditions.strict };
    let mut findings: Vec<Finding> = row.gates.iter().map(|gate| judge.gate(gate)).collect();
    findings.extend(row.pairs.iter().map(|pair| scaling(pair, conditions.repeat)));
    findings.extend((row.figures)().into_iter().map(|figure| {
        let (sign, bound, holds) = match figure.bound {
            Bound::Least(least) => (">=", least, figure.value >= least),
            Bound::Most(most) => ("<=", most, figure.value <= most),
        };
        Finding {
            target: format!("{sign} {} {}", short(bound), figure.unit),
            result: format!("{} {}", short(figure.value), figure.unit),
            verdict: verdict(holds, figure.gates),
            what: figure.what,
        }
    }));
    Ok(Outcome { taken: judge.taken, findings })
}

/// The heaps of the sides that a gate asks about.
fn heaps(row: &Row, programs: &Programs) -> io::Result<BTreeMap<&'static str, Heap>> {
    let mut heaps = BTreeMap::new();
    for gate in &row.gates {
        let asked: &[&'static str] = match gate {
            Gate::Held { of, .. } | Gate::NoAllocation { of } => &[of],
            Gate::HeldRatio { of, to, .. } => &[of, to],
            Gate::Instructions { .. } | Gate::Short { .. } | Gate::Ratio { .. } | Gate::Equal { .. } => &[],
        };
        for &name in asked {
            if let (false, Some(side)) = (heaps.contains_key(name), row.side(name)) {
                let turns = if side.timed == 0 { 0 } else { STEADY_TURNS };
                heaps.insert(name, count::heap(row, side, turns, programs)?);
            }
        }
    }
    Ok(heaps)
}

fn scaling(pair: &crate::row::Pair, repeat: usize) -> Finding {
    let found = round::median((0..repeat).filter_map(|_| round::scaling(pair)).collect());
    let sign = if pair.stalls { "<=" } else { ">=" };
    Finding {
        what: format!("{}: two threads", pair.name),
        target: format!("{sign} {} x", short(pair.wanted)),
        result: found.map_or_else(|| "-".to_owned(), |found| format!("{} x", short(found))),
        verdict: found.map_or(Verdict::Skipped, |found| {
            verdict(if pair.stalls { found <= pair.wanted } else { found >= pair.wanted }, false)
        }),
    }
}

struct Judge<'r> {
    row: &'r Row,
    taken: Vec<Taken>,
    repeats: Vec<round::Times>,
    strict: bool,
}

impl Judge<'_> {
    fn gate(&self, gate: &Gate) -> Finding {
        match *gate {
            Gate::Instructions { of, most } => {
                let found = self.of(of).and_then(|taken| taken.instructions);
                let unit = format!("instr/{}", self.row.unit);
                finding(of, most, found, &unit, true)
            }
            Gate::Short { of, most, held } => {
                let found = self.of(of).and_then(|taken| taken.instructions);
                let unit = format!("instr/{} (held at {held})", self.row.unit);
                finding(of, most, found, &unit, found.is_some_and(|found| found > held))
            }
            Gate::Ratio { of, to, most } => {
                let found = self.ratio(of, to);
                self.unless_implausible(to, finding(of, most, found, &format!("x {to}"), self.strict))
            }
            Gate::Equal { of, to, within } => {
                let counted = |name| self.of(name).and_then(|taken| taken.instructions);
                let found = counted(of).zip(counted(to)).map(|(of, to)| of / to);
                Finding {
                    what: of.to_owned(),
                    target: format!("{}..{} x {to}, instr", short(1.0 - within), short(1.0 + within)),
                    result: found.map_or_else(|| "-".to_owned(), short),
                    verdict: found.map_or(Verdict::Skipped, |found| verdict((found - 1.0).abs() <= within, true)),
                }
            }
            Gate::Held { of, most, fixed } => {
                let units = self.row.side(of).map_or(1, |side| side.units) as f64;
                let held = self.held(of);
                let all = (most * units) + fixed as f64;
                let mut finding = finding(of, all, held, "bytes held", true);
                if let Some(held) = held {
                    finding.result = format!("{} bytes, {} each", held, short(held / units));
                }
                finding.target = format!("<= {} bytes each + {fixed}", short(most));
                finding
            }
            Gate::HeldRatio { of, to, most } => {
                let found = self.held(of).zip(self.held(to)).map(|(ours, theirs)| ours / theirs);
                finding(of, most, found, &format!("x {to}, bytes held"), true)
            }
            Gate::NoAllocation { of } => {
                let found = self.of(of).and_then(|taken| taken.heap).map(|heap| heap.allocations as f64);
                finding(of, 0.0, found, &format!("allocations in {STEADY_TURNS} turns"), true)
            }
        }
    }

    fn of(&self, name: &str) -> Option<&Taken> {
        self.taken.iter().find(|taken| taken.side == name)
    }

    fn held(&self, name: &str) -> Option<f64> {
        self.of(name)?.heap.map(|heap| heap.held as f64)
    }

    /// The median over repeats of the ratio of medians over rounds.
    fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        let place = |name: &str| self.row.sides.iter().position(|side| side.name == name);
        let (of, to) = (place(of)?, place(to)?);
        round::median(self.repeats.iter().filter_map(|times| Some(times[of]? / times[to]?)).collect())
    }

    fn unless_implausible(&self, to: &str, mut finding: Finding) -> Finding {
        if let Some(taken) = self.of(to)
            && let (false, Some(instructions), Some(reference)) =
                (taken.is_plausible(), taken.instructions, taken.reference)
        {
            finding.verdict = Verdict::LimitInvalid;
            finding.result =
                format!("{}; {to} takes {} instr, not {}", finding.result, short(instructions), short(reference));
        }
        finding
    }
}

fn finding(what: &str, most: f64, found: Option<f64>, unit: &str, gates: bool) -> Finding {
    // Peers that are hundreds of times slower are said so.
    let shown = if most > 0.0 && most < 0.045 { format!("1/{}", short(1.0 / most)) } else { short(most) };
    let result = |found: f64| {
        if most > 0.0 && most < 0.045 && found > 0.0 { format!("1/{}", short(1.0 / found)) } else { short(found) }
    };
    Finding {
        what: what.to_owned(),
        target: format!("<= {shown} {unit}"),
        result: found.map_or_else(|| "-".to_owned(), result),
        verdict: found.map_or(Verdict::Skipped, |found| verdict(found <= most, gates)),
    }
}

fn verdict(holds: bool, gates: bool) -> Verdict {
    match (holds, gates) {
        (true, _) => Verdict::Met,
        (false, false) => Verdict::Missed,
        (false, true) => Verdict::Failed,
    }
}

/// Three digits that matter, or all before the point.
pub fn short(number: f64) -> String {
    let digits = match number.abs() {
        small if small < 10.0 => 2,
        medium if medium < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Side;

    fn judged(gate: Gate, taken: Vec<Taken>, repeats: Vec<round::Times>, strict: bool) -> Finding {
        let nothing = || -> crate::row::Turn { Box::new(|_| ()) };
        let sides = taken.iter().map(|taken| Side::new(taken.side, nothing)).collect();
        let row = Row { sides, ..Row::new("X1", "nothing", "op") };
        Judge { row: &row, taken, repeats, strict }.gate(&gate)
    }

    fn taken(side: &'static str, instructions: f64, reference: Option<f64>) -> Taken {
        Taken { side, instructions: Some(instructions), reference, nanoseconds: None, heap: None }
    }

    fn ours_and_limit(limit: f64) -> Vec<Taken> {
        vec![taken("peerdma", 50.0, None), taken("L", limit, Some(10.0))]
    }

    const RATIO: Gate = Gate::Ratio { of: "peerdma", to: "L", most: 2.0 };

    fn times(of: f64, to: f64) -> round::Times {
        vec![Some(of), Some(to)]
    }

    #[test]
    fn a_count_above_its_ceiling_fails() {
        let gate = |most| Gate::Instructions { of: "peerdma", most };
        assert_eq!(judged(gate(49.0), ours_and_limit(10.0), vec![], false).verdict, Verdict::Failed);
        assert_eq!(judged(gate(50.0), ours_and_limit(10.0), vec![], false).verdict, Verdict::Met);
    }

    #[test]
    fn a_target_that_is_missed_is_said_and_held_where_it_stands() {
        let gate = |held| Gate::Short { of: "peerdma", most: 49.0, held };
        assert_eq!(judged(gate(60.0), ours_and_limit(10.0), vec![], false).verdict, Verdict::Missed);
        assert_eq!(judged(gate(49.5), ours_and_limit(10.0), vec![], false).verdict, Verdict::Failed);
        let met = Gate::Short { of: "peerdma", most: 50.0, held: 60.0 };
        assert_eq!(judged(met, ours_and_limit(10.0), vec![], false).verdict, Verdict::Met);
    }

    #[test]
    fn a_time_decides_only_on_request() {
        let repeats = || vec![times(3.0, 1.0)];
        assert_eq!(judged(RATIO, ours_and_limit(10.0), repeats(), false).verdict, Verdict::Missed);
        assert_eq!(judged(RATIO, ours_and_limit(10.0), repeats(), true).verdict, Verdict::Failed);
    }

    #[test]
    fn the_median_of_repeats_counts() {
        let repeats = vec![times(9.0, 1.0), times(1.5, 1.0), times(1.0, 1.0)];
        let finding = judged(RATIO, ours_and_limit(10.0), repeats, true);
        assert_eq!((finding.verdict, finding.result.as_str()), (Verdict::Met, "1.5"));
    }

    #[test]
    fn an_implausible_limit_is_said_and_never_a_good_ratio() {
        for (limit, verdict) in
            [(12.0, Verdict::Met), (12.1, Verdict::LimitInvalid), (8.0, Verdict::Met), (7.9, Verdict::LimitInvalid)]
        {
            let finding = judged(RATIO, ours_and_limit(limit), vec![times(1.0, 1.0)], true);
            assert_eq!(finding.verdict, verdict, "{limit}: {}", finding.result);
        }
    }

    #[test]
    fn what_was_not_measured_is_skipped() {
        let side = |side| Taken { instructions: None, ..taken(side, 0.0, None) };
        let both = || vec![side("peerdma"), side("L")];
        let most = Gate::Instructions { of: "peerdma", most: 1.0 };
        for gate in [RATIO, most, Gate::Held { of: "peerdma", most: 8.0, fixed: 0 }, Gate::NoAllocation { of: "L" }] {
            assert_eq!(judged(gate, both(), vec![], true).verdict, Verdict::Skipped);
        }
    }

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        let written = [0.123, 1.0, 9.996, 42.25, 1234.5].map(short);
        assert_eq!(written, ["0.12", "1", "10", "42.2", "1234"]);
    }
}
