//! The text of `copy`.

use super::Outcome;
use crate::args::CopyArguments;
use crate::commands::route;
use crate::exit::Failure;
use crate::output;
use peerdma::route::Verdict;
use peerdma::route::kernel_view::{Decision, KernelView};
use peerdma_linux::verified::{Delivery, GUARD, Side, Verification};
use peerdma_linux::vfio::BarRange;
use std::io::Write;

pub(super) fn print(
    arguments: &CopyArguments,
    view: &KernelView<'_>,
    decision: &Decision,
    range: BarRange,
    outcome: Option<&Outcome>,
) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let verdict = Verdict::from(decision.map_type);
    let style = output::style(verdict);
    let topology = view.topology();
    let (from, to) = (route::naming(topology, decision.client), route::naming(topology, decision.provider));
    writeln!(out, "{heading}{from} -> {to} {range}{heading:#}")?;
    writeln!(out, "  permitted  {style}{verdict}{style:#}: {} ({})", route::meaning(verdict), decision.map_type)?;
    route::print_reasons(&mut out, view, decision)?;
    let Some(outcome) = outcome else {
        writeln!(out, "  granted    not asked for: nothing was touched; --force tries it all the same")?;
        writeln!(out, "  verified   no")?;
        return Ok(());
    };
    let forced = match verdict {
        Verdict::Refused => ", although the rules refuse the pair: VFIO does not ask them",
        Verdict::Unknown => ", although nobody knows what the rules say",
        Verdict::Direct | Verdict::HostBridge => "",
    };
    writeln!(out, "  granted    {}{forced}", outcome.granted.words())?;
    match &outcome.verification {
        Some(verification) => print_verification(&mut out, verification)?,
        None => {
            writeln!(out, "  moved      {}, as the engine says", outcome.range.len())?;
            writeln!(out, "  verified   no: give --verify; that an engine is done says nothing about arrival")?;
        }
    }
    if arguments.verify && outcome.verification.is_some_and(|verification| !verification.restored) {
        let warning = output::warning();
        writeln!(out, "  {warning}target     does not hold again what it held before{warning:#}")?;
    }
    Ok(())
}

fn print_verification(out: &mut impl Write, verification: &Verification) -> std::io::Result<()> {
    let style = output::style(if verification.is_verified() { Verdict::Direct } else { Verdict::Refused });
    let word = if verification.is_verified() { "yes" } else { "no" };
    let (checked, total) = (verification.checked, verification.total);
    writeln!(out, "  verified   {style}{word}{style:#}: {checked} of {total} looked at, both directions")?;
    let directions = [
        ("write", &verification.write, "initiator to target, read through the target's own BAR"),
        ("read", &verification.read, "target to initiator, read in process memory"),
    ];
    for (name, delivery, how) in directions {
        writeln!(out, "    {name:<8} {}; {how}", words(delivery))?;
    }
    Ok(())
}

/// What came of one direction.
pub(in crate::commands) fn words(delivery: &Delivery) -> String {
    let mut words = match delivery.first_wrong {
        None => "every byte arrived".to_string(),
        Some(_) if delivery.untouched => "nothing arrived: every byte is what it was before".to_string(),
        Some(wrong) => format!(
            "{} of a run did not arrive, the first at offset {:#x}: {:#04x} instead of {:#04x}",
            delivery.wrong,
            wrong.offset.as_u64(),
            wrong.seen,
            wrong.expected
        ),
    };
    match delivery.damage {
        None => words.push_str(&format!(", nothing within {GUARD} of them changed")),
        Some(damage) => {
            let side = match damage.side {
                Side::Before => "before",
                Side::After => "after",
            };
            let (distance, was, is) = (damage.distance, damage.was, damage.is);
            words.push_str(&format!(", but the byte {distance} {side} them changed from {was:#04x} to {is:#04x}"));
        }
    }
    words
}

/// What to say on standard error if bytes did not arrive, or the target is not as it was.
pub(super) fn failure(verification: &Verification) -> Option<String> {
    const CHANGED: &str = "the target does not hold again what it held before";
    if verification.is_verified() {
        return (!verification.restored).then(|| format!("every byte arrived, but {CHANGED}"));
    }
    let directions = [("write", &verification.write), ("read", &verification.read)];
    let wrong = directions.into_iter().filter(|(_, delivery)| !delivery.is_delivered());
    let wrong: Vec<String> = wrong.map(|(name, delivery)| format!("{name}: {}", words(delivery))).collect();
    let changed = if verification.restored { String::new() } else { format!("; {CHANGED}") };
    Some(format!("the bytes did not arrive as sent; {}{changed}", wrong.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::addr::Bytes;
    use peerdma_linux::verified::Wrong;

    fn verification(first_wrong: Option<Wrong>, restored: bool) -> Verification {
        let delivery = Delivery { first_wrong, wrong: Bytes::ZERO, untouched: false, damage: None };
        let (checked, total) = (Bytes::new(4096), Bytes::new(4096));
        Verification { write: delivery, read: delivery, checked, total, restored }
    }

    #[test]
    fn a_target_that_is_not_put_back_is_a_failure_although_every_byte_arrived() {
        assert_eq!(failure(&verification(None, true)), None);
        let text = failure(&verification(None, false)).unwrap();
        assert!(text.contains("every byte arrived, but the target does not hold again"), "{text}");
        let wrong = Some(Wrong { offset: Bytes::ZERO, expected: 1, seen: 2 });
        let text = failure(&verification(wrong, false)).unwrap();
        assert!(text.starts_with("the bytes did not arrive") && text.contains("does not hold again"), "{text}");
        assert!(!failure(&verification(wrong, true)).unwrap().contains("hold again"));
    }
}
