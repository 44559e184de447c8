//! Page tables against what Linux makes of the same sequences, and against an oracle.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod data;
mod literals;
mod oracle;

mod random;
mod replay;
