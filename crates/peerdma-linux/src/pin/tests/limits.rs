//! Limits, in processes that they apply to.

use super::child::{Memlock, Other, User, hear, is_limited, say};
use super::*;
use crate::held;
use crate::memory::Pages;
use crate::pin::{Admission, Booked, Need, Pin, PinError, RingError};
use peerdma::pin::{Counter, OwnerId, OwnerLimits, SharedLedger};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Barrier};

/// Pins of single pages, as many as there may be at most, and why there are no more.
fn fill(pinner: &Pinner, most: usize) -> (Vec<Pin>, Option<PinError>) {
    let memory = Arc::new(Pages::zeroed(pages(most as u64)).unwrap());
    let mut pins = Vec::new();
    for number in 0..most as u64 {
        match pinner.pin_part(Arc::clone(&memory), Bytes::new(number * page()), pages(1)) {
            Ok(pin) => pins.push(pin),
            Err(error) => return (pins, Some(error)),
        }
    }
    (pins, None)
}

fn name(error: Option<&PinError>) -> &'static str {
    match error {
        None => "no error",
        Some(PinError::Limit { .. }) => "limit",
        Some(PinError::NotAdmitted { .. }) => "not admitted",
        Some(_) => "another error",
    }
}

fn best_or(kind: &str) -> Options {
    Options::default().ring(if kind == "descriptor" { Ring::Descriptor } else { Ring::Best })
}

pub(super) fn play(role: &str, words: &[&str]) {
    match role {
        "fill" => {
            is_limited();
            match Pinner::with(best_or(words[0])) {
                Ok(pinner) => {
                    let (pins, error) = fill(&pinner, 5000);
                    say(&format!("{} {}", pins.len(), name(error.as_ref())));
                    drop(pins);
                    say(&format!("{} again", fill(&pinner, 5000).0.len()));
                }
                Err(error @ RingError::Limit { .. }) => say(&error.to_string()),
                Err(error) => say(&format!("{error:?}")),
            }
        }
        "fill-booked" => {
            is_limited();
            let nic = OwnerId::new(0);
            let mut ledger = held::of_this_process();
            ledger.describe_owner(nic, "nic", OwnerLimits::NONE);
            let ledger = SharedLedger::new(ledger);
            let booked = Arc::new(Booked::new(ledger.clone(), nic));
            let pinner = Pinner::with(Options::default().admission(booked)).unwrap();
            let (pins, error) = fill(&pinner, 5000);
            say(&format!("{} {}", pins.len(), name(error.as_ref())));
            say(&error.unwrap().to_string());
            drop((pins, pinner));
            say(&ledger.reading(Counter::UserLocked).charged.to_string());
        }
        "fill-text" => {
            is_limited();
            let (pins, error) = fill(&Pinner::new().unwrap(), 5000);
            say(&format!("{} {}", pins.len(), name(error.as_ref())));
            say(&error.unwrap().to_string());
        }
        "fill-unlimited" => {
            let pinner = Pinner::new().unwrap();
            let (pins, error) = fill(&pinner, 5000);
            say(&format!("{} {}", pins.len(), name(error.as_ref())));
        }
        "one-too-large" => {
            is_limited();
            let pinner = Pinner::new().unwrap();
            let large = Arc::new(Pages::zeroed(pages(300)).unwrap());
            say(&pinner.pin(large).unwrap_err().to_string());
            // Nothing was pinned or even touched for it.
            say(&fill(&pinner, 5000).0.len().to_string());
        }
        "race" => {
            is_limited();
            race();
        }
        "hold-half" => {
            is_limited();
            let pinner = Pinner::new().unwrap();
            let (pins, _) = fill(&pinner, words[0].parse().unwrap());
            say(&pins.len().to_string());
            hear();
        }
        _ => (),
    }
}

/// Eight threads pin and let go; nobody ever has more than the limit, and in the end all of it is there again.
fn race() {
    let pinner = Pinner::new().unwrap();
    let most = fill(&pinner, 5000).0.len();
    let (held, refused, start) = (AtomicUsize::new(0), AtomicU64::new(0), Barrier::new(8));
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (pinner, held, refused, start) = (&pinner, &held, &refused, &start);
            scope.spawn(move || {
                let mut random = fastrand_of(seed);
                let memory = Arc::new(Pages::zeroed(pages(8)).unwrap());
                let mut mine = Vec::new();
                start.wait();
                for turn in 0..300 {
                    let count = random() % 8 + 1;
                    match pinner.pin_part(Arc::clone(&memory), Bytes::ZERO, pages(count)) {
                        Ok(pin) => {
                            assert!(held.fetch_add(count as usize, Ordering::SeqCst) + (count as usize) <= most);
                            mine.push((pin, count as usize));
                        }
                        Err(PinError::Limit { .. }) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => unreachable!("{error}"),
                    }
                    if random().is_multiple_of(3) || mine.len() > 3 || turn == 299 {
                        for (pin, count) in mine.drain(..) {
                            // Counted as gone before it is, so that the count is never too low for what is there.
                            held.fetch_sub(count, Ordering::SeqCst);
                            drop(pin);
                        }
                    }
                }
            });
        }
    });
    let again = fill(&pinner, 5000).0.len();
    say(&format!("{} {}", refused.into_inner() > 0, again == most));
}

/// A generator of its own for each thread (xorshift64).
fn fastrand_of(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    }
}

