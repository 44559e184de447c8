//! How long accesses to memory take while the kernel moves it, or has to find it: a histogram for each way to keep it.
//!
//! One thread reads a word of a page drawn at random, and looks at the clock before and after. Another makes the kernel
//! move what it can, a huge page at a time, or gives pages back. What an access takes beside the others is what a
//! driver's thread feels, and what a device would feel that could fault; times are printed and drawn, and decide nothing.

use peerdma::addr::Bytes;
use peerdma_linux::proof::{Fill, Keep, Sample, SampleError, huge_page_size};
use std::fmt::Write;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How memory is kept, and what is done to it meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Given back by another thread, so that accesses find new pages.
    Faulting,
    /// Left alone, while the kernel moves it.
    Plain,
    /// Locked, while the kernel moves it.
    Locked,
    /// Pinned, while the kernel tries to move it.
    Pinned,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Faulting, Self::Plain, Self::Locked, Self::Pinned];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faulting => "faulting",
            Self::Plain => "plain, moved",
            Self::Locked => "mlocked, moved",
            Self::Pinned => "pinned",
        }
    }

    const fn keep(self) -> Keep {
        match self {
            Self::Faulting | Self::Plain => Keep::Plain,
            Self::Locked => Keep::Locked,
            Self::Pinned => Keep::Pinned,
        }
    }
}

/// How long the kernel is asked to move memory in a round.
const LONG_ENOUGH: Duration = Duration::from_millis(40);

/// Steps of a histogram to each doubling of the time.
const STEPS: u32 = 2;

/// Steps that there are: up to some seconds.
const MOST: usize = 64;

/// How long accesses took.
#[derive(Clone, Debug)]
pub struct Jitter {
    /// Accesses by the time they took; the bounds double every [`STEPS`] of them.
    counts: [u64; MOST],
    sorted: Vec<u32>,
    /// Faults of the thread that accessed.
    pub faults: u64,
    /// Pages that lay elsewhere afterwards, of all, where that is shown or can be told.
    pub moved: f64,
}

impl Jitter {
    /// Nanoseconds that so many of a thousand accesses did not exceed.
    pub fn within(&self, of_a_thousand: usize) -> u32 {
        let at = (self.sorted.len() * of_a_thousand / 1000).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(at).copied().unwrap_or(0)
    }

    /// The longest.
    pub fn longest(&self) -> u32 {
        self.sorted.last().copied().unwrap_or(0)
    }

    /// How many accesses there were.
    pub fn accesses(&self) -> usize {
        self.sorted.len()
    }
}

/// Accesses memory that is kept in one way, a round after the other, each with memory of its own.
///
/// # Errors
/// Why there is no such memory here.
pub fn measure(kind: Kind, rounds: u32) -> Result<Jitter, SampleError> {
    let huge = huge_page_size().unwrap_or(Bytes::new(2 << 20)).as_u64();
    let len = Bytes::new(16 * huge);
    let mut jitter = Jitter { counts: [0; MOST], sorted: Vec::new(), faults: 0, moved: 0.0 };
    // The round before the first is that of a process that does all this for the first time.
    for round in 0..=rounds {
        let sample = Sample::new(kind.keep(), len, Fill::Distinct)?;
        let over = AtomicBool::new(false);
        let (times, faults) = thread::scope(|threads| {
            let accessing = threads.spawn(|| accesses(&sample, round, &over));
            disturb(kind, &sample);
            over.store(true, Ordering::Relaxed);
            accessing.join().unwrap_or_default()
        });
        if round == 0 {
            continue;
        }
        for &time in &times {
            jitter.counts[step(time)] += 1;
        }
        jitter.sorted.extend(times);
        jitter.faults += faults;
        jitter.moved += moved(kind, &sample) / f64::from(rounds);
    }
    jitter.sorted.sort_unstable();
    Ok(jitter)
}

/// What the other thread does, for as long as it takes; some tens of milliseconds.
fn disturb(kind: Kind, sample: &Sample) {
    if kind == Kind::Faulting {
        let mut random = 1_u64;
        for _ in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let parts = sample.range().len().as_u64() / 0x1_0000;
            // A part that is not there cannot be given back; there is none.
            let _ = sample.discard(Bytes::new((random >> 33) % parts * 0x1_0000), Bytes::new(0x1_0000));
        }
        return;
    }
    // Asked again and again, since a kernel that is busy may not move a page at the first time, and one that refuses is
    // quick about it.
    let start = Instant::now();
    while start.elapsed() < LONG_ENOUGH {
        black_box(sample.collapse());
    }
}

/// What part of it lay elsewhere in the end, by frames or by huge pages.
fn moved(kind: Kind, sample: &Sample) -> f64 {
    if kind == Kind::Faulting {
        return 0.0;
    }
    let by_frames = sample.moved().ok().flatten().map(|moved| moved.share());
    let by_size = || sample.in_huge_pages().map(|huge| huge.as_u64() as f64 / sample.range().len().as_u64() as f64);
    by_frames.unwrap_or_else(|| by_size().unwrap_or(0.0))
}

