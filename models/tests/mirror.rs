//! A device context, whoever serves its page requests, and a process that gives memory another meaning.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::access::{Access, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::buffer::guard::{Drained, Gate, Portable};
use peerdma::mirror::{
    Answer, Asking, Brought, Event, Fault, Finished, Keeping, MirrorState, Queue, Ring, Token, Wanted,
};
use peerdma_models::orders;
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread;
use std::sync::Arc;
use std::time::Duration;

/// A model has no clock; its waits end with what is waited for.
const ANY: Duration = Duration::from_secs(1);
const PAGE: u64 = 4096;

/// What an eventfd is between processes' threads.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

fn page(number: u64) -> AddrRange<ProcVa> {
    AddrRange::new(ProcVa::new(number * PAGE), Bytes::new(PAGE)).unwrap()
}

fn ask(context: &mut Asking, bell: &Bell, wanted: Wanted) {
    if context.ask(wanted).unwrap() == Ring::Wake {
        bell.ring();
    }
}

/// A server that sleeps whenever it may, until it has answered so often.
fn serve(queue: &Queue, bell: &Bell, most: usize, mut answer: impl FnMut(Token, Wanted) -> usize) {
    let mut answered = 0;
    while answered < most {
        let mut asked = Vec::new();
        queue.serve(|token, wanted| asked.push((token, wanted)));
        for (token, wanted) in asked.drain(..) {
            answered += answer(token, wanted);
        }
        if answered < most && queue.fall_asleep() {
            bell.wait();
            queue.awake();
        }
    }
}

