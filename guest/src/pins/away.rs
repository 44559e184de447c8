//! Moves out of memory that is wanted for something else: contiguous memory, and memory that goes offline.

use super::Said;
use super::force::{Force, Missing, Samples, Tries, anywhere, need, run_on, set_if_there};
use peerdma_linux::proof::Sample;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel's own file to allocate from CMA takes `CONFIG_CMA_DEBUGFS`. Without it there is one way from outside:
/// gigantic pages, which come from an area of CMA's of their own (`hugetlb_cma=`).
const GIGANTIC: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";

pub(super) const CMA: Force = Force {
    name: "cma",
    how: "a page of 1 GiB out of hugetlb_cma=1G",
    make: anywhere,
    ready: contiguous,
    apply: allocate,
    tries: Tries::Anew(6),
};

fn contiguous() -> Result<(), Missing> {
    need(GIGANTIC, "pages of 1 GiB")?;
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !line.contains("hugetlb_cma=") {
        return Err(Missing("no hugetlb_cma= on the kernel's command line".into()));
    }
    set_if_there("/proc/sys/kernel/numa_balancing", "0");
    run_on(0)
}

fn allocate(samples: &Samples) -> Result<Said, Missing> {
    let before = place(samples, 1 << 30, "the area")?;
    let count = |value: &str| {
        // Fewer than asked for is no error of the file's.
        set_if_there(GIGANTIC, value);
        fs::read_to_string(GIGANTIC).unwrap_or_default().trim().to_string()
    };
    let got = count("1");
    if got != "1" {
        count("0");
        return Err(Missing(format!("the kernel found {got} pages of 1 GiB: CMA gave none{}", log_of("cma"))));
    }
    count("0");
    Ok(before)
}

/// Lines of the kernel's log with a word in them, for whoever has to find out.
fn log_of(word: &str) -> String {
    let log = Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    log.lines().filter(|line| line.to_lowercase().contains(word)).map(|line| format!("; {line}")).collect()
}

/// How much of each sample lies in memory that begins at a multiple of `unit` and holds most of plain memory.
fn place(samples: &Samples, unit: u64, name: &str) -> Result<Said, Missing> {
    let page = peerdma_linux::memory::page_size().as_u64();
    let frames = |sample: &Sample| sample.frames().map_err(|error| Missing(error.to_string()));
    let blocks = |frames: &[u64]| -> Vec<u64> { frames.iter().map(|frame| frame * page / unit).collect() };
    let plain = blocks(&frames(&samples.kinds[0])?);
    let most = plain.iter().max_by_key(|block| plain.iter().filter(|other| other == block).count()).copied();
    let told = samples.kinds.iter().map(|sample| {
        let of = blocks(&frames(sample)?);
        let there = of.iter().filter(|block| Some(**block) == most).count();
        Ok((sample.keep(), format!("{there} of {} pages lay in {name}", of.len())))
    });
    told.collect()
}

pub(super) const OFFLINE: Force = Force {
    name: "offline",
    how: "/sys/devices/system/memory/memoryN/state, movablecore=",
    make: anywhere,
    ready: removable,
    apply: take_offline,
    tries: Tries::Anew(8),
};

const MEMORY: &str = "/sys/devices/system/memory";

fn removable() -> Result<(), Missing> {
    need(&format!("{MEMORY}/block_size_bytes"), "CONFIG_MEMORY_HOTREMOVE")?;
    set_if_there("/proc/sys/kernel/numa_balancing", "0");
    run_on(0)
}

/// Takes all blocks offline in which a sample lies, and online again.
fn take_offline(samples: &Samples) -> Result<Said, Missing> {
    let size = fs::read_to_string(format!("{MEMORY}/block_size_bytes")).unwrap_or_default();
    let size = u64::from_str_radix(size.trim(), 16).map_err(|_| Missing("block_size_bytes is no number".into()))?;
    let page = peerdma_linux::memory::page_size().as_u64();
    let mut blocks_of = Vec::new();
    for sample in &samples.kinds {
        let frames = sample.frames().map_err(|error| Missing(error.to_string()))?;
        blocks_of.push((sample.keep(), frames.iter().map(|frame| frame * page / size).collect::<BTreeSet<u64>>()));
    }
    // Samples may share a block, which goes offline once.
    let mut answers: BTreeMap<u64, String> = BTreeMap::new();
    for block in blocks_of.iter().flat_map(|(_, blocks)| blocks) {
        answers.entry(*block).or_insert_with(|| {
            let zone = fs::read_to_string(format!("{MEMORY}/memory{block}/valid_zones")).unwrap_or_default();
            // `none` is what the kernel says of a block that belongs to more than one zone.
            let zone =
                zone.split_whitespace().next().filter(|zone| *zone != "none").unwrap_or("several zones").to_string();
            let answer = write_within(&format!("{MEMORY}/memory{block}/state"), "offline", Duration::from_secs(5));
            format!("block {block}, {zone}: {answer}")
        });
    }
    for block in answers.keys() {
        set_if_there(&format!("{MEMORY}/memory{block}/state"), "online_movable");
    }
    let told = |(keep, blocks): (_, BTreeSet<u64>)| {
        let words: Vec<&str> = blocks.iter().filter_map(|block| answers.get(block)).map(String::as_str).collect();
        (keep, words.join("; "))
    };
    Ok(blocks_of.into_iter().map(told).collect())
}

/// Writes a file in a process of its own, and ends that after a while: the kernel tries to empty a block until it is
/// interrupted.
fn write_within(path: &str, value: &str, longest: Duration) -> String {
    let script = format!("echo {value} > {path}");
    let started = Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = started else { return "sh cannot be started".into() };
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return format!("{value} done"),
            Ok(Some(_)) => {
                let said = child.wait_with_output().map(|output| output.stderr).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).trim().to_string();
                return format!("{value} refused ({})", said.rsplit(": ").next().unwrap_or_default());
            }
            Ok(None) if begun.elapsed() < longest => sleep(Duration::from_millis(50)),
            _ => {
                // It ends at the signal, or has ended; either way it is gone after the wait.
                let _ = child.kill();
                let _ = child.wait();
                return format!("{value} not done within {} s", longest.as_secs());
            }
        }
    }
}
