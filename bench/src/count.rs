//! What does not depend on the machine's mood: instructions, and bytes on the heap.
//!
//! Both are found in processes of their own. Of instructions there are those of three times
//! N turns and of N, so that what a side builds first does not count. Bytes are counted by
//! a global allocator that would change the times of peers.

use crate::callgrind;
use crate::row::{Row, Side};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

/// What to start.
pub struct Programs {
    /// This bench, which callgrind runs.
    pub bench: PathBuf,
    /// The one with the counting allocator.
    pub heap: PathBuf,
}

/// What a side holds and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Bytes held once it is built.
    pub held: u64,
    /// Allocations of its turns.
    pub allocations: u64,
}

/// Instructions a unit for each side of a row, by its place; none where it is not counted.
///
/// # Errors
/// As [`callgrind::instructions`].
pub fn instructions(row: &Row, programs: &Programs) -> io::Result<Vec<Option<f64>>> {
    let counted: Vec<usize> = (0..row.sides.len()).filter(|&nth| row.sides[nth].counted > 0).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![None; row.sides.len()]));
    let worker = || -> io::Result<()> {
        while let Some(&nth) = counted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let count = of_side(row, &row.sides[nth], &programs.bench)?;
            found.lock().unwrap_or_else(PoisonError::into_inner)[nth] = Some(count);
        }
        Ok(())
    };
    // Counts are the same however many run at once.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|threads| {
        let workers: Vec<_> = (0..processors).map(|_| threads.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread that runs callgrind ended early")))
        })
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn of_side(row: &Row, side: &Side, bench: &Path) -> io::Result<f64> {
    let once = |turns: u64| callgrind::instructions(bench, &["--count", row.id, side.name, &turns.to_string()]);
    let difference = once(3 * side.counted)?.saturating_sub(once(side.counted)?);
    Ok(difference as f64 / (2 * side.counted * side.units) as f64)
}

/// What a side holds and takes in `turns` turns.
///
/// # Errors
/// If the program cannot be run, or does not print two numbers.
pub fn heap(row: &Row, side: &Side, turns: u64, programs: &Programs) -> io::Result<Heap> {
    let output = Command::new(&programs.heap)
        .args([row.id, side.name, &turns.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut numbers = printed.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(held)), Some(Ok(allocations))) if output.status.success() => Ok(Heap { held, allocations }),
        _ => Err(io::Error::other(format!("{} {} counted nothing: {printed:?}", row.id, side.name))),
    }
}
