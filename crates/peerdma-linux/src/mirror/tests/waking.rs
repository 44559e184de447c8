//! Who is woken, and when waiting is over.

use super::*;

/// Longer than anything here takes, and much shorter than the server sleeps.
const LITTLE: Duration = Duration::from_secs(5);

/// A look beside the server said that the server looks by itself, which then slept through the next request.
#[test]
fn a_look_beside_a_server_that_sleeps_takes_no_wake_up_from_it() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let at = owned.range().start();
    thread::scope(|scope| {
        let server = scope.spawn(|| mirror.serve(Instant::now() + 4 * LITTLE).unwrap());
        // By then it sleeps; if it does not, nothing is shown, and nothing fails.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(mirror.poll().unwrap(), Served::default());
        assert_eq!(mirror.poll_requests(), 0);
        let start = Instant::now();
        context.read(at, &mut [0; 8], soon()).unwrap();
        assert!(start.elapsed() < LITTLE, "it waited for the server to wake up by itself");
        assert_eq!(server.join().unwrap().requests, 1);
    });
}

/// Each page that comes is progress, so that whoever looks at the clock only while it waits for one never does.
#[test]
fn a_deadline_holds_while_pages_go_as_soon_as_they_come() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let (at, over) = (owned.range().start(), AtomicBool::new(false));
    thread::scope(|scope| {
        // Says that the page is there; it is gone again when the device looks.
        let churn = scope.spawn(|| {
            let start = Instant::now();
            while !over.load(Ordering::Acquire) && start.elapsed() < 2 * LITTLE {
                let queue = &mirror.shared.queue;
                queue.serve(|token, _| assert!(queue.respond(token, peerdma::mirror::Answer::Success)));
            }
        });
        let end = Stop(&over);
        let start = Instant::now();
        let late = context.read(at, &mut [0; 8], Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(late, AccessError::Late { .. }), "{late}");
        assert!(start.elapsed() < LITTLE);
        drop(end);
        churn.join().unwrap();
    });
}