/// Nanoseconds of each access until the other is done, and how many of them had to find a page.
fn accesses(sample: &Sample, seed: u32, over: &AtomicBool) -> (Vec<u32>, u64) {
    // Room first, touched, so that no page is found for it while it is measured.
    let mut times = vec![1_u32; 1 << 20];
    // What the first run of anything finds, such as the clock's page, the loop's own and this thread's stack, is not the
    // memory's.
    timed(sample, seed, &AtomicBool::new(false), &mut times[..4096]);
    let faults = Faults::of_this_thread();
    black_box(faults.count());
    let before = faults.count();
    let made = timed(sample, seed, over, &mut times);
    let found = faults.count().saturating_sub(before);
    times.truncate(made);
    (times, found)
}

/// Accesses until it is over, or there is no more room for how long they took; how many.
#[inline(never)]
fn timed(sample: &Sample, seed: u32, over: &AtomicBool, times: &mut [u32]) -> usize {
    let pages = sample.range().len().as_u64() / 0x1000;
    let mut random = u64::from(seed) << 1 | 1;
    let mut made = 0;
    while !over.load(Ordering::Relaxed) && made < times.len() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = Bytes::new((random >> 33) % pages * 0x1000);
        let start = Instant::now();
        black_box(sample.load(offset));
        times[made] = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
        made += 1;
    }
    made
}

/// The file that tells of this thread's faults, read without a page of the heap.
struct Faults(Option<File>);

impl Faults {
    fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/stat").ok())
    }

    /// Those so far that took no reading from a disk.
    fn count(&self) -> u64 {
        let mut text = [0_u8; 1024];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        // The name may hold anything, and ends with the last bracket; the eighth word after it are minor faults.
        let end = text[..read].iter().rposition(|byte| *byte == b')').map_or(read, |at| at + 1);
        let word = text[end..read].split(|byte| *byte == b' ').filter(|word| !word.is_empty()).nth(7);
        word.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).unwrap_or(0)
    }
}

fn step(time: u32) -> usize {
    let time = time.max(1);
    let order = time.ilog2();
    // Which part of the doubling it is in.
    let part = ((u64::from(time) - (1 << order)) * u64::from(STEPS)) >> order;
    ((order * STEPS) as usize + part as usize).min(MOST - 1)
}

/// Where a step begins, in nanoseconds.
fn bound(step: usize) -> u64 {
    let (order, part) = (step as u32 / STEPS, u64::from(step as u32 % STEPS));
    (1 << order) + ((part << order) / u64::from(STEPS))
}

/// The histograms beside each other, as text.
pub fn drawn(measured: &[(Kind, Jitter)]) -> String {
    let mut text = String::new();
    let widest = 24.0;
    let _ = write!(text, "{:>9} ", "ns");
    for (kind, _) in measured {
        let _ = write!(text, " {:<25}", kind.name());
    }
    let used = |at: &usize| measured.iter().any(|(_, jitter)| jitter.counts[*at] > 0);
    let (first, last) = ((0..MOST).find(used).unwrap_or(0), (0..MOST).rev().find(used).unwrap_or(0));
    text = text.trim_end().to_string();
    for at in first..=last {
        let mut line = format!("{:>9} ", bound(at));
        for (_, jitter) in measured {
            let count = jitter.counts[at];
            // By tens: a bar that is full is all accesses, and the shortest one of them.
            let share = (count as f64).ln_1p() / (jitter.accesses() as f64).ln_1p().max(1.0);
            let _ = write!(line, " {:<25}", "#".repeat((share * widest).ceil() as usize));
        }
        let _ = write!(text, "\n{}", line.trim_end());
    }
    text.push('\n');
    text
}

/// What the histograms come to, a row for each.
pub fn summary(measured: &[(Kind, Jitter)]) -> String {
    let mut text = String::from("| memory | accesses | p50 | p99 | p99.9 | longest | faults | pages moved |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for (kind, jitter) in measured {
        let times = [jitter.within(500), jitter.within(990), jitter.within(999), jitter.longest()];
        let [p50, p99, p999, longest] = times.map(|time| format!("{time} ns"));
        let (accesses, faults, moved) = (jitter.accesses(), jitter.faults, 100.0 * jitter.moved);
        let moved = if *kind == Kind::Faulting { "given back".to_string() } else { format!("{moved:.1} %") };
        let _ = writeln!(
            text,
            "| {} | {accesses} | {p50} | {p99} | {p999} | {longest} | {faults} | {moved} |",
            kind.name()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_between_the_bounds_of_its_step() {
        for time in (1..5000).chain([65_535, 65_536, 1 << 30]) {
            let step = step(time);
            assert!(bound(step) <= u64::from(time), "{time} in step {step}");
            assert!(u64::from(time) < bound(step + 1).max(bound(step) + 1), "{time} in step {step}");
        }
        assert_eq!(step(u32::MAX), MOST - 1);
    }
}