#[test]
fn a_server_that_sleeps_is_woken_by_whoever_asks() {
    orders::some(6000, || {
        let (queue, bell) = (Queue::new(2), Arc::new(Bell::default()));
        let contexts: Vec<_> = (0..2)
            .map(|number| {
                let (mut context, bell) = (queue.seat().unwrap(), Arc::clone(&bell));
                thread::spawn(move || {
                    for round in 0..2 {
                        let wanted = Wanted { at: ProcVa::new(number * PAGE + round), access: Access::Read };
                        ask(&mut context, &bell, wanted);
                        while context.answer().is_none() {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        serve(&queue, &bell, 4, |token, _| usize::from(queue.respond(token, Answer::Success)));
        contexts.into_iter().for_each(|context| context.join().unwrap());
    });
}

/// Whoever looks beside a server leaves it to whoever asks to wake that one up.
#[test]
fn a_look_beside_a_server_that_sleeps_takes_no_wake_up_from_it() {
    orders::some(6000, || {
        let (queue, bell, done) = (Queue::new(1), Arc::new(Bell::default()), Arc::new(AtomicU64::new(0)));
        let device = {
            let (mut context, bell, done) = (queue.seat().unwrap(), Arc::clone(&bell), Arc::clone(&done));
            thread::spawn(move || {
                for round in 0..2 {
                    ask(&mut context, &bell, Wanted { at: ProcVa::new(round * PAGE), access: Access::Read });
                    while context.answer().is_none() {
                        thread::yield_now();
                    }
                }
                done.store(1, Ordering::SeqCst);
                bell.ring();
            })
        };
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.serve(|token, _| assert!(queue.respond(token, Answer::Success))))
        };
        while done.load(Ordering::SeqCst) == 0 {
            queue.awake();
            queue.serve(|token, _| assert!(queue.respond(token, Answer::Success)));
            if queue.fall_asleep() {
                bell.wait();
            }
        }
        device.join().unwrap();
        other.join().unwrap();
    });
}

/// A mirror, the device's table with what it leads to, and the bell of whoever serves.
struct Mirror {
    state: Mutex<(MirrorState, Option<u64>)>,
    /// What the process has in its page: a number that changes when the memory is another.
    memory: AtomicU64,
    gate: Gate<Portable>,
    turn: Mutex<()>,
    left_closed: AtomicBool,
    queue: Queue,
    bell: Bell,
}

impl Mirror {
    /// As `peerdma_linux::mirror::Shared::quiet` with no time at all: `None` leaves the gate closed.
    fn quiet(&self) -> Option<(Drained<Portable>, MutexGuard<'_, ()>)> {
        let turn = self.turn.lock().unwrap();
        let drained = self.gate.close().try_drained();
        self.left_closed.store(drained.is_err(), Ordering::SeqCst);
        drained.ok().map(|drained| (drained, turn))
    }

    /// As `peerdma_linux::mirror::Shared::reopen`.
    fn reopen(&self) {
        if self.left_closed.load(Ordering::SeqCst)
            && let Ok(_turn) = self.turn.try_lock()
            && self.left_closed.load(Ordering::SeqCst)
            && let Ok(drained) = self.gate.close().try_drained()
        {
            self.left_closed.store(false, Ordering::SeqCst);
            drained.open().unwrap();
        }
    }

    /// Serves one request as far as it can be.
    fn answer(&self, token: Token, mut wanted: Wanted) {
        let respond = |answer| assert!(self.queue.respond(token, answer), "it waits for this answer");
        loop {
            let asked = self.state.lock().unwrap().0.fault(wanted, token);
            let ticket = match asked {
                Fault::Bring(ticket) => ticket,
                Fault::Parked => return,
                Fault::Answer(answer) => return respond(answer),
            };
            // Without the lock, as touching a page may take long.
            let touched = self.memory.load(Ordering::SeqCst);
            let mut state = self.state.lock().unwrap();
            match state.0.finish(ticket, Brought::Page(Prot::ReadWrite)) {
                Finished::Map { .. } => {
                    state.1 = Some(touched);
                    drop(state);
                    return respond(Answer::Success);
                }
                Finished::Answer(answer) => return respond(answer),
                Finished::Again(again) => wanted = again,
            }
        }
    }

    /// What the owner of memory does: nobody is inside while the memory becomes another.
    fn discard(&self) {
        let turn = self.turn.lock().unwrap();
        let drained = self.gate.close().wait_at_most(ANY).unwrap();
        self.left_closed.store(false, Ordering::SeqCst);
        self.change(drained, turn);
    }

    /// The same for an owner that does not wait: nothing happens where somebody is inside.
    fn discard_at_once(&self) {
        if let Some((drained, turn)) = self.quiet() {
            self.change(drained, turn);
        }
    }

    fn change(&self, drained: Drained<Portable>, turn: MutexGuard<'_, ()>) {
        let invalidation = {
            let mut state = self.state.lock().unwrap();
            let invalidation = state.0.begin(&Event::Discard(page(1)));
            state.1 = None;
            invalidation
        };
        self.memory.fetch_add(1, Ordering::SeqCst);
        let ended = self.state.lock().unwrap().0.end(invalidation);
        drained.open().unwrap();
        drop(turn);
        ended.parked.into_iter().for_each(|parked| self.answer(parked.token, parked.wanted));
    }
}

/// The device finds in its table what the process has, as long as it is inside; and it gets on.
#[test]
fn whoever_is_inside_uses_what_the_process_has() {
    device_and_process(|mirror| {
        mirror.discard();
        mirror.discard();
    });
}

/// An owner that gives up leaves the gate closed, and comes back to it never: the device goes on all the same.
#[test]
fn a_change_that_was_late_keeps_no_device_out() {
    device_and_process(|mirror| {
        mirror.discard_at_once();
        mirror.discard_at_once();
    });
}

fn device_and_process(process: impl Fn(&Mirror) + Copy + Send + Sync + 'static) {
    orders::some(4000, move || {
        let mut state = MirrorState::new(Granule::new(Bytes::new(PAGE)).unwrap());
        state.register(page(1), Prot::ReadWrite, Keeping::Faulting).unwrap();
        let mirror = Arc::new(Mirror {
            state: Mutex::new((state, None)),
            memory: AtomicU64::new(1),
            gate: Gate::new(Portable),
            turn: Mutex::new(()),
            left_closed: AtomicBool::new(false),
            queue: Queue::new(1),
            bell: Bell::default(),
        });
        let done = Arc::new(AtomicU64::new(0));
        let device = {
            let (mirror, done) = (Arc::clone(&mirror), Arc::clone(&done));
            thread::spawn(move || {
                let mut asking = mirror.queue.seat().unwrap();
                let mut slot = mirror.gate.opening().map(|opening| opening.slot("device"));
                let mut uses = 0;
                while uses < 2 {
                    let Ok(inside) = slot.as_mut() else {
                        mirror.reopen();
                        thread::yield_now();
                        slot = mirror.gate.opening().map(|opening| opening.slot("device"));
                        continue;
                    };
                    let Ok(guard) = inside.enter() else {
                        mirror.reopen();
                        if let Ok(opening) = mirror.gate.opening() {
                            inside.renew(&opening).unwrap();
                        }
                        thread::yield_now();
                        continue;
                    };
                    let found = mirror.state.lock().unwrap().1;
                    if let Some(found) = found {
                        // Between the look and the use anything may happen, but to this memory.
                        thread::yield_now();
                        assert_eq!(found, mirror.memory.load(Ordering::SeqCst), "the memory was given away");
                        uses += 1;
                        continue;
                    }
                    drop(guard);
                    ask(&mut asking, &mirror.bell, Wanted { at: page(1).start(), access: Access::Write });
                    while asking.answer().is_none() {
                        thread::yield_now();
                    }
                }
                done.store(1, Ordering::SeqCst);
                mirror.bell.ring();
            })
        };
        let process = {
            let mirror = Arc::clone(&mirror);
            thread::spawn(move || process(&mirror))
        };
        while done.load(Ordering::SeqCst) == 0 {
            let mut asked = Vec::new();
            mirror.queue.serve(|token, wanted| asked.push((token, wanted)));
            asked.drain(..).for_each(|(token, wanted)| mirror.answer(token, wanted));
            if mirror.queue.fall_asleep() {
                mirror.bell.wait();
                mirror.queue.awake();
            }
        }
        device.join().unwrap();
        process.join().unwrap();
    });
}
