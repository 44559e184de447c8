//! What the benches share: machines to read, and a way to count instructions.
//!
//! Instruction counts, not times: callgrind's total is the same on every run of one
//! binary, whatever else the machine does. Each bench states its ceilings beside the
//! raw limit for the same bytes, and fails when one is passed.

pub mod bare_walk;
pub mod callgrind;
pub mod command;
pub mod count;
pub mod draw;
pub mod dump;
pub mod judge;
pub mod limits;
pub mod peers;
pub mod round;
pub mod row;
pub mod rows;
pub mod shelf;
