//! Who goes next.

use super::Machine;
use super::bus::Port;
use super::function::locked;
use super::queue::Queues;
use super::travel::Advanced;
use crate::device::Progress;
use crate::fabric::NodeId;
use crate::faults::Moment;
use std::sync::atomic::{AtomicBool, Ordering};

impl Machine {
    /// Moves one write or steps one device, whichever the seed says; `false` if there is nothing to do.
    ///
    /// Whoever has something to do is known, so that the choice costs the same in a machine of four
    /// functions and of four thousand; only where writes that may pass others wait for one egress does
    /// it grow with how many wait there. What is chosen costs what it does.
    pub fn step(&self) -> bool {
        self.tick(Moment::Step);
        let (writes, engines) = (locked(&self.queues).busy(), self.awake.len());
        if writes + engines == 0 {
            // What another thread has in hand is on its way.
            return !self.nothing_waits();
        }
        let index = locked(&self.random).usize(..writes + engines);
        // With steps in several threads what was counted may be gone; then another step is to find out.
        match index.checked_sub(writes) {
            None => {
                let Some(egress) = locked(&self.queues).egress(index) else { return true };
                // Chosen where it is taken, since other threads move what stands before it.
                let choose = |queues: &Queues| locked(&self.random).choice(&queues.ready(egress)).copied().unwrap_or(0);
                if self.advance(egress, choose) == Advanced::InHand {
                    std::thread::yield_now();
                }
            }
            Some(engine) => {
                let Some(function) = self.awake.at(engine) else { return true };
                self.step_device(NodeId::new(function));
            }
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
        self.awake.any_busy()
    }

    /// Steps one device; whether it is there and has more to do.
    pub fn step_device(&self, node: NodeId) -> bool {
        let function = self.function(node);
        let mut device = function.device();
        function.reset_if_due(&mut device);
        // Begun before the engine looks, so that what comes meanwhile wakes it again.
        let stepping = self.awake.step(node.index());
        let Some(engine) = device.as_mut() else { return false };
        let progress = engine.step(&mut Port { machine: self, node });
        function.reset_if_due(&mut device);
        if progress == Progress::Working || function.has_unseen() {
            stepping.with_more();
        }
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
            for node in self.fabric.tree().ids().filter(|&node| self.function(node).has_engine()) {
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
        while self.awake.wait(node.index(), stop) {
            self.tick(Moment::Step);
            self.step_device(node);
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
        self.machine.awake.stop(self.stop);
    }
}
