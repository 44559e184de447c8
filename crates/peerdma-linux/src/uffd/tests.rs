//! What this kernel tells, of a process with and without privilege.

use super::*;
use crate::mirror::tests::{alone, fork_once};
use crate::sys::region::Region;
use peerdma::addr::Bytes;
use peerdma::mirror::Event;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::Write;
use std::thread;

const PAGE: u64 = 4096;

/// Does something in another thread, and reads what comes meanwhile: whoever did it waits for that.
fn during(uffd: &Uffd, deed: impl FnOnce() + Send) -> Vec<Message> {
    thread::scope(|scope| {
        let doing = scope.spawn(deed);
        let mut heard = Vec::new();
        loop {
            let over = doing.is_finished();
            let mut asked = [PollFd::new(uffd, PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            poll(&mut asked, Some(&wait)).unwrap();
            while let Some(next) = uffd.next().unwrap() {
                heard.push(next.message);
            }
            if over {
                return heard;
            }
        }
    })
}

fn part(region: &Region, first: u64, count: u64) -> AddrRange<ProcVa> {
    region.at().slice(Bytes::new(first * PAGE), Bytes::new(count * PAGE)).unwrap()
}

/// Memory that is watched. It comes first, so that it is dropped last: unmapping it waits for whoever reads.
fn watched(pages: u64) -> (Region, Uffd) {
    let uffd = Uffd::open(Forks::NotTold).unwrap();
    let region = Region::map(None, Bytes::new(pages * PAGE)).unwrap();
    uffd.watch(region.at(), Watch::Events).unwrap();
    (region, uffd)
}

#[test]
fn a_discard_an_unmapping_and_a_move_are_told_and_nothing_else_waits() {
    let (mut region, uffd) = watched(8);
    let whole = region.at();
    // Touching, by whoever it is, tells nobody.
    region.write(whole.start(), &[1; 16]).unwrap();
    assert!(uffd.next().unwrap().is_none());
    let second = part(&region, 1, 1);
    assert_eq!(during(&uffd, || region.discard(second).unwrap()), [Message::Discard(second)]);
    assert_eq!(during(&uffd, || region.protect(second, None).unwrap()), []);
    region.protect(second, Some(peerdma::access::Prot::ReadWrite)).unwrap();
    let place = Region::map(None, whole.len()).unwrap();
    let heard = during(&uffd, || region.remap(place).unwrap());
    let moved = region.at();
    assert_eq!(heard, [Message::Remap { from: whole, to: moved.start() }, Message::Unmap(whole)]);
    let first = moved.start();
    assert_eq!(during(&uffd, || region.replace().unwrap()), [Message::Unmap(moved)]);
    assert_eq!(during(&uffd, || region.write(first, &[1]).unwrap()), [], "the new mapping is not watched");
}

#[test]
fn of_a_fork_a_privileged_process_is_told_and_the_child_is_let_go() {
    alone("uffd::tests::of_a_fork_a_privileged_process_is_told_and_the_child_is_let_go", told_of_a_fork);
}

fn told_of_a_fork() {
    let region = Region::map(None, Bytes::new(PAGE)).unwrap();
    let uffd = match Uffd::open(Forks::Told) {
        Ok(uffd) => uffd,
        Err(OpenError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
            assert!(!rustix::process::geteuid().is_root(), "root is told of forks");
            let skipped = format!("SKIPPED uffd-forks: {source}; being told of forks takes CAP_SYS_PTRACE\n");
            let _ = std::io::stderr().write_all(skipped.as_bytes());
            return;
        }
        Err(error) => unreachable!("{error}"),
    };
    uffd.watch(region.at(), Watch::Events).unwrap();
    let heard = during(&uffd, fork_once);
    assert!(matches!(heard[..], [Message::Fork { .. }]), "{heard:?}");
    assert_eq!(heard[0].event(), Some(Event::Fork));
}

#[test]
fn missing_pages_are_brought_by_copies_and_by_zeros() {
    let uffd = Uffd::open(Forks::NotTold).unwrap();
    let pages = crate::sys::map::Mapping::anonymous(2 * PAGE as usize).unwrap();
    let at = AddrRange::new(pages.address(), Bytes::new(2 * PAGE)).unwrap();
    uffd.watch(at, Watch::Missing).unwrap();
    let [first, second] = [0, PAGE].map(|offset| at.slice(Bytes::new(offset), Bytes::new(PAGE)).unwrap());
    thread::scope(|scope| {
        let reader = scope.spawn(|| [pages.load_u64(8).unwrap(), pages.load_u64(PAGE as usize + 8).unwrap()]);
        let mut brought = 0;
        while brought < 2 {
            poll(&mut [PollFd::new(&uffd, PollFlags::IN)], None).unwrap();
            let Some(heard) = uffd.next().unwrap() else { continue };
            let Message::Fault { at, write: false, protected: false } = heard.message else {
                unreachable!("{heard:?}")
            };
            match at.as_u64() < second.start().as_u64() {
                true => uffd.copy(first.start(), &[7; PAGE as usize]).unwrap(),
                false => uffd.zero(second).unwrap(),
            }
            brought += 1;
        }
        assert_eq!(reader.join().unwrap(), [u64::from_ne_bytes([7; 8]), 0]);
    });
    let there = uffd.copy(first.start(), &[1; PAGE as usize]).unwrap_err();
    assert_eq!(there.raw_os_error(), Some(libc::EEXIST));
    uffd.wake(first).unwrap();
    uffd.leave(at).unwrap();
}

#[test]
fn memory_that_cannot_be_watched_is_refused_by_name() {
    let (region, uffd) = watched(1);
    let other = Uffd::open(Forks::NotTold).unwrap();
    assert!(matches!(other.watch(region.at(), Watch::Events), Err(WatchError::Watched { .. })));
    let nothing = AddrRange::new(ProcVa::new(PAGE), Bytes::new(PAGE)).unwrap();
    assert!(matches!(uffd.watch(nothing, Watch::Events), Err(WatchError::NotWatchable { .. })));
}
