//! Machines of platform files, through the library's own engine.
#![cfg(test)]

mod accelerators;
mod addresses;
mod bench;
mod copies;
mod drives;
mod engines;
mod faults;
mod gpus;
mod guests;
mod lent;
mod nics;
mod on_demand;
mod unasked;
