//! `cargo xtask vm test`: everything that only a real kernel can tell.
//!
//! Each test boots guests and compares; none of them waits for another. A failure is
//! printed where it happens and, shortened, below the table, and the rest goes on, since a
//! kernel that changed is best understood from everything that changed with it.
//!
//! What cannot be had (a kernel that is new enough) skips the suite; what is had and
//! wrong fails it. There is nothing in between.

mod boots;
mod checks;
mod claims;
mod copies;
mod dma_bufs;
mod driver;
mod fixes;
mod judged;
mod kvm;
mod pins;
mod platforms;
mod rdma;
mod setup;
mod trio;
mod vfio;

use super::kernel::Kernel;
use super::program::{self, Own};
use super::{apt, small, stock};
use crate::failure::Failure;
use crate::table;
use peerdma::route::kernel_view::TableChoice;
use peerdma::topology::KernelVersion;
use setup::Laboratory;
use std::path::Path;
use std::time::{Duration, Instant};

/// The fewest ordered pairs of functions that a run may compare and still count.
const FEWEST_PAIRS: usize = 2000;

/// What one test did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    /// Ordered pairs whose verdict was compared with the kernel's.
    pairs: usize,
    /// Other claims that were seen to hold.
    claims: usize,
}

/// What a test does in the laboratory.
type Steps = Box<dyn Fn(&Laboratory) -> Result<Done, Failure>>;

/// One test.
struct Test {
    group: &'static str,
    name: String,
    run: Steps,
}

impl Test {
    fn new(
        group: &'static str,
        name: impl Into<String>,
        run: impl Fn(&Laboratory) -> Result<Done, Failure> + 'static,
    ) -> Self {
        Self { group, name: name.into(), run: Box::new(run) }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Only tests whose group or name holds this.
    only: Option<String>,
    /// How many random topologies more.
    random: u32,
    /// Where their seeds start.
    seed: u64,
    /// Whether captures and the kernel's answers are written beside the tests that replay them.
    write_fixtures: bool,
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut asked = Self { seed: 1, ..Self::default() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || {
                let value = rest.next().map(String::as_str);
                value.ok_or_else(|| {
                    Failure::Usage(format!("{argument} takes a value, as in `vm test {argument} VALUE`"))
                })
            };
            match argument.as_str() {
                "--random" => asked.random = number(argument, value()?)?,
                "--seed" => asked.seed = number(argument, value()?)?,
                "--write-fixtures" => asked.write_fixtures = true,
                other if other.starts_with('-') => return Err(Failure::Usage(format!("`vm test` has no `{other}`"))),
                word if asked.only.is_none() => asked.only = Some(word.into()),
                word => {
                    return Err(Failure::Usage(format!(
                        "`vm test` takes one word to choose by, and `{word}` is a second"
                    )));
                }
            }
        }
        Ok(asked)
    }
}

fn number<N: std::str::FromStr>(flag: &str, word: &str) -> Result<N, Failure> {
    word.parse().map_err(|_| Failure::Usage(format!("{flag} takes a number, not `{word}`")))
}

pub(super) fn run(root: &Path, top: &Path, arguments: &[String]) -> Result<(), Failure> {
    let asked = Asked::parse(arguments)?;
    let mut tests = all(&asked);
    if let Some(word) = &asked.only {
        tests.retain(|test| test.group.contains(word.as_str()) || test.name.contains(word.as_str()));
        if tests.is_empty() {
            return Err(Failure::Usage(format!("no guest test has `{word}` in its group or name")));
        }
    }
    let started = Instant::now();
    apt::need(top, apt::GUEST_NEEDS)?;
    // Before QEMU: a mirror too old for the kernel is often too old for that too, and is no failure.
    let stock = match stock::kernel(top)? {
        Ok(kernel) => kernel,
        Err(reasons) => {
            let (major, minor) = stock::OLDEST;
            // The reasons stand on lines of their own: the first is matched word by word.
            say!("SKIPPED vm: no kernel of {major}.{minor} or newer offered");
            for reason in reasons {
                say!("  {reason}");
            }
            return Ok(());
        }
    };
    has_a_table(&stock)?;
    apt::need_qemu(top)?;
    let programs = program::build(root, top, &[Own::Peerdma, Own::Guest])?;
    say!("vm: waiting for the small kernel");
    let small = small::kernel(root, top)?.map_err(|reasons| {
        Failure::Stopped(format!("a kernel is offered and its source is not: {}", reasons.join("; ")))
    })?;
    has_a_table(&small)?;
    let laboratory = Laboratory::new(root, top, stock, small, &programs)?;

    let results = perform(&tests, &laboratory);
    say!("");
    say!("{}", summary(&tests, &results).trim_end());
    for (test, (result, _)) in tests.iter().zip(&results) {
        if let Err(failure) = result {
            say!("vm: {}: {}:\n{}", test.group, test.name, shortened(&failure.to_string()));
        }
    }
    judge(&tests, &results, asked.only.is_none(), started.elapsed())
}

