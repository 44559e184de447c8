//! An emulated accelerator that works in memory of real processes, by the processes' own addresses.
//!
//! Here and not beside either, since the emulator knows no Linux and the Linux part no emulator: [`device`] is all that
//! joins them.

#![cfg(test)]

mod churn;
mod device;
mod pinned;
mod sharing;
