//! Claims about pools of real memory.

mod attaching;
mod memory;

use super::{Options, Pool, Stay};
use crate::pin::Pinner;
use peerdma::addr::Bytes;
use std::io::Write;

/// A pinned pool, where this machine pins.
fn pinned(size: u64, options: impl FnOnce(Options) -> Options) -> Option<Pool> {
    let pinner = match Pinner::new() {
        Ok(pinner) => pinner,
        Err(error) => {
            // Past the test runner, which keeps what tests print that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED pinned-pool: {error}");
            return None;
        }
    };
    Some(Pool::new(Bytes::new(size), options(Options::new(Stay::Pinned(pinner)))).unwrap())
}
