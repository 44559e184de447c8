//! The process in which claims are tried, one after another.
//!
//! It writes `@N` before it tries claim number N, a [`Line`] for whatever is decided, and [`END`] when it
//! has tried all. A supervisor that sees no more lines knows so which claim to blame, and starts another
//! worker behind it; one that ended well and did not say so lost its output on the way. Numbers count claims in the order of their group, which is the same in
//! every run of one binary with one command line.

use super::claim::{Claim, Stop};
use super::line::Line;
use crate::failure::Failure;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The last line.
pub(super) const END: &str = "@end";

/// Tries the claims of one group.
pub(super) struct Worker<'a> {
    group: &'static str,
    /// Claims with lower numbers have been tried by an earlier worker.
    from: usize,
    /// Number of the next claim.
    next: usize,
    out: &'a mut dyn Write,
    /// The first error of writing; nothing is tried after it, since nobody would hear of it.
    lost: Option<io::Error>,
}

/// Runs a group as a worker on standard output.
pub(super) fn run(group: &'static str, from: usize, tries: impl FnOnce(&mut Worker<'_>)) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut worker = Worker { group, from, next: 0, out: &mut out, lost: None };
    tries(&mut worker);
    worker.write(END);
    match worker.lost {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

impl Worker<'_> {
    /// Tries each claim on one and the same bench, which `clear` makes as good as new between
    /// two of them.
    ///
    /// A bench that cannot be set up is itself a broken claim; the others are then untried.
    pub(super) fn claims<B>(
        &mut self,
        set_up: impl FnOnce() -> Result<B, Stop>,
        clear: impl Fn(&mut B) -> Result<(), Stop>,
        claims: Vec<Claim<B>>,
    ) {
        // A worker that starts in the middle sets up all the same, but has said so before.
        let mut bench = None;
        let set_up = || {
            bench = Some(set_up()?);
            Ok(())
        };
        match self.from {
            0 => self.claim("what the group needs can be opened", set_up),
            _ => {
                self.next += 1;
                if let Err(stop) = caught(set_up) {
                    self.tell("what the group needs can be opened again", Err(stop));
                }
            }
        }
        for claim in claims {
            match &mut bench {
                Some(bench) => self.claim(&claim.sentence, || {
                    clear(bench).map_err(|stop| match stop {
                        Stop::Broken(why) => {
                            Stop::Broken(format!("what an earlier claim left could not be cleared: {why}"))
                        }
                        other => other,
                    })?;
                    (claim.tries)(bench)
                }),
                None => {
                    self.claim(&claim.sentence, || {
                        Err(Stop::DoesNotApply("not tried: the group could not be set up".into()))
                    });
                }
            }
        }
    }

    /// Tries one thing and says what became of it.
    pub(super) fn claim(&mut self, sentence: &str, tries: impl FnOnce() -> Result<(), Stop>) {
        self.suite(sentence, |_| tries());
    }

    /// Tries a suite that says itself what becomes of its claims, and says whether it ran.
    pub(super) fn suite(
        &mut self,
        sentence: &str,
        tries: impl FnOnce(&mut dyn FnMut(&str, Result<(), Stop>)) -> Result<(), Stop>,
    ) {
        let number = self.next;
        self.next += 1;
        if self.lost.is_some() || number < self.from {
            return;
        }
        self.write(&format!("@{number}"));
        let outcome = caught(|| tries(&mut |sentence, outcome| self.tell(sentence, outcome)));
        self.tell(sentence, outcome);
    }

    fn tell(&mut self, sentence: &str, outcome: Result<(), Stop>) {
        match serde_json::to_string(&Line::new(self.group, sentence, outcome)) {
            Ok(json) => self.write(&json),
            Err(error) => self.lost = Some(error.into()),
        }
    }

    fn write(&mut self, line: &str) {
        if self.lost.is_none() {
            self.lost = writeln!(self.out, "{line}").and_then(|()| self.out.flush()).err();
        }
    }
}

/// A claim that panics is broken and nothing more.
fn caught(tries: impl FnOnce() -> Result<(), Stop>) -> Result<(), Stop> {
    catch_unwind(AssertUnwindSafe(tries)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).into()));
        Err(Stop::Broken(format!("it panicked: {}", words.unwrap_or_default())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: usize, tries: impl FnOnce(&mut Worker<'_>)) -> Vec<String> {
        let mut out = Vec::new();
        let mut worker = Worker { group: "g", from, next: 0, out: &mut out, lost: None };
        tries(&mut worker);
        String::from_utf8_lossy(&out).lines().map(Into::into).collect()
    }

    fn three() -> Vec<Claim<Vec<u8>>> {
        vec![
            Claim::new("one", |bench: &mut Vec<u8>| {
                bench.push(1);
                Ok(())
            }),
            Claim::new("two", |_: &mut Vec<u8>| panic!("by accident")),
            Claim::new("three", |bench: &mut Vec<u8>| match bench.len() {
                0 => Ok(()),
                n => Err(Stop::Broken(format!("{n} left"))),
            }),
        ]
    }

    fn cleared(bench: &mut Vec<u8>) -> Result<(), Stop> {
        bench.clear();
        Ok(())
    }

    #[test]
    fn a_claim_that_panics_does_not_stop_the_rest() {
        let lines = lines(0, |worker| worker.claims(|| Ok(Vec::new()), cleared, three()));
        let starts: Vec<&str> = lines.iter().map(String::as_str).filter(|line| line.starts_with('@')).collect();
        assert_eq!(starts, ["@0", "@1", "@2", "@3"]);
        assert!(lines[3].contains("held") && lines[3].contains("one"), "{lines:?}");
        assert!(lines[5].contains("broken") && lines[5].contains("by accident"), "{lines:?}");
        assert!(lines[7].contains("held"), "the third claim found a cleared bench: {lines:?}");
    }

    #[test]
    fn a_worker_that_goes_on_behind_a_claim_sets_up_and_says_nothing_again() {
        let lines = lines(3, |worker| worker.claims(|| Ok(Vec::new()), cleared, three()));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0], "@3");
        assert!(lines[1].contains("three") && lines[1].contains("held"), "{lines:?}");
    }

    #[test]
    fn a_bench_that_cannot_be_set_up_is_one_broken_claim() {
        let lines = lines(0, |worker| {
            worker.claims(|| Err::<Vec<u8>, _>(Stop::broken("no device")), cleared, three());
        });
        assert_eq!(lines.iter().filter(|line| line.contains(r#""broken""#)).count(), 1, "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("does-not-apply")).count(), 3);
    }
}
