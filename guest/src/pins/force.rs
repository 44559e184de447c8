//! What a force is, and the knobs of the kernel's that make one.

use super::zones::{self, Zone};
use super::{Said, moved};
use crate::failure::Failure;
use peerdma::addr::Bytes;
use peerdma_linux::proof::{Fill, Keep, Sample};
use rustix::param::page_size;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a kernel or machine lacks, by name.
pub(super) struct Missing(pub(super) String);

/// The three kinds of memory, at once.
pub(super) struct Samples {
    /// Plain, locked and pinned.
    pub(super) kinds: [Sample; 3],
    /// What has to lie beside them while the force is applied, and nobody looks at.
    _beside: Vec<Sample>,
}

/// One way to make the kernel move pages.
pub(super) struct Force {
    pub(super) name: &'static str,
    /// Which knob, in a few words.
    pub(super) how: &'static str,
    /// Makes the samples where it will find them.
    pub(super) make: fn(Bytes) -> Result<Samples, Failure>,
    /// Whether this kernel and machine have it; what has to be set before the samples are made is set.
    pub(super) ready: fn() -> Result<(), Missing>,
    /// Applies it to the samples once.
    pub(super) apply: fn(&Samples) -> Result<Said, Missing>,
    /// How often it is applied at most, until plain and locked memory have moved, with new samples each time or the same.
    pub(super) tries: Tries,
}

/// What is done about a force that did not move plain memory yet.
pub(super) enum Tries {
    /// The same samples once more, for so long and so many times: a guest that stood still has lost time and no attempt.
    Again(Duration, u32),
    /// New samples elsewhere, so many times.
    Anew(u32),
}

/// By so much more the next samples lie elsewhere; a sixth of a guest's node of memory, about.
const ELSEWHERE: Bytes = Bytes::new(48 << 20);
/// Plain and locked memory that has moved by so much has been under a force.
const ENOUGH: f64 = 0.9;

/// Applies a force to samples of this size until plain and locked memory have moved, or it is no use.
pub(super) fn under(force: &Force, size: Bytes) -> Result<Result<(Samples, Said), Missing>, Failure> {
    let begun = Instant::now();
    let mut attempt = 0;
    let mut samples = (force.make)(size)?;
    loop {
        attempt += 1;
        let said = match (force.apply)(&samples) {
            Ok(said) => said,
            Err(missing) => return Ok(Err(missing)),
        };
        // Plain and locked memory; whether pinned memory moved nobody waits for.
        let mut under_it = true;
        for sample in &samples.kinds[..2] {
            let (pages, gone) = moved(sample)?;
            under_it &= gone as f64 >= ENOUGH * pages as f64;
        }
        if under_it {
            return Ok(Ok((samples, said)));
        }
        match force.tries {
            Tries::Again(longest, fewest) if begun.elapsed() < longest || attempt < fewest => {}
            Tries::Anew(most) if attempt < most => {
                // What is taken before makes the next lie elsewhere, and is free again under the force.
                let before = Bytes::new(ELSEWHERE.as_u64() * u64::from(attempt));
                drop(samples);
                let elsewhere = Sample::new(Keep::Plain, before, Fill::Distinct).map_err(Failure::Sample)?;
                samples = (force.make)(size)?;
                drop(elsewhere);
            }
            _ => return Ok(Ok((samples, said))),
        }
    }
}

/// Samples wherever they come to lie, with something else in each page.
pub(super) fn anywhere(size: Bytes) -> Result<Samples, Failure> {
    samples(Fill::Distinct, size)
}

/// The same with the same in all pages.
pub(super) fn alike(size: Bytes) -> Result<Samples, Failure> {
    samples(Fill::Same, size)
}

fn samples(fill: Fill, size: Bytes) -> Result<Samples, Failure> {
    let one = |keep| Sample::new(keep, size, fill).map_err(Failure::Sample);
    Ok(Samples { kinds: [one(Keep::Plain)?, one(Keep::Locked)?, one(Keep::Pinned)?], _beside: Vec::new() })
}

/// Of so many samples, made one after the other, those of plain and locked memory that lie lowest in a zone for movable
/// memory, or in any zone if none lies in such; every second page of the rest is free again.
///
/// Compaction moves pages to free ones that have neighbours in use: a block of pages that is free as a whole is what it is there
/// to make, and is left alone (Linux 7.2 `suitable_migration_target`). With the rest freed whole, it finds no place for anything.
pub(super) fn lowest_of(count: usize, size: Bytes) -> Result<Samples, Failure> {
    let one = |keep| Sample::new(keep, size, Fill::Distinct).map_err(Failure::Sample);
    let zones = zones::all();
    let mut by_height: [Vec<((bool, f64), Sample)>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..count {
        for (kind, keep) in by_height.iter_mut().zip([Keep::Plain, Keep::Locked]) {
            let sample = one(keep)?;
            let frames = sample.frames().map_err(Failure::Sample)?;
            let height = |zone: &Zone| Some((!zone.movable, zone.height(&frames)?));
            kind.push((zones.iter().find_map(height).unwrap_or((true, f64::INFINITY)), sample));
        }
    }
    let [mut plain, mut locked] = by_height.map(|mut kind| {
        kind.sort_by(|one, other| one.0.0.cmp(&other.0.0).then(one.0.1.total_cmp(&other.0.1)));
        kind.into_iter().map(|(_, sample)| sample)
    });
    let (Some(lowest_plain), Some(lowest_locked)) = (plain.next(), locked.next()) else {
        return Err(Failure::Nothing { what: "no sample was made", next: "make one at least" });
    };
    // The other locked ones are free again, as wholes: of what is locked no page can be given back.
    drop(locked);
    let beside: Vec<Sample> = plain.collect();
    beside.iter().try_for_each(give_back_half)?;
    Ok(Samples { kinds: [lowest_plain, lowest_locked, one(Keep::Pinned)?], _beside: beside })
}

/// Gives every second page of a sample back.
fn give_back_half(sample: &Sample) -> Result<(), Failure> {
    let page = Bytes::new(page_size() as u64);
    for at in (0..sample.range().len().as_u64()).step_by(2 * page_size()) {
        sample.discard(Bytes::new(at), page).map_err(Failure::GiveBack)?;
    }
    Ok(())
}

/// Writes a knob.
pub(super) fn set(path: &str, value: &str) -> Result<(), Missing> {
    fs::write(path, value).map_err(|error| Missing(format!("{path} does not take `{value}`: {error}")))
}

/// Writes a knob that some kernels do not have, and that makes things only faster.
pub(super) fn set_if_there(path: &str, value: &str) {
    // Without it the force takes longer, and says so by not having moved enough.
    let _ = fs::write(path, value);
}

/// Refuses a kernel without a file, in words.
pub(super) fn need(path: &str, what: &str) -> Result<(), Missing> {
    if Path::new(path).exists() { Ok(()) } else { Err(Missing(format!("{what}: there is no {path}"))) }
}

/// Runs this thread on one processor from now on.
pub(super) fn run_on(cpu: usize) -> Result<(), Missing> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| Missing(format!("there is no processor {cpu}: {error}")))
}