#[test]
fn a_limit_of_sixteen_pages_leaves_fourteen_as_the_ring_is_charged_too() {
    for kind in ["best", "descriptor"] {
        let Some(user) = User::unused("pins-limits") else { return };
        let other = Other::start(&format!("fill {kind}"), Some(user), Memlock::Of(pages(16)));
        assert_eq!(other.says(), "14 limit", "{kind}");
        assert_eq!(other.says(), "14 again", "charges of dropped pins are back at once");
    }
}

#[test]
fn a_mebibyte_is_a_mebibyte() {
    let Some(user) = User::unused("pins-limits") else { return };
    let all = (1 << 20) / page();
    let other = Other::start("fill best", Some(user), Memlock::Of(Bytes::new(1 << 20)));
    assert_eq!(other.says(), format!("{} limit", all - 2));
}

#[test]
fn without_any_limit_left_the_ring_itself_is_refused_by_name() {
    let Some(user) = User::unused("pins-limits") else { return };
    for kind in ["best", "descriptor"] {
        let other = Other::start(&format!("fill {kind}"), Some(user), Memlock::Of(Bytes::ZERO));
        let text = "the ring itself needs two pages of RLIMIT_MEMLOCK 0 bytes, and they are not left; raise the limit";
        assert_eq!(other.says(), text, "{kind}");
    }
}

#[test]
fn a_process_without_a_limit_is_refused_nothing() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Memlock).maximum;
    match Limit::of_this_thread() {
        // More than the limit that does not apply.
        Limit::None => {
            let most = (hard.unwrap_or(1 << 20) / page() + 10).min(5000) as usize;
            let (pins, error) = fill(&Pinner::new().unwrap(), most);
            assert_eq!((pins.len(), name(error.as_ref())), (most, "no error"));
        }
        Limit::Memlock(_) => skip("pins-no-limit", "this process has no CAP_IPC_LOCK"),
    }
    if hard.is_some() {
        return skip("pins-unlimited", "RLIMIT_MEMLOCK is limited here, and nobody may raise it");
    }
    let Some(user) = User::unused("pins-limits") else { return };
    assert_eq!(Other::start("fill-unlimited", Some(user), Memlock::AsItIs).says(), "5000 no error");
}

#[test]
fn a_pin_above_the_limit_is_refused_before_the_kernel_pins_it() {
    let Some(user) = User::unused("pins-limits") else { return };
    let other = Other::start("one-too-large", Some(user), Memlock::Of(pages(16)));
    let text = other.says();
    assert!(text.contains("is all that may be; raise the limit or pin less"), "{text}");
    assert_eq!(other.says(), "14");
}

#[test]
fn eight_threads_at_the_limit_never_pass_it_and_lose_nothing() {
    let Some(user) = User::unused("pins-limits") else { return };
    let other = Other::start("race", Some(user), Memlock::Of(pages(24)));
    assert_eq!(other.says(), "true true");
}

#[test]
fn processes_of_one_user_share_the_limit() {
    let Some(user) = User::unused("pins-limits") else { return };
    let holder = Other::start("hold-half 10", Some(user), Memlock::Of(pages(32)));
    assert_eq!(holder.says(), "10");
    let other = Other::start("fill-text", Some(user), Memlock::Of(pages(32)));
    assert_eq!(other.says(), "18 limit", "two rings of two pages, and ten pages of the other");
    let text = other.says();
    let named = format!("{} by process {} (", pages(10), holder.pid().as_raw_pid());
    assert!(text.contains("which all processes of this user share") && text.contains(&named), "{text}");
}

#[test]
fn a_ledger_refuses_before_the_kernel_and_its_books_close_with_the_pinner() {
    let Some(user) = User::unused("pins-limits") else { return };
    let other = Other::start("fill-booked", Some(user), Memlock::Of(pages(16)));
    assert_eq!(other.says(), "14 not admitted");
    let text = other.says();
    assert!(text.contains("pin of 4 KiB by io_uring for nic refused: this user has"), "{text}");
    assert_eq!(other.says(), "0 bytes");
}

/// Whoever keeps books is asked before, and told after.
#[derive(Debug, Default)]
struct Books {
    pinned: AtomicU64,
    asked: AtomicU64,
}

impl Admission for Books {
    fn admit(&self, need: &Need) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let after = self.pinned.load(Ordering::Relaxed) + need.charge.as_u64();
        if after > 3 * page() {
            return Err(format!("the books have room for {} less", Bytes::new(after - 3 * page())).into());
        }
        self.pinned.store(after, Ordering::Relaxed);
        Ok(())
    }

    fn released(&self, need: &Need) {
        self.pinned.fetch_sub(need.charge.as_u64(), Ordering::Relaxed);
    }
}

#[test]
fn whoever_keeps_the_books_is_asked_first_and_told_last() {
    let books = Arc::new(Books::default());
    let pinner = Pinner::with(Options::default().admission(Arc::clone(&books) as _)).unwrap();
    let memory = Arc::new(Pages::zeroed(pages(2)).unwrap());
    let pin = pinner.pin(Arc::clone(&memory)).unwrap();
    let refused = pinner.pin(Arc::clone(&memory)).unwrap_err();
    assert!(refused.to_string().ends_with("is not pinned: the books have room for 4 KiB less"), "{refused}");
    drop(pin);
    assert_eq!(books.pinned.load(Ordering::Relaxed), 0);
    let low = peerdma::addr::ProcVa::new(page());
    assert!(pinner.pin_foreign(low, pages(1)).is_err());
    assert_eq!(books.asked.load(Ordering::Relaxed), 2, "nobody is asked for what is no memory");
}
