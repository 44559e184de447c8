//! Runs a group in a second process and outlives whatever becomes of it.
//!
//! A claim may block in the kernel for ever, die of SIGBUS, or be killed for memory. None of
//! that can be caught from inside, so claims run in a worker, the same program with
//! `--worker N`. One that ends before its time, or says nothing for [`LIMIT`], has broken the
//! claim that it announced last; the next worker goes on behind it.
//!
//! A worker that not even SIGKILL ends (it sleeps uninterruptibly) is left behind: the guest
//! is switched off soon, and waiting for it would hang the rest.

use super::claim::Stop;
use super::line::{Line, Word};
use super::worker::END;
use crate::failure::Failure;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker may say nothing. Claims take a second or two under emulation, the slowest one resets a device several
/// times, and the machine below may do other work.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a worker that was killed is waited for.
const LAST_BREATH: Duration = Duration::from_secs(10);

pub(super) fn run(group: &'static str, arguments: &[String]) -> Result<(), Failure> {
    let myself = env::current_exe().map_err(Failure::file("find", "/proc/self/exe".as_ref()))?;
    let mut tally = Tally::default();
    let mut out = io::stdout().lock();
    let mut from = 0;
    loop {
        let mut worker = Command::new(&myself)
            .arg("checks")
            .args(arguments)
            .args(["--worker", &from.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Failure::Start { program: myself.display().to_string(), source })?;
        let heard = follow(&lines_of(&mut worker), group, LIMIT, &mut tally, &mut out)?;
        let ended = end(&mut worker, heard.silent);
        let Some(why) = heard.unfinished(ended) else { break };
        match heard.blamed() {
            Some(claim) => {
                let sentence = format!("claim {claim} of the group comes to an end");
                tell(&Line::new(group, &sentence, Err(Stop::Broken(why))), &mut tally, &mut out)?;
                from = claim + 1;
            }
            None => {
                // It did not get as far as a claim, and neither would the next one.
                let sentence = format!("the group can be tried from claim {from} on");
                tell(&Line::new(group, &sentence, Err(Stop::Broken(why))), &mut tally, &mut out)?;
                break;
            }
        }
    }
    match tally {
        Tally { broken: 0, held: 0, .. } => Err(Failure::Nothing {
            what: "no claim could be tried",
            next: "name the functions of this guest with --edu, --target and the others",
        }),
        Tally { broken: 0, .. } => Ok(()),
        Tally { broken, held, untried } => Err(Failure::Broken { broken, of: broken + held + untried }),
    }
}

/// How many claims went which way.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Tally {
    held: usize,
    broken: usize,
    untried: usize,
}

/// What a worker said.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
struct Heard {
    /// The claim that was begun last.
    begun: Option<usize>,
    /// Whether a line followed it.
    decided: bool,
    /// Whether it said nothing for too long.
    silent: bool,
    /// Whether it said that it had tried all.
    ended: bool,
}

impl Heard {
    /// Why a worker that ended so did not run to its end; `None` if it did.
    fn unfinished(&self, ended: Ended) -> Option<String> {
        match (self.silent, ended) {
            (true, _) => Some(format!("it was given up after {} s without an answer", LIMIT.as_secs())),
            (false, Ended::Well) if self.ended => None,
            // The standard library takes writes to a closed standard output for done.
            (false, Ended::Well) => Some("its process ended well, and did not say that it had tried all".into()),
            (false, Ended::Badly(how)) => Some(format!("its process ended with {how}")),
        }
    }

    /// The claim to blame; `None` if none was begun.
    ///
    /// A worker that dies between two claims takes the next one with it: there is no telling
    /// what it died of, and starting over at the same place might never end.
    fn blamed(&self) -> Option<usize> {
        self.begun.map(|begun| if self.decided { begun + 1 } else { begun })
    }
}

enum Ended {
    Well,
    Badly(String),
}

