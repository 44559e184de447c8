//! The allocator of IOVAs against one that keeps lists, and arenas in front of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests")]

mod arena;
mod oracle;
mod sequences;
mod space;
