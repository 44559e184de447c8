//! Memory that the mirror owns: the device is stopped before anything happens.

use super::*;
use peerdma::mirror::{Answer, Event, Token, Wanted};

#[test]
fn a_device_reads_and_writes_what_the_process_does() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(4)).unwrap();
    let at = owned.range().start();
    owned.write(at, b"from the process").unwrap();
    let ((), served) = served(&mirror, || {
        let mut bytes = [0; 16];
        context.read(at, &mut bytes, soon()).unwrap();
        assert_eq!(&bytes, b"from the process");
        // Across a page's end, which is two requests, and a third as the first page was for reading.
        let edge = ProcVa::new(at.as_u64() + PAGE - 4);
        context.write(edge, b"device's", soon()).unwrap();
    });
    assert_eq!(served.requests, 3);
    let mut bytes = [0; 8];
    owned.read(ProcVa::new(at.as_u64() + PAGE - 4), &mut bytes).unwrap();
    assert_eq!(&bytes, b"device's");
    assert_eq!((mirror.counts().brought, mirror.counts().requests_in_pinned), (3, 0));
}

#[test]
fn closed_memory_is_refused_and_opened_memory_is_not() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(2)).unwrap();
    let first = page(owned.range(), 0);
    served(&mirror, || {
        context.write(first.start(), &[1; 8], soon()).unwrap();
        owned.protect(first, Some(Prot::Read), soon()).unwrap();
        let refused = context.write(first.start(), &[2; 8], soon()).unwrap_err();
        assert!(matches!(refused, AccessError::Refused { answer: Answer::Invalid, .. }), "{refused}");
        let mut bytes = [0; 8];
        context.read(first.start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [1; 8]);
        owned.protect(first, None, soon()).unwrap();
        assert!(
            context.read(first.start(), &mut bytes, soon()).is_err() && owned.read(first.start(), &mut bytes).is_err()
        );
        owned.protect(first, Some(Prot::ReadWrite), soon()).unwrap();
        context.write(first.start(), &[3; 8], soon()).unwrap();
    });
    let half = owned.range().slice(Bytes::new(8), pages(1)).unwrap();
    assert!(matches!(owned.discard(half, soon()), Err(ChangeError::Outside { .. })));
}

#[test]
fn what_was_thrown_away_is_zeros_for_both_and_what_moved_is_at_its_new_place() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let mut owned = mirror.create(pages(2)).unwrap();
    let before = owned.range();
    served(&mirror, || {
        context.write(before.start(), &[7; 8], soon()).unwrap();
        owned.discard(page(before, 0), soon()).unwrap();
        let mut bytes = [1; 8];
        context.read(before.start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [0; 8]);
        context.write(page(before, 1).start(), &[9; 8], soon()).unwrap();
        owned.remap(None, pages(3), soon()).unwrap();
        let after = owned.range();
        assert!(after.start() != before.start() && after.len() == pages(3));
        assert!(context.read(before.start(), &mut bytes, soon()).is_err(), "nothing is registered there");
        context.read(page(after, 1).start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [9; 8]);
        context.write(page(after, 2).start(), &bytes, soon()).unwrap();
        // A place that is taken: it stays where it is.
        let other = Region::map(None, pages(3)).unwrap();
        assert!(matches!(owned.remap(Some(other.at().start()), pages(3), soon()), Err(ChangeError::Kernel { .. })));
        assert_eq!(owned.range(), after);
        context.read(page(after, 1).start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [9; 8]);
    });
}

/// The device's access is under way when the memory is to go; it goes when that is over, and not before.
#[test]
fn memory_is_unmapped_when_the_device_is_out() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("slow engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let at = owned.range().start();
    let (inside, leave) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let device = scope.spawn(|| {
            context.run(|| {
                inside.store(true, Ordering::Release);
                while !leave.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                copy_in(at, &[5; 8])
            })
        });
        while !inside.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let late = owned.discard(owned.range(), Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert!(late.to_string().contains("slow engine"), "{late}");
        assert!(!mirror.is_open(), "nobody else gets in meanwhile");
        leave.store(true, Ordering::Release);
        device.join().unwrap().unwrap();
        // Whoever serves opens what nobody came back to.
        mirror.serve(Instant::now()).unwrap();
        assert!(mirror.is_open());
    });
    let mut bytes = [0; 8];
    owned.read(at, &mut bytes).unwrap();
    assert_eq!(bytes, [5; 8], "nothing was thrown away");
    owned.unmap(soon()).unwrap();
    assert!(copy_out(at, &mut bytes).is_err());
}

#[test]
fn nobody_answers_is_an_error_and_the_request_is_answered_later() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let at = owned.range().start();
    let mut bytes = [0; 8];
    let late = context.read(at, &mut bytes, Instant::now() + Duration::from_millis(5)).unwrap_err();
    assert!(matches!(late, AccessError::Late { .. }));
    served(&mirror, || context.read(at, &mut bytes, soon()).unwrap());
}

#[test]
fn the_descriptor_tells_when_somebody_asks() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create(pages(1)).unwrap();
    let at = owned.range().start();
    let look = |longest: i64| {
        let timeout = Timespec { tv_sec: longest, tv_nsec: 0 };
        poll(&mut [PollFd::new(&mirror, PollFlags::IN)], Some(&timeout)).unwrap()
    };
    assert_eq!(mirror.serve(Instant::now()).unwrap(), Served::default());
    assert_eq!(look(0), 0);
    thread::scope(|scope| {
        let device = scope.spawn(|| context.write(at, &[1], soon()).unwrap());
        assert_eq!(look(60), 1);
        assert_eq!(mirror.serve(Instant::now()).unwrap().requests, 1);
        device.join().unwrap();
    });
    assert_eq!(look(0), 0);
}

/// A table that keeps what the device was told, and what it was told to do.
#[derive(Default)]
struct Kept {
    mapped: Vec<AddrRange<ProcVa>>,
    answers: Vec<(Token, Answer)>,
}

impl DeviceTable for Kept {
    fn map(&mut self, at: AddrRange<ProcVa>, _prot: Prot) -> bool {
        self.mapped.push(at);
        true
    }

    fn unmap(&mut self, at: AddrRange<ProcVa>) {
        self.mapped.retain(|page| !at.contains_range(page));
    }

    fn quiesce(&mut self) {}

    fn answer(&mut self, asked: Token, answer: Answer) {
        self.answers.push((asked, answer));
    }
}

#[test]
fn a_request_that_meets_a_change_is_answered_when_that_is_over() {
    let mirror = Mirror::of_owned_memory(Kept::default()).unwrap();
    let owned = mirror.create(pages(2)).unwrap();
    let ask = |number: u64| {
        let wanted = Wanted { at: page(owned.range(), number).start(), access: peerdma::access::Access::Write };
        mirror.request(Token(number), wanted);
    };
    ask(0);
    let change = Event::Discard(page(owned.range(), 0));
    let during = mirror.shared.announce(&change, soon(), || {
        // The page that changes waits, the other does not.
        ask(0);
        ask(1);
        mirror.with_table(|table| (table.mapped.clone(), table.answers.len()))
    });
    assert_eq!(during.unwrap(), (vec![page(owned.range(), 1)], 2));
    let success = |number| (Token(number), Answer::Success);
    mirror.with_table(|table| assert_eq!(table.answers, [success(0), success(1), success(0)]));
    assert_eq!(mirror.present(), [(owned.range(), Prot::ReadWrite)]);
}
