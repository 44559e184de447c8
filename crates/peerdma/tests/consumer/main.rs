//! Consumers of mappings, each against a reader of its own: what a controller, an adapter or
//! a guest makes of the lists is exactly the bytes of the spans.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot build its input has failed")]

mod controller;
mod mirror;
mod prp;
mod rdma;
mod sgl;
mod spans;
mod stage2;
