//! A context that does not leave in time, and what others find then and afterwards.

use super::*;

/// Longer than anything here takes, and much shorter than the server sleeps.
const LITTLE: Duration = Duration::from_secs(5);

fn in_a_moment() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

/// Has a context stay inside while something is done; that is told how to have it leave.
fn while_somebody_stays<R>(mirror: &Mirror<()>, during: impl FnOnce(&dyn Fn()) -> R) -> R {
    let mut slow = mirror.context("slow engine").unwrap();
    let (inside, leave) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let device = scope.spawn(|| {
            slow.run(|| {
                inside.store(true, Ordering::Release);
                while !leave.load(Ordering::Acquire) {
                    thread::yield_now();
                }
            });
        });
        let left = Stop(&leave);
        while !inside.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let done = during(&|| leave.store(true, Ordering::Release));
        drop(left);
        device.join().unwrap();
        done
    })
}

/// A change gave up, and nobody else comes to change anything: the gate was closed for as long as the server slept.
#[test]
fn after_a_change_that_was_late_a_device_goes_on_while_the_server_sleeps() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let at = owned.range().start();
    thread::scope(|scope| {
        let server = scope.spawn(|| mirror.serve(Instant::now() + 4 * LITTLE).unwrap());
        while_somebody_stays(&mirror, |leave| {
            owned.discard(owned.range(), in_a_moment()).unwrap_err();
            leave();
        });
        let start = Instant::now();
        context.read(at, &mut [0; 8], soon()).unwrap();
        assert!(start.elapsed() < LITTLE, "it waited for the server to wake up by itself");
        assert_eq!(server.join().unwrap().requests, 1);
    });
}

#[test]
fn after_any_change_that_was_late_a_device_goes_on_although_nobody_serves() {
    let mirror = Mirror::new(()).unwrap();
    let owned = mirror.create_pinned(pages(1), |at| Ok::<_, RangeError>(said(at).0)).unwrap();
    let at = owned.range().start();
    let region = Region::map(None, pages(1)).unwrap();
    let id = mirror.watch(region.at(), Prot::Read).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let changes: [&dyn Fn() -> ChangeError; 3] = [
        &|| mirror.leave(id, in_a_moment()).unwrap_err(),
        &|| owned.protect(owned.range(), Some(Prot::Read), in_a_moment()).unwrap_err(),
        &|| owned.discard(owned.range(), in_a_moment()).unwrap_err(),
    ];
    for change in changes {
        while_somebody_stays(&mirror, |_| assert!(matches!(change(), ChangeError::StillInUse(_))));
        context.read(at, &mut [0; 8], soon()).unwrap();
    }
    let mut owned = owned;
    while_somebody_stays(&mirror, |_| assert!(owned.take_down(in_a_moment()).is_err()));
    context.read(at, &mut [0; 8], soon()).unwrap();
    served(&mirror, || drop(region));
}

#[test]
fn a_deadline_holds_while_somebody_else_keeps_the_gate_closed() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let at = owned.range().start();
    while_somebody_stays(&mirror, |_| {
        owned.discard(owned.range(), in_a_moment()).unwrap_err();
        let start = Instant::now();
        let read = context.read(at, &mut [0; 8], in_a_moment()).unwrap_err();
        assert!(matches!(read, AccessError::Closed { .. }), "{read}");
        let write = context.write(at, &[0; 8], in_a_moment()).unwrap_err();
        assert!(matches!(write, AccessError::Closed { .. }), "{write}");
        assert!(start.elapsed() < LITTLE);
    });
}

/// The deadline of a change holds also while another one waits for the device.
#[test]
fn a_change_waits_for_another_no_longer_than_it_may() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let (owned, other) = (mirror.create(pages(1)).unwrap(), mirror.create(pages(1)).unwrap());
    while_somebody_stays(&mirror, |leave| {
        thread::scope(|scope| {
            let patient = scope.spawn(|| other.discard(other.range(), soon()));
            while mirror.is_open() {
                thread::yield_now();
            }
            let start = Instant::now();
            let late = owned.discard(owned.range(), in_a_moment()).unwrap_err();
            assert!(late.to_string().contains("another change"), "{late}");
            assert!(start.elapsed() < LITTLE);
            leave();
            patient.join().unwrap().unwrap();
        });
    });
}
