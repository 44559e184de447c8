//! Machines that people reported, rebuilt, and what peerdma says about them.
//!
//! Each file in `machines/` is headed by the public thread it comes from, what was
//! reported there and what is reconstructed. A test states the outcome that users saw and
//! asks the built program; `docs/field-cases.md` tells the stories. Where the outcome is a
//! patched kernel's or another boot's, the test changes the file's text and says so.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what they cannot do is a failed test")]

mod addresses;
mod bars;
mod case;
mod directions;
mod mappings;
mod parameters;
mod redirects;
mod root_complexes;
mod virtual_switches;