/// Every test, in the order in which a person wants to hear of failures.
fn all(asked: &Asked) -> Vec<Test> {
    let mut tests = boots::tests();
    tests.extend(judged::tests(asked));
    tests.extend(fixes::tests());
    tests.extend(platforms::tests());
    tests.extend(checks::tests());
    tests.extend(vfio::tests());
    tests.extend(kvm::tests());
    tests.extend(trio::tests());
    tests.extend(dma_bufs::tests());
    tests.extend(copies::tests());
    tests.extend(pins::tests(asked));
    tests.extend(rdma::tests());
    tests.extend(driver::tests());
    tests
}

/// Refuses a kernel whose whitelist nobody has read yet: comparing would only show that.
fn has_a_table(kernel: &Kernel) -> Result<(), Failure> {
    let version: Option<KernelVersion> =
        kernel.series().and_then(|(major, minor)| format!("{major}.{minor}").parse().ok());
    if let Some(version) = version
        && let TableChoice::Exact(_) = TableChoice::for_kernel(Some(version))
    {
        return Ok(());
    }
    Err(Failure::Found(format!(
        "Linux {} has no whitelist table of its own: read `pci_p2pdma_whitelist` in drivers/pci/p2pdma.c of its source \
         and add its series to TABLES in crates/peerdma/src/route/kernel_view/whitelist.rs, with what changed",
        kernel.release
    )))
}

type TestResult = (Result<Done, Failure>, Duration);

fn perform(tests: &[Test], laboratory: &Laboratory) -> Vec<TestResult> {
    let total = tests.len();
    tests
        .iter()
        .enumerate()
        .map(|(at, test)| {
            let started = Instant::now();
            let result = tried(&test.name, || (test.run)(laboratory), || laboratory.take_unwell());
            let took = started.elapsed();
            let said = match &result {
                Ok(done) => format!("ok, {}", counted(*done)),
                Err(failure) => format!("FAILED\n{failure}"),
            };
            say!("vm: [{}/{total}] {:.1} s  {}: {}: {said}", at + 1, took.as_secs_f64(), test.group, test.name);
            (result, took)
        })
        .collect()
}

/// How often a test is tried whose guests got no time, or lost interrupts.
const TRIES: u32 = 3;

/// Runs a test, and anew if it failed in guests whose kernels say that the machine under them did not do its part: what takes
/// no time elsewhere is late there. What is wrong by itself is wrong each time; each failure is told.
fn tried(
    name: &str,
    run: impl Fn() -> Result<Done, Failure>,
    take_unwell: impl Fn() -> Option<String>,
) -> Result<Done, Failure> {
    for again in 1..TRIES {
        take_unwell();
        match run() {
            Ok(done) => return Ok(done),
            Err(failure) => match take_unwell() {
                Some(line) => {
                    say!("vm: {name}: once more after time {again}, in a guest that is not well: {line}\n{failure}")
                }
                None => return Err(failure),
            },
        }
    }
    run()
}

/// How many of a failure's first and last lines are told once more below the table.
const AGAIN: (usize, usize) = (8, 40);

/// What a failure is, and what it ends with: whoever reads no more than the end of a long output is to see both.
fn shortened(failure: &str) -> String {
    let lines: Vec<&str> = failure.lines().collect();
    let (first, last) = AGAIN;
    match lines.len().checked_sub(first + last) {
        None | Some(0) => failure.into(),
        Some(left_out) => {
            let (head, tail) = (&lines[..first], &lines[first + left_out..]);
            format!("{}\n({left_out} lines, told above)\n{}", head.join("\n"), tail.join("\n"))
        }
    }
}

fn counted(done: Done) -> String {
    match (done.pairs, done.claims) {
        (0, claims) => format!("{claims} claims"),
        (pairs, 0) => format!("{pairs} pairs"),
        (pairs, claims) => format!("{pairs} pairs, {claims} claims"),
    }
}

fn sum(results: &[(&Test, &TestResult)]) -> (usize, Done, Duration) {
    let mut failed = 0;
    let mut all = Done::default();
    let mut time = Duration::ZERO;
    for (_, (result, took)) in results {
        time += *took;
        match result {
            Ok(done) => {
                all.pairs += done.pairs;
                all.claims += done.claims;
            }
            Err(_) => failed += 1,
        }
    }
    (failed, all, time)
}

fn summary(tests: &[Test], results: &[TestResult]) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for test in tests {
        if !groups.contains(&test.group) {
            groups.push(test.group);
        }
    }
    let row = |name: &str, of: &[(&Test, &TestResult)]| {
        let (failed, done, time) = sum(of);
        let minutes = format!("{:.1}", time.as_secs_f64() / 60.0);
        vec![
            name.into(),
            of.len().to_string(),
            failed.to_string(),
            done.pairs.to_string(),
            done.claims.to_string(),
            minutes,
        ]
    };
    let of_group = |name: &str| -> Vec<(&Test, &TestResult)> {
        tests.iter().zip(results).filter(|(test, _)| test.group == name).collect()
    };
    let mut rows: Vec<Vec<String>> = groups.iter().map(|name| row(name, &of_group(name))).collect();
    rows.push(row("all", &tests.iter().zip(results).collect::<Vec<_>>()));
    table::lay_out(&["group", "tests", "failed", "pairs", "claims", "minutes"], &rows)
}

