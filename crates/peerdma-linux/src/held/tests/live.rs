//! This machine's own.

use crate::held::{Held, observe, of_this_process};
use peerdma::addr::Bytes;
use peerdma::pin::Counter;
use std::path::Path;

#[test]
fn this_process_is_found_with_its_limit_and_user_and_an_empty_ledger_is_told_of_it() {
    let own = || {
        let held = Held::read(Path::new("/proc")).unwrap();
        held.processes.into_iter().find(|process| process.pid == std::process::id()).unwrap()
    };
    let before = own();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    assert_eq!(before.limit.unwrap().soft, limit.current.map(Bytes::new));
    assert_eq!(before.uid, rustix::process::getuid().as_raw());
    assert!(before.registered.is_some());
    let mut ledger = of_this_process();
    observe(&mut ledger, &Held::read(Path::new("/proc")).unwrap());
    assert_eq!(ledger.reading(Counter::MmLocked).charged, Bytes::ZERO);
}

/// Processes come and go all the time while they are read.
#[test]
fn processes_that_end_meanwhile_are_no_error() {
    for _ in 0..30 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let held = Held::read(Path::new("/proc")).unwrap();
        assert!(!held.processes.is_empty());
        child.wait().unwrap();
    }
}
