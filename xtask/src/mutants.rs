//! `cargo xtask mutants`: every test that is named for a rule fails without the rule.
//!
//! `xtask/mutants.toml` lists one-line breaks and the test that must notice each.
//! All of it happens in copies under `target/mutants`, so an interrupted run leaves
//! the working tree as it was; the copies and their builds are kept for the next run.
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
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
    let lanes = lanes(&mutants, thread::available_parallelism().map_or(1, usize::from).min(MOST_LANES));
    say!("mutants: {} in copies under target/mutants; first the tests on unbroken code", mutants.len());
    let done = AtomicUsize::new(0);
    let mut fates: Vec<(usize, Fate)> = thread::scope(|threads| {
        let run = |(number, lane): (usize, &Vec<usize>)| {
            let (home, lane) = (home.join(format!("lane-{number}")), lane.clone());
            let (root, mutants, done) = (&root, &mutants, &done);
            threads.spawn(move || run_lane(root, &home, mutants, &lane, done))
        };
        let lanes: Vec<_> = lanes.iter().enumerate().map(run).collect();
        let ended = lanes.into_iter().map(|lane| {
            lane.join().unwrap_or_else(|_| Err(Failure::Stopped("a thread that tries mutants panicked".into())))
        });
        // All of them, so that none goes on unseen.
        ended.collect::<Vec<_>>().into_iter().collect::<Result<Vec<_>, _>>()
    })?
    .into_iter()
    .flatten()
    .collect();
    fates.sort_by_key(|(number, _)| *number);
    let row = |(number, fate): &(usize, Fate)| {
        let mutant = &mutants[*number];
        vec![fate.word().to_string(), mutant.place(), mutant.test_name().to_string(), mutant.why.clone()]
    };
    let rows: Vec<_> = fates.iter().map(row).collect();
    say!("\n{}", table::lay_out(&["fate", "file", "test", "break"], &rows).trim_end());
    match fates.iter().filter(|(_, fate)| !fate.is_good()).count() {
        0 => {
            say!("mutants: all {} caught", mutants.len());
            Ok(())
        }
        bad => Err(Failure::Found(format!(
            "{bad} of {} mutants survived or say nothing; sharpen the named test, or mend the entry in {}",
            mutants.len(),
            list::PATH
        ))),
    }
}

/// Copies that are broken at the same time: to compile one crate is mostly the work of one processor. More than two would
/// each need a build of some gigabytes.
const MOST_LANES: usize = 2;

/// Which mutants go into which copy: all of one package into the same, so that no package is built twice.
fn lanes(mutants: &[Mutant], number: usize) -> Vec<Vec<usize>> {
    let mut packages: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate() {
        packages.entry(mutant.package()).or_default().push(number);
    }
    let mut packages: Vec<_> = packages.into_values().collect();
    packages.sort_by_key(|package| std::cmp::Reverse(package.len()));
    let mut lanes = vec![Vec::new(); number.clamp(1, packages.len().max(1))];
    for package in packages {
        if let Some(shortest) = lanes.iter_mut().min_by_key(|lane| lane.len()) {
            shortest.extend(package);
        }
    }
    lanes
}

/// Tries some of the mutants in a copy of their own.
fn run_lane(
    root: &Path,
    home: &Path,
    mutants: &[Mutant],
    lane: &[usize],
    done: &AtomicUsize,
) -> Result<Vec<(usize, Fate)>, Failure> {
    let tree = home.join("tree");
    copy::bring_up_to_date(root, &tree)?;
    let tests = TestRun::new(&tree, &home.join("build"));
    let sound = unbroken(&tests, lane.iter().map(|number| &mutants[*number]))?;
    let mut fates = Vec::new();
    for &number in lane {
        let mutant = &mutants[number];
        let start = Instant::now();
        let fate = match &sound[&mutant.test] {
            Ok(longest) => try_one(&tree, &tests, mutant, *longest)?,
            Err(why) => Fate::Void(why.clone()),
        };
        let (seconds, nth) = (start.elapsed().as_secs_f32(), done.fetch_add(1, Ordering::Relaxed) + 1);
        say!("[{nth}/{}] {} {}: {} ({seconds:.1} s)", mutants.len(), fate.word(), mutant.file, mutant.why);
        if let Fate::Void(why) = &fate {
            say!("        {why}");
        }
        fates.push((number, fate));
    }
    Ok(fates)
}

/// Builds and runs each named test once without any break, and tells how long a broken one may take.
fn unbroken<'m>(
    tests: &TestRun,
    mutants: impl Iterator<Item = &'m Mutant>,
) -> Result<BTreeMap<String, Result<Duration, String>>, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(package: &str) -> Mutant {
        let [file, from, to, why] = ["a.rs", "a", "b", "c"].map(str::to_string);
        Mutant { file, from, to, test: format!("-p {package} --lib d"), why }
    }

    #[test]
    fn a_package_is_in_one_lane_and_every_mutant_in_some() {
        let packages = ["a", "b", "a", "c", "a", "b", "d"];
        let mutants: Vec<Mutant> = packages.iter().map(|package| of(package)).collect();
        assert_eq!(lanes(&mutants, 2), [vec![0, 2, 4, 6], vec![1, 5, 3]]);
        assert_eq!(lanes(&mutants, 1), [vec![0, 2, 4, 1, 5, 3, 6]]);
        assert_eq!(lanes(&mutants[..1], 2), [vec![0]], "no lane for nothing");
    }
}
