//! Ends: exit, exec, SIGKILL, with and without children that go on; and what comes back how soon.

use super::child::{Memlock, Other, User, hear, is_limited, say};
use super::*;
use crate::memory::{Backing, Pages};
use crate::pin::{Held, PinError, RingError};
use crate::sys::disturb::{fork_sleeper, fork_storm, in_a_forked_child};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages of the limit in these tests: those that are pinned fit once, with a dozen rings that are on their way out.
const LIMIT: u64 = 60;
const HELD: u64 = 32;
/// What a ring of one entry is charged itself.
const RING: u64 = 2;

fn options(kind: &str) -> Options {
    Options::default().ring(if kind == "descriptor" { Ring::Descriptor } else { Ring::Best })
}

pub(super) fn play(role: &str, words: &[&str]) {
    match role {
        "hold" => hold(words),
        "prober" => prober(),
        "exec" => {
            let pinner = Pinner::with(options(words[0])).unwrap();
            let pin = pinner.pin(Arc::new(Pages::zeroed(pages(HELD)).unwrap())).unwrap();
            say("pinned");
            hear();
            let error = Command::new("sleep").arg("60").exec();
            unreachable!("{error} {pin:?}");
        }
        "churn" => churn(words[0]),
        "takes" => {
            // Of another process, or of this one: a number that its parent left open.
            let pid = words[0].parse().ok().and_then(Pid::from_raw).unwrap_or_else(rustix::process::getpid);
            let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
            let held = Held::of_process(process.as_fd(), &[words[1].parse().unwrap()]).unwrap();
            let ranges = held.ranges().unwrap();
            say(&format!("{} {}", ranges.len(), ranges[0].len()));
            hear();
        }
        _ => (),
    }
}

/// Pins, and does with that what it is told; with a child that sleeps if asked.
fn hold(words: &[&str]) {
    is_limited();
    let pinner = Pinner::with(options(words[0])).unwrap();
    let pin = pinner.pin(Arc::new(Pages::zeroed(pages(HELD)).unwrap())).unwrap();
    let kept = pinner.descriptors().unwrap_or_default();
    let child = (words.get(1) == Some(&"with-child")).then(fork_sleeper);
    let number = kept.first().map_or(-1, AsRawFd::as_raw_fd);
    say(&format!("{} {number}", child.map_or(0, Pid::as_raw_pid)));
    match hear().as_deref() {
        Some("drop") => {
            drop(pin);
            say("dropped");
            hear();
        }
        _ => drop((pin, kept)),
    }
}

