//! A mirror on this kernel: what is owned, what is foreign, what is pinned, and what nobody is told of.

mod children;
mod foreign;
mod late;
mod moving;
mod owned;
mod pinned;
mod unprivileged;
mod waking;

use super::*;
use crate::sys::region::Region;
use peerdma::addr::Bytes;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const PAGE: u64 = 4096;

/// A moment that only a failure reaches.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn pages(count: u64) -> Bytes {
    Bytes::new(count * PAGE)
}

/// The page of this number.
fn page(of: AddrRange<ProcVa>, number: u64) -> AddrRange<ProcVa> {
    of.slice(pages(number), pages(1)).unwrap()
}

/// Serves in another thread while something is done; what was heard.
fn served<R>(mirror: &Mirror<()>, body: impl FnOnce() -> R) -> (R, Served) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut all = Served::default();
            loop {
                let last = over.load(Ordering::Acquire);
                let served = mirror.serve(Instant::now() + Duration::from_millis(2)).unwrap();
                all.heard.extend(served.heard);
                all.diverged.extend(served.diverged);
                all.requests += served.requests;
                if last {
                    return all;
                }
            }
        });
        // Also when the body fails, or the scope would wait for ever.
        let stop = Stop(&over);
        let done = body();
        drop(stop);
        (done, serving.join().unwrap())
    })
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs a test in a process of its own: a fork of any thread waits for everybody who asked to be told of it.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "PEERDMA_MIRROR_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(ALONE, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    for skipped in errors.lines().filter(|line| line.starts_with("SKIPPED")) {
        let _ = std::io::stderr().write_all(format!("{skipped}\n").as_bytes());
    }
}

/// Forks a child that runs another program. A user that is named has the standard library fork, and not share memory.
pub(crate) fn fork_once() {
    let mut command = Command::new("true");
    command.uid(rustix::process::geteuid().as_raw());
    assert!(command.status().unwrap().success());
}

/// Something that says it is a pin. It holds nothing; what a mirror does with one is the question.
struct Said {
    at: AddrRange<ProcVa>,
    dropped: Arc<AtomicBool>,
}

impl Holds for Said {
    fn holds(&self) -> AddrRange<ProcVa> {
        self.at
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Release);
    }
}

fn said(at: AddrRange<ProcVa>) -> (Said, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    (Said { at, dropped: Arc::clone(&dropped) }, dropped)
}
