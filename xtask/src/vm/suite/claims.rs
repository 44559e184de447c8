//! A guest whose program prints a claim a line, and how many of them held.

use super::Done;
use super::setup::{Laboratory, Setup};
use crate::failure::Failure;
use crate::vm::guest::{Job, Outcome};
use crate::vm::process::tail;
use serde::Deserialize;

/// What the program in the guest prints for each claim.
#[derive(Debug, Deserialize)]
struct Line {
    claim: String,
    result: String,
    #[serde(default)]
    why: Option<String>,
}

/// How much of what a guest said is shown where its claims fail.
const LINES: usize = 30;

/// Boots a guest and counts the claims that held.
pub(super) fn claims(
    laboratory: &Laboratory,
    setup: &Setup,
    job: &Job,
    fewest: usize,
) -> Result<(Done, Outcome), Failure> {
    let boot = || laboratory.boot_job(setup, &mut job.clone());
    let outcome = boot()?;
    match judged(&outcome, fewest) {
        // The guest says that all claims were tried and none is broken, so that lines were lost on their way (seen once in some
        // hundreds of boots), or a claim is no more: then it is missing again.
        Err(failure) if outcome.exit == 0 => {
            say!("vm: fewer claims than there are, once more: {failure}");
            let outcome = boot()?;
            judged(&outcome, fewest).map(|done| (done, outcome))
        }
        done => done.map(|done| (done, outcome)),
    }
}

fn judged(outcome: &Outcome, fewest: usize) -> Result<Done, Failure> {
    let text = |bytes: &[u8]| tail(&String::from_utf8_lossy(bytes), LINES);
    count(&String::from_utf8_lossy(&outcome.stdout), outcome.exit, fewest).map_err(|failure| {
        // What the job left in files is what its programs said that print no claims; memory of devices is no text.
        let files: String = outcome
            .files
            .iter()
            .filter(|(_, bytes)| !bytes.contains(&0))
            .map(|(name, bytes)| format!("\n/out/{name}:\n{}", text(bytes)))
            .collect();
        Failure::Found(format!("{failure}\nit said:\n{}\n{}{files}", text(&outcome.stdout), text(&outcome.stderr)))
    })
}

fn count(said: &str, exit: u8, fewest: usize) -> Result<Done, Failure> {
    let mut held = 0;
    let mut broken = Vec::new();
    for text in said.lines().filter(|text| !text.is_empty()) {
        let line: Line = serde_json::from_str(text).map_err(|error| {
            Failure::Found(format!("the guest's checks wrote `{text}`, which is no claim: {error}"))
        })?;
        match line.result.as_str() {
            "held" => held += 1,
            "does-not-apply" => {}
            _ => broken.push(format!("{}: {}", line.claim, line.why.unwrap_or_default())),
        }
    }
    if !broken.is_empty() {
        return Err(Failure::Found(format!("{} claims do not hold:\n  {}", broken.len(), broken.join("\n  "))));
    }
    if exit != 0 || held < fewest {
        let last = said.lines().rfind(|text| !text.is_empty()).unwrap_or("nothing");
        return Err(Failure::Found(format!(
            "the guest's checks ended with {exit} after {held} claims that held, and {fewest} are to hold; they said last: {last}"
        )));
    }
    Ok(Done { claims: held, pairs: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_claim_fails_its_group_and_is_quoted() {
        let said = "{\"group\":\"export\",\"claim\":\"a slice is taken\",\"result\":\"held\"}\n\
                    {\"group\":\"export\",\"claim\":\"nothing is refused\",\"result\":\"broken\",\"why\":\"EPERM\"}\n";
        let failure = count(said, 1, 1).unwrap_err().to_string();
        assert!(failure.contains("nothing is refused: EPERM") && failure.contains("1 claims"), "{failure}");
    }

    #[test]
    fn checks_that_said_nothing_did_not_pass() {
        assert!(count("", 0, 1).is_err());
        assert!(count("{\"claim\":\"a\",\"result\":\"held\"}", 101, 1).is_err());
        assert!(count("not json", 0, 1).is_err());
        assert!(count("{\"claim\":\"a\",\"result\":\"held\"}", 0, 2).is_err());
        assert_eq!(count("{\"claim\":\"a\",\"result\":\"held\"}", 0, 1).unwrap(), Done { claims: 1, pairs: 0 });
    }
}