/// Says how long it takes until as many pages can be pinned as the others held, or all that the limit leaves beside the ring.
fn prober() {
    is_limited();
    let pinner = Pinner::new().unwrap();
    let [some, all] = [HELD, LIMIT - RING].map(|count| Arc::new(Pages::zeroed(pages(count)).unwrap()));
    say("ready");
    while let Some(line) = hear() {
        let memory = if line == "all" { &all } else { &some };
        let (start, mut tries) = (Instant::now(), 1);
        loop {
            // Let go before anything is said: what comes next has to fit too.
            match pinner.pin(Arc::clone(memory)).map(drop) {
                Ok(()) => break say(&format!("{tries} {}", start.elapsed().as_millis())),
                Err(PinError::Limit { .. }) if line == "once" => break say("held"),
                Err(PinError::Limit { .. }) if start.elapsed() < Duration::from_secs(20) => tries += 1,
                Err(error) => unreachable!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Pins and lets go from four threads until it is killed.
fn churn(kind: &str) {
    is_limited();
    // Rings of those that were just killed may not be gone.
    let ring = || match Pinner::with(options(kind)) {
        Err(RingError::Limit { .. }) => None,
        pinner => Some(pinner.unwrap()),
    };
    let pinner = loop {
        if let Some(pinner) = ring() {
            break pinner;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    say("churning");
    std::thread::scope(|scope| {
        for count in [1, 3, 8, 20] {
            let pinner = &pinner;
            scope.spawn(move || {
                loop {
                    let memory = Arc::new(Pages::backed(Backing::Private, pages(count)).unwrap());
                    let pins: Vec<_> = (0..4).map(|_| pinner.pin(Arc::clone(&memory))).collect();
                    assert!(pins.iter().all(|pin| matches!(pin, Ok(_) | Err(PinError::Limit { .. }))));
                }
            });
        }
    });
}

/// What tells whether charges are back.
struct Prober(Other);

impl Prober {
    fn of(user: User) -> Self {
        let other = Other::start("prober", Some(user), Memlock::Of(pages(LIMIT)));
        assert_eq!(other.says(), "ready");
        Self(other)
    }

    fn is_held(&mut self) -> bool {
        self.0.tell("once");
        self.0.says() == "held"
    }

    /// How many tries it took, and how many milliseconds.
    fn until_free(&mut self) -> (u64, u64) {
        self.until("until")
    }

    /// The same until not a page of the limit is held by anybody else.
    fn until_all_free(&mut self) -> (u64, u64) {
        self.until("all")
    }

    fn until(&mut self, what: &str) -> (u64, u64) {
        self.0.tell(what);
        let said = self.0.says();
        let (tries, ms) = said.split_once(' ').unwrap();
        (tries.parse().unwrap(), ms.parse().unwrap())
    }
}

/// A process that pins; its child, and its descriptor's number.
fn holder(user: User, role: &str) -> (Other, Option<Pid>, String) {
    let other = Other::start(&format!("hold {role}"), Some(user), Memlock::Of(pages(LIMIT)));
    let said = other.says();
    let (child, number) = said.split_once(' ').unwrap();
    (other, Pid::from_raw(child.parse().unwrap()), number.to_string())
}

/// Two seconds, and what else a machine under load adds until a process runs again.
const SOON_MS: u64 = 2000;

#[test]
fn charges_of_a_dropped_pin_are_back_before_drop_returns() {
    let Some(user) = User::unused("pins-life") else { return };
    let mut prober = Prober::of(user);
    for kind in ["best", "descriptor"] {
        let (mut owner, ..) = holder(user, kind);
        assert!(prober.is_held());
        owner.tell("drop");
        assert_eq!(owner.says(), "dropped");
        assert_eq!(prober.until_free().0, 1, "the first try");
    }
}

#[test]
fn charges_are_back_soon_after_an_exit_an_exec_and_a_kill() {
    let Some(user) = User::unused("pins-life") else { return };
    let mut prober = Prober::of(user);
    for kind in ["best", "descriptor"] {
        let (mut owner, ..) = holder(user, kind);
        assert!(prober.is_held());
        owner.tell("exit");
        owner.ends();
        let after_exit = prober.until_free().1;
        let mut owner = Other::start(&format!("exec {kind}"), Some(user), Memlock::Of(pages(LIMIT)));
        assert_eq!(owner.says(), "pinned");
        assert!(prober.is_held());
        owner.tell("exec");
        let after_exec = prober.until_free().1;
        let mut after_kill: Vec<u64> = (0..9)
            .map(|_| {
                let (mut owner, ..) = holder(user, kind);
                owner.kill();
                prober.until_free().1
            })
            .collect();
        after_kill.sort_unstable();
        let (median, worst) = (after_kill[4], after_kill[8]);
        note(&format!(
            "pins: charges of a {kind} ring are back {after_exit} ms after exit, {after_exec} ms after exec, {median} ms after \
             SIGKILL (median of 9, worst {worst})"
        ));
        assert!(after_exit.max(after_exec).max(worst) < SOON_MS);
    }
}

#[test]
fn a_forked_child_keeps_what_a_descriptor_holds_and_nothing_else() {
    let Some(user) = User::unused("pins-life") else { return };
    let mut prober = Prober::of(user);
    let (mut owner, child, _) = holder(user, "best with-child");
    let child = child.unwrap();
    let best = Pinner::new().unwrap().ring_kind();
    owner.kill();
    if best == RingKind::RegisteredOnly {
        assert!(prober.until_free().1 < SOON_MS, "the child lives, and holds nothing");
    }
    kill_process(child, Signal::KILL).unwrap();
    prober.until_free();

    let (mut owner, child, _) = holder(user, "descriptor with-child");
    let child = child.unwrap();
    owner.kill();
    std::thread::sleep(Duration::from_millis(300));
    assert!(prober.is_held(), "the child has the ring");
    kill_process(child, Signal::KILL).unwrap();
    assert!(prober.until_free().1 < SOON_MS);
}

#[test]
fn a_ring_taken_by_pidfd_or_inherited_holds_until_its_last_holder_is_gone() {
    let Some(user) = User::unused("pins-life") else { return };
    let mut prober = Prober::of(user);
    let (mut owner, _, number) = holder(user, "descriptor");
    let mut taker = Other::start(&format!("takes {} {number}", owner.pid().as_raw_pid()), Some(user), Memlock::AsItIs);
    assert_eq!(taker.says(), format!("1 {}", pages(HELD)));
    owner.kill();
    std::thread::sleep(Duration::from_millis(200));
    assert!(prober.is_held(), "the taker has it");
    taker.kill();
    assert!(prober.until_free().1 < SOON_MS);

    let pinner = Pinner::with(options("descriptor")).unwrap();
    let pin = pinner.pin(Arc::new(Pages::zeroed(pages(3)).unwrap())).unwrap();
    let left_open = pinner.inheritable().unwrap();
    let heir = Other::start(&format!("takes self {}", left_open[0].as_raw_fd()), None, Memlock::AsItIs);
    assert_eq!(heir.says(), format!("1 {}", pages(3)));
    drop((pin, left_open));
}

#[test]
fn a_hundred_kills_at_random_moments_leave_nothing_pinned() {
    let Some(user) = User::unused("pins-life") else { return };
    let mut prober = Prober::of(user);
    let mut random = std::process::id();
    for round in 0..25 {
        let kind = if round % 2 == 0 { "best" } else { "descriptor" };
        // All limits are those of one user: most of what these try is refused, and none of it may stay.
        let start = |_| Other::start(&format!("churn {kind}"), Some(user), Memlock::Of(pages(4 * LIMIT)));
        let mut four: Vec<_> = (0..4).map(start).collect();
        four.iter().for_each(|other| assert_eq!(other.says(), "churning"));
        for other in &mut four {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(Duration::from_micros(u64::from(random >> 18)));
            other.kill();
        }
    }
    let (_, ms) = prober.until_all_free();
    assert!(ms < SOON_MS, "{ms} ms");
}

#[test]
fn a_forked_child_is_refused_and_lets_nothing_of_its_parent_go() {
    for pinner in both_kinds() {
        let memory = Arc::new(Pages::zeroed(pages(2)).unwrap());
        let mut pin = Some(pinner.pin(Arc::clone(&memory)).unwrap());
        let mut other = Some(pinner.clone());
        let answer = in_a_forked_child(Duration::from_secs(30), || {
            let refused = matches!(pinner.pin(Arc::clone(&memory)), Err(PinError::Forked { .. }))
                && pinner.pins().is_empty()
                && pinner.descriptors().is_err();
            drop(pin.take());
            drop(other.take());
            u8::from(!refused)
        });
        assert_eq!(answer, Some(0));
        let file = rustix::fs::memfd_create("alive", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let pin = pin.unwrap();
        assert_eq!(
            pin.write_to(&file, Bytes::ZERO, Bytes::ZERO, pages(2)).unwrap(),
            pages(2),
            "the slot is still filled"
        );
    }
}

#[test]
fn a_forked_child_gets_copies_of_pinned_pages_and_the_parent_keeps_them() {
    for pinner in both_kinds() {
        let memory = Arc::new(Pages::backed(Backing::Private, pages(2)).unwrap());
        memory.write(Bytes::ZERO, b"before").unwrap();
        let pin = pinner.pin(Arc::clone(&memory)).unwrap();
        let answer = in_a_forked_child(Duration::from_secs(30), || {
            let mut seen = [0; 6];
            let same = memory.read(Bytes::ZERO, &mut seen).is_ok() && &seen == b"before";
            let wrote = memory.write(Bytes::ZERO, b"childs").is_ok();
            u8::from(!(same && wrote))
        });
        assert_eq!(answer, Some(0));
        let file = rustix::fs::memfd_create("device", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, b"device", 0).unwrap();
        pin.read_from(&file, Bytes::ZERO, Bytes::new(6), Bytes::new(6)).unwrap();
        let mut seen = [0; 12];
        memory.read(Bytes::ZERO, &mut seen).unwrap();
        assert_eq!(&seen, b"beforedevice");
    }
}

#[test]
fn pins_keep_their_pages_through_a_storm_of_forks() {
    for pinner in both_kinds() {
        // Private memory is what a fork shares until somebody writes; pinned pages are copied for the child instead.
        let memory = Arc::new(Pages::backed(Backing::Private, pages(64)).unwrap());
        let pin = pinner.pin(Arc::clone(&memory)).unwrap();
        let file = rustix::fs::memfd_create("source", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| fork_storm(60));
            let mut turn = 0_u8;
            while !storm.is_finished() {
                turn = turn.wrapping_add(1);
                rustix::io::pwrite(&file, &vec![turn; 64 * page() as usize], 0).unwrap();
                assert_eq!(pin.read_from(&file, Bytes::ZERO, Bytes::ZERO, pages(64)).unwrap(), pages(64));
                let mut seen = vec![0; 64 * page() as usize];
                memory.read(Bytes::ZERO, &mut seen).unwrap();
                assert!(seen.iter().all(|byte| *byte == turn), "the CPU sees what the device wrote");
                // A write by the CPU must not part them either.
                memory.write(Bytes::new(page()), &[turn ^ 0xff]).unwrap();
            }
        });
        assert_eq!(pin.probe().unwrap(), crate::pin::Standing::Live);
    }
}
