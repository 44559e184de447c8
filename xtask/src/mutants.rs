//! `cargo xtask mutants`: every test that is named for a rule fails without the rule.
//!
//! `xtask/mutants.toml` lists one-line breaks and the test that must notice each.
//! All of it happens in a copy under `target/mutants`, so an interrupted run leaves
//! the working tree as it was; the copy and its build are kept for the next run.
//! Rejected: mutating everything everywhere, which takes hours and reports mostly
//! breaks that no reader would make.

mod copy;
mod list;
mod tests_run;

use crate::failure::Failure;
use crate::{repo, table};
use list::Mutant;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tests_run::{Outcome, TestRun};

/// What became of one mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    /// The test failed, as it should.
    Caught,
    /// The test did not end; the copy was stopped.
    CaughtByHanging,
    /// The test passed although the code is broken.
    Survived,
    /// The mutant says nothing, for this reason.
    Void(String),
}

impl Fate {
    fn word(&self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::CaughtByHanging => "caught (hung)",
            Self::Survived => "SURVIVED",
            Self::Void(_) => "VOID",
        }
    }

    fn is_good(&self) -> bool {
        matches!(self, Self::Caught | Self::CaughtByHanging)
    }
}

/// Runs the mutants of the list, or those that mention the argument.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let filter = match arguments {
        [] => None,
        [only] if !only.starts_with('-') => Some(only.as_str()),
        _ => return Err(Failure::Usage("mutants takes one word to choose by, or nothing".into())),
    };
    let root = repo::root()?;
    let mutants: Vec<Mutant> =
        list::read(&root)?.into_iter().filter(|mutant| filter.is_none_or(|word| mutant.mentions(word))).collect();
    if mutants.is_empty() {
        let word = filter.unwrap_or_default();
        return Err(Failure::Stopped(format!(
            "no mutant in {} mentions `{word}`; see the file for those there are",
            list::PATH
        )));
    }
    let home = root.join("target/mutants");
    let tree = home.join("tree");
    copy::bring_up_to_date(&root, &tree)?;
    let tests = TestRun::new(&tree, &home.join("build"));
    say!("mutants: {} in a copy under target/mutants; first the tests on unbroken code", mutants.len());
    let sound = unbroken(&tests, &mutants)?;
    let mut rows = Vec::new();
    let mut bad = 0usize;
    for (number, mutant) in (1..).zip(&mutants) {
        let start = Instant::now();
        let fate = match &sound[&mutant.test] {
            Ok(longest) => try_one(&tree, &tests, mutant, *longest)?,
            Err(why) => Fate::Void(why.clone()),
        };
        let seconds = start.elapsed().as_secs_f32();
        say!("[{number}/{}] {} {}: {} ({seconds:.1} s)", mutants.len(), fate.word(), mutant.file, mutant.why);
        if let Fate::Void(why) = &fate {
            say!("        {why}");
        }
        bad += usize::from(!fate.is_good());
        rows.push(vec![fate.word().to_string(), mutant.place(), mutant.test_name().to_string(), mutant.why.clone()]);
    }
    say!("\n{}", table::lay_out(&["fate", "file", "test", "break"], &rows).trim_end());
    match bad {
        0 => {
            say!("mutants: all {} caught", mutants.len());
            Ok(())
        }
        _ => Err(Failure::Found(format!(
            "{bad} of {} mutants survived or say nothing; sharpen the named test, or mend the entry in {}",
            mutants.len(),
            list::PATH
        ))),
    }
}

/// Builds and runs each named test once without any break, and tells how long a broken one may take.
fn unbroken(tests: &TestRun, mutants: &[Mutant]) -> Result<BTreeMap<String, Result<Duration, String>>, Failure> {
    let mut sound = BTreeMap::new();
    for mutant in mutants {
        if sound.contains_key(&mutant.test) {
            continue;
        }
        let start = Instant::now();
        let verdict = if tests.build(&mutant.test)? {
            let built = Instant::now();
            match tests.run(&mutant.test, Duration::from_secs(600))? {
                Outcome::Passed { ran: 0 } => Err("no test of that name ran on unbroken code".to_string()),
                Outcome::Passed { .. } => Ok(Duration::from_secs(30) + built.elapsed() * 10),
                Outcome::Failed | Outcome::Hung => Err("the test fails on unbroken code already".to_string()),
            }
        } else {
            Err("the test does not build on unbroken code".to_string())
        };
        let word = if verdict.is_ok() { "passes" } else { "SAYS NOTHING" };
        say!("  {word}: cargo test {} ({:.1} s)", mutant.test, start.elapsed().as_secs_f32());
        sound.insert(mutant.test.clone(), verdict);
    }
    Ok(sound)
}

fn try_one(tree: &Path, tests: &TestRun, mutant: &Mutant, longest: Duration) -> Result<Fate, Failure> {
    let path = tree.join(&mutant.file);
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(Fate::Void(format!("there is no text file {}", mutant.file)));
    };
    let broken = match mutant.apply(&text) {
        Ok(broken) => broken,
        Err(why) => return Ok(Fate::Void(why)),
    };
    fs::write(&path, broken).map_err(|error| Failure::io("write", &path, &error))?;
    let fate = judge(tests, mutant, longest);
    fs::write(&path, text).map_err(|error| Failure::io("write", &path, &error))?;
    fate
}

fn judge(tests: &TestRun, mutant: &Mutant, longest: Duration) -> Result<Fate, Failure> {
    if !tests.build(&mutant.test)? {
        return Ok(Fate::Void("the broken code does not compile, so no test noticed anything".into()));
    }
    Ok(match tests.run(&mutant.test, longest)? {
        Outcome::Passed { .. } => Fate::Survived,
        Outcome::Failed => Fate::Caught,
        Outcome::Hung => Fate::CaughtByHanging,
    })
}
