//! Kernels and filters that give no ring, and processes without descriptors.

use super::child::{Memlock, Other, say};
use super::*;
use crate::memory::Pages;
use crate::pin::error::Signs;
use crate::pin::{Pin, PinError, RingError};
use crate::sys::disturb::refuse_io_uring;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;

pub(super) fn play(role: &str, words: &[&str]) {
    match role {
        "filtered" => {
            refuse_io_uring(if words[0] == "EPERM" { Errno::PERM } else { Errno::NOSYS });
            for ring in [Ring::Best, Ring::Descriptor] {
                say(&match Pinner::with(Options::default().ring(ring)) {
                    Err(error) => error.to_string(),
                    Ok(_) => "a ring".to_string(),
                });
            }
            // Nothing is pinned in its place, and mlock is there for whoever asks for it.
            let pages = Arc::new(Pages::zeroed(pages(1)).unwrap());
            say(&crate::mlock::Locked::new(pages).is_ok().to_string());
        }
        "without-descriptors" => without_descriptors(),
        "forbidden" => {
            let Some(forbidden) = settings::NoIoUring::now() else { return say("not allowed to") };
            let refused = [Ring::Best, Ring::Descriptor].map(|ring| Pinner::with(Options::default().ring(ring)));
            drop(forbidden);
            refused.into_iter().for_each(|refused| say(&refused.unwrap_err().to_string()));
        }
        _ => (),
    }
}

fn without_descriptors() {
    let before = Pinner::new().unwrap();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limits }).unwrap();
    let mut all = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    let memory = Arc::new(Pages::zeroed(pages(1)).unwrap());
    let pin = |pinner: &Pinner| -> Result<Pin, PinError> { pinner.pin(Arc::clone(&memory)) };
    // One that is there goes on, and still knows why not.
    say(&format!("{}", pin(&before).is_ok()));
    let low = peerdma::addr::ProcVa::new(page());
    say(&before.pin_foreign(low, pages(1)).unwrap_err().to_string());
    match Pinner::with(Options::default().ring(Ring::Descriptor)) {
        Err(error @ RingError::Descriptors { .. }) => say(&error.to_string()),
        other => say(&format!("{other:?}")),
    }
    // A ring without a descriptor needs none.
    match Pinner::new() {
        Ok(pinner) => say(&format!("{:?} {}", pinner.ring_kind(), pin(&pinner).is_ok())),
        Err(error) => say(&error.to_string()),
    }
}

#[test]
fn a_seccomp_filter_is_named_and_nothing_is_done_in_place_of_a_pin() {
    for answer in ["EPERM", "ENOSYS"] {
        let other = Other::start(&format!("filtered {answer}"), None, Memlock::AsItIs);
        for _ in 0..2 {
            let text = other.says();
            assert!(text.starts_with("io_uring_setup is refused"), "{text}");
            assert!(text.contains("under a seccomp filter") && text.contains("or use mlock"), "{text}");
        }
        assert_eq!(other.says(), "true");
    }
}

#[test]
fn the_sysctl_that_forbids_io_uring_is_named() {
    let other = Other::start("forbidden", None, Memlock::AsItIs);
    for _ in 0..2 {
        match other.says().as_str() {
            "not allowed to" => return skip("io_uring-sysctl", settings::REASON),
            text => assert!(
                text.starts_with("io_uring is disabled for this process (kernel.io_uring_disabled = 2)"),
                "{text}"
            ),
        }
    }
}

#[test]
fn what_the_sysctl_forbids_is_told_from_what_a_filter_forbids() {
    let of = |disabled, filtered| RingError::refused(Errno::PERM, Signs { disabled, filtered }).to_string();
    let all = of(Some(2), true);
    assert!(all.contains("kernel.io_uring_disabled = 2") && !all.contains("group"), "{all}");
    assert!(of(Some(1), false).contains("run in the group kernel.io_uring_group, or use mlock"));
    assert!(of(Some(0), true).contains("seccomp"));
    assert!(of(None, false).contains("security module"));
    let absent = RingError::absent(Signs { disabled: None, filtered: false });
    assert!(matches!(absent, RingError::NotOffered), "{absent}");
    assert!(absent.to_string().contains("use mlock"));
}

#[test]
fn a_process_out_of_descriptors_pins_all_the_same_without_one() {
    let other = Other::start("without-descriptors", None, Memlock::AsItIs);
    assert_eq!(other.says(), "true");
    let refused = other.says();
    assert!(refused.ends_with("is not mapped; map it first"), "{refused}");
    let text = other.says();
    assert!(text.starts_with("no descriptor is left for the ring") && text.ends_with("raise RLIMIT_NOFILE"), "{text}");
    let last = other.says();
    assert!(last == "RegisteredOnly true" || last == text, "{last}");
}