/// The whole suite must compare enough; a chosen part of it is not asked to.
fn judge(tests: &[Test], results: &[TestResult], whole: bool, took: Duration) -> Result<(), Failure> {
    let together: Vec<(&Test, &TestResult)> = tests.iter().zip(results).collect();
    let (failed, done, _) = sum(&together);
    let names: Vec<String> = together
        .iter()
        .filter(|(_, (result, _))| result.is_err())
        .map(|(test, _)| format!("{}: {}", test.group, test.name))
        .collect();
    if failed > 0 {
        return Err(Failure::Found(format!("{failed} of {} guest tests failed: {}", tests.len(), names.join("; "))));
    }
    if whole && done.pairs < FEWEST_PAIRS {
        return Err(Failure::Found(format!(
            "{} pairs were compared and {FEWEST_PAIRS} are the fewest that count; add guests to xtask/src/vm/pairs",
            done.pairs
        )));
    }
    say!(
        "vm: {} tests, {} pairs equal to the kernel's, {} other claims held, {:.1} minutes",
        tests.len(),
        done.pairs,
        done.claims,
        took.as_secs_f64() / 60.0
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(group: &'static str) -> Test {
        Test::new(group, "a test", |_| Ok(Done::default()))
    }

    fn passed(pairs: usize) -> TestResult {
        (Ok(Done { pairs, claims: 1 }), Duration::from_secs(6))
    }

    #[test]
    fn too_few_pairs_fail_the_whole_suite_and_no_part_of_it() {
        let tests = [test("pairs")];
        let results = [passed(FEWEST_PAIRS - 1)];
        assert!(judge(&tests, &results, true, Duration::ZERO).is_err());
        assert!(judge(&tests, &results, false, Duration::ZERO).is_ok());
        assert!(judge(&tests, &[passed(FEWEST_PAIRS)], true, Duration::ZERO).is_ok());
    }

    #[test]
    fn a_test_is_tried_anew_only_where_its_guest_was_not_well_and_no_more_than_three_times() {
        use std::cell::Cell;
        let times = Cell::new(0);
        let failing = || {
            times.set(times.get() + 1);
            Err(Failure::Stopped("late".into()))
        };
        assert!(tried("a test", failing, || None).is_err());
        assert_eq!(times.take(), 1);
        assert!(tried("a test", failing, || Some("stood still".into())).is_err());
        assert_eq!(times.take(), 3);
        let second = || failing().or_else(|failure| if times.get() == 2 { Ok(Done::default()) } else { Err(failure) });
        assert!(tried("a test", second, || Some("stood still".into())).is_ok());
        assert_eq!(times.get(), 2);
    }

    #[test]
    fn a_long_failure_keeps_what_it_is_and_how_it_ends() {
        let lines = |count: usize| (0..count).map(|at| format!("line {at}")).collect::<Vec<_>>().join("\n");
        assert_eq!(shortened(&lines(48)), lines(48));
        let short = shortened(&lines(50));
        assert!(short.starts_with("line 0\n") && short.ends_with("\nline 49"), "{short}");
        assert!(short.contains("line 7\n(2 lines, told above)\nline 10\n"), "{short}");
    }

    #[test]
    fn one_failed_test_fails_the_suite_and_is_named() {
        let tests = [test("pairs"), test("checks")];
        let results = [passed(5000), (Err(Failure::Stopped("hung".into())), Duration::ZERO)];
        let said = judge(&tests, &results, true, Duration::ZERO).unwrap_err().to_string();
        assert!(said.contains("1 of 2") && said.contains("checks: a test"), "{said}");
        assert!(summary(&tests, &results).contains("checks  1      1"), "{}", summary(&tests, &results));
    }

    #[test]
    fn a_kernel_without_a_table_is_named_with_what_to_add() {
        let kernel = |release: &str| Kernel { release: release.into(), ..Kernel::file(Path::new("x")) };
        assert!(has_a_table(&kernel("7.3.4+deb13-amd64")).is_ok());
        for release in ["7.4.0", "6.19.2", "vmlinuz"] {
            let said = has_a_table(&kernel(release)).unwrap_err().to_string();
            assert!(said.contains(release) && said.contains("whitelist.rs"), "{said}");
        }
    }

    #[test]
    fn the_command_line_is_read_whole_or_refused() {
        let words = |line: &str| line.split(' ').map(Into::into).collect::<Vec<String>>();
        let asked = Asked::parse(&words("pairs --random 3 --seed 9")).unwrap();
        assert_eq!(asked, Asked { only: Some("pairs".into()), random: 3, seed: 9, write_fixtures: false });
        for line in ["--random", "--random many", "--fast", "one two"] {
            assert!(matches!(Asked::parse(&words(line)), Err(Failure::Usage(_))), "{line}");
        }
    }
}
