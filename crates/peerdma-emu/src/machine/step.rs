//! Who goes next.

use super::Machine;
use super::bus::Port;
use super::function::locked;
use crate::device::Progress;
use crate::fabric::{Egress, NodeId};
use crate::faults::Moment;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a step can do.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Move(Egress),
    Step(NodeId),
}

/// How long a thread waits before it looks by itself whether there is something to do.
const NAP: Duration = Duration::from_millis(2);

impl Machine {
    /// Moves one write or steps one device, whichever the seed says; `false` if there is nothing to do.
    pub fn step(&self) -> bool {
        self.tick(Moment::Step);
        let mut choices: Vec<Choice> = locked(&self.queues).egresses().map(Choice::Move).collect();
        let ids = self.fabric.tree().ids();
        choices.extend(ids.filter(|&node| self.function(node).has_work()).map(Choice::Step));
        let Some(last) = choices.len().checked_sub(1) else { return false };
        let index = locked(&self.random).usize(..=last);
        match choices.get(index) {
            Some(&Choice::Move(egress)) => {
                let ready = locked(&self.queues).ready(egress);
                let position = locked(&self.random).choice(&ready).copied();
                self.advance(egress, position.unwrap_or(0));
            }
            Some(&Choice::Step(node)) => {
                self.step_device(node);
            }
            None => {}
        }
        true
    }

    /// Steps until nothing has anything to do, `limit` steps at most; whether it came to that.
    pub fn settle(&self, limit: u64) -> bool {
        for _ in 0..limit {
            if !self.step() {
                return true;
            }
        }
        false
    }

    /// Lets the machine go on for a moment, as a driver's wait does: a step, or with devices in threads
    /// of their own a short sleep; `false` if nothing has anything to do.
    pub fn pause(&self) -> bool {
        if self.threads.load(Ordering::Acquire) == 0 {
            return self.step();
        }
        std::thread::yield_now();
        // One that was seen idle may have been given something by one that was looked at later, so
        // that nothing moves only if nobody began or ended a step meanwhile.
        let before = self.steps.load(Ordering::Acquire);
        let busy = self.fabric.tree().ids().any(|node| self.function(node).is_busy());
        busy || self.steps.load(Ordering::Acquire) != before
    }

    /// Steps one device; whether it is there and has more to do.
    pub fn step_device(&self, node: NodeId) -> bool {
        let function = self.function(node);
        let mut device = function.device();
        function.reset_if_due(&mut device);
        let Some(engine) = device.as_mut() else {
            function.set_working(false);
            return false;
        };
        // The order is what `pause` relies on: work is not taken from sight before the step is in
        // sight, and a step that has ended is counted before it is out of sight.
        function.set_stepping(true);
        self.steps.fetch_add(1, Ordering::AcqRel);
        // Said before, so that a write that comes meanwhile is not forgotten.
        function.set_working(false);
        let progress = engine.step(&mut Port { machine: self, node });
        if progress == Progress::Working {
            function.set_working(true);
        }
        function.reset_if_due(&mut device);
        self.steps.fetch_add(1, Ordering::AcqRel);
        function.set_stepping(false);
        progress == Progress::Working
    }

    /// Runs every device in a thread of its own while `body` runs.
    ///
    /// For machines with [`Delivery::AtOnce`](super::Delivery::AtOnce). Returns when `body` has and
    /// every thread has finished its step.
    pub fn with_threads<T>(&self, body: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        self.threads.fetch_add(1, Ordering::AcqRel);
        let running = Running { machine: self };
        let done = std::thread::scope(|scope| {
            for node in self.fabric.tree().ids().filter(|&node| self.function(node).device().is_some()) {
                let stop = &stop;
                scope.spawn(move || self.run_device(node, stop));
            }
            let guard = Stop { stop: &stop, machine: self };
            let done = body();
            drop(guard);
            done
        });
        drop(running);
        done
    }

    fn run_device(&self, node: NodeId, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            let heard = *locked(&self.bell.0);
            if self.function(node).has_work() {
                self.tick(Moment::Step);
                self.step_device(node);
                continue;
            }
            let count = locked(&self.bell.0);
            if *count == heard {
                drop(self.bell.1.wait_timeout(count, NAP).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

/// Says that threads are gone, also where a body panics.
struct Running<'m> {
    machine: &'m Machine,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.machine.threads.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends the threads, also where `body` panics.
struct Stop<'a> {
    stop: &'a AtomicBool,
    machine: &'a Machine,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.machine.ring();
    }
}
