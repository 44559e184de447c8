//! What the benches share: machines to read, rows to measure, and ways to count.
//!
//! Instruction counts before times: callgrind's total is the same on every run of one
//! binary, whatever else the machine does. Each bench states its ceilings beside the
//! raw limit for the same work, and fails when one is passed. Times are compared within one
//! process only, everybody in turns ([`round`]).
//!
//! - `routes`, `pairs`: one file each, with [`dump`], [`shelf`] and [`bare_walk`].
//! - `mapping`, `emu`, `guard`, `pin`: [`rows`] of [`row`]s, with [`peers`] and [`limits`], timed by [`round`], counted by
//!   [`count`], judged by [`judge`], asked for and printed by [`command`]; `pin` also with [`jitter`].

pub mod bare_walk;
pub mod callgrind;
pub mod command;
pub mod count;
pub mod draw;
pub mod dump;
pub mod jitter;
pub mod judge;
pub mod limits;
pub mod peers;
pub mod round;
pub mod row;
pub mod rows;
pub mod shelf;
