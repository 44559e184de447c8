//! Claims about pools of real memory.

mod attaching;
mod memory;

use super::{Options, Pool, Stay};
use crate::pin::Pinner;
use peerdma::addr::Bytes;
use std::io::Write;

/// What pins, where this machine does.
fn pinner() -> Option<Pinner> {
    match Pinner::new() {
        Ok(pinner) => Some(pinner),
        Err(error) => {
            // Past the test runner, which keeps what tests print that pass.
            let _ = std::io::stderr().write_all(format!("SKIPPED pinned-pool: {error}\n").as_bytes());
            None
        }
    }
}

/// A pinned pool, where this machine pins.
fn pinned(size: u64, options: impl FnOnce(Options) -> Options) -> Option<Pool> {
    let pinner = pinner()?;
    Some(Pool::new(Bytes::new(size), options(Options::new(Stay::Pinned(pinner)))).unwrap())
}