/// The worker's lines as they come.
fn lines_of(worker: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = worker.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Passes lines on until the worker's output ends or it says nothing for `limit`.
fn follow(
    lines: &Receiver<String>,
    group: &str,
    limit: Duration,
    tally: &mut Tally,
    out: &mut dyn Write,
) -> Result<Heard, Failure> {
    let mut heard = Heard::default();
    loop {
        match lines.recv_timeout(limit) {
            Ok(line) if line == END => heard.ended = true,
            Ok(line) => match line.strip_prefix('@').and_then(|number| number.parse().ok()) {
                Some(number) => heard = Heard { begun: Some(number), ..Heard::default() },
                None => {
                    // What is no line of ours would otherwise pass for nothing at all.
                    let line = serde_json::from_str(&line)
                        .unwrap_or_else(|_| Line::new(group, &line, Err(Stop::broken("the worker wrote this"))));
                    heard.decided = true;
                    tell(&line, tally, out)?;
                }
            },
            Err(RecvTimeoutError::Disconnected) => return Ok(heard),
            Err(RecvTimeoutError::Timeout) => return Ok(Heard { silent: true, ..heard }),
        }
    }
}

/// Waits for the end of a worker: of one that has said all as long as it may be silent, since it still closes its devices; one
/// that is silent already is killed.
fn end(worker: &mut Child, silent: bool) -> Ended {
    let killed = Instant::now() + if silent { Duration::ZERO } else { LIMIT };
    loop {
        match worker.try_wait() {
            Ok(Some(status)) if status.success() => return Ended::Well,
            Ok(Some(status)) => return Ended::Badly(status.to_string()),
            Err(error) => return Ended::Badly(error.to_string()),
            Ok(None) => {}
        }
        let now = Instant::now();
        if now >= killed {
            let _ = worker.kill();
        }
        if now > killed + LAST_BREATH {
            return Ended::Badly("nothing, not even after SIGKILL".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn tell(line: &Line, tally: &mut Tally, out: &mut dyn Write) -> Result<(), Failure> {
    match line.result {
        Word::Held => tally.held += 1,
        Word::Broken => tally.broken += 1,
        Word::DoesNotApply => tally.untried += 1,
    }
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> (Heard, Tally) {
        let (sender, receiver) = mpsc::channel();
        for line in lines {
            sender.send((*line).to_string()).unwrap();
        }
        drop(sender);
        let mut tally = Tally::default();
        let heard = follow(&receiver, "g", LIMIT, &mut tally, &mut Vec::new()).unwrap();
        (heard, tally)
    }

    const HELD: &str = r#"{"group":"g","claim":"c","result":"held"}"#;

    #[test]
    fn a_worker_that_dies_in_a_claim_is_followed_by_one_behind_it() {
        let (heard, tally) = heard(&["@0", HELD, "@1"]);
        assert_eq!((tally.held, heard.begun, heard.decided), (1, Some(1), false));
        assert_eq!(heard.blamed(), Some(1));
        assert!(heard.unfinished(Ended::Badly("signal: 7 (SIGBUS)".into())).unwrap().contains("SIGBUS"));
    }

    #[test]
    fn a_worker_that_dies_between_claims_cannot_be_started_over_for_ever() {
        let (heard, _) = heard(&["@0", HELD]);
        assert_eq!(heard.blamed(), Some(1));
        assert_eq!(Heard::default().blamed(), None, "before the first claim there is nothing to go on behind");
    }

    #[test]
    fn a_worker_that_says_nothing_breaks_the_claim_it_is_at() {
        let (sender, receiver) = mpsc::channel();
        sender.send("@4".to_string()).unwrap();
        let mut tally = Tally::default();
        let heard = follow(&receiver, "g", Duration::from_millis(1), &mut tally, &mut Vec::new()).unwrap();
        drop(sender);
        assert_eq!(heard.blamed(), Some(4));
        assert!(heard.unfinished(Ended::Well).unwrap().contains("without an answer"));
    }

    #[test]
    fn a_worker_that_ran_to_its_end_is_not_started_again() {
        let (heard, tally) = heard(&["@0", HELD, "@1", HELD, "@2", HELD, END]);
        assert!(heard.unfinished(Ended::Well).is_none());
        assert_eq!(tally, Tally { held: 3, broken: 0, untried: 0 });
    }

    #[test]
    fn a_worker_that_ended_well_without_saying_so_is_not_believed() {
        let (heard, _) = heard(&["@0", HELD, "@1", HELD]);
        assert!(heard.unfinished(Ended::Well).unwrap().contains("did not say"));
        assert_eq!(heard.blamed(), Some(2));
    }

    #[test]
    fn what_a_worker_writes_beside_its_lines_is_a_broken_claim() {
        let (_, tally) = heard(&["@0", "Segmentation fault"]);
        assert_eq!(tally.broken, 1);
    }
}
