//! The `peerdma` command as users run it: inputs in, text, JSON and exit codes out.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what they cannot do is a failed test")]

mod buffers;
mod commands;
mod compat;
mod copy;
mod demo;
mod doctor;
mod emulated;
mod explain;
mod fix;
mod guest;
mod inputs;
mod lint;
mod machine;
mod map;
mod memlock;
mod pin;
mod pins;
mod probe;
mod share;
mod verify;
mod vfio;
mod whatif;
mod whose;
