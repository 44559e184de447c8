//! How fast bytes came, held against what the processor itself copies.

use peerdma::addr::Bytes;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes in a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) bytes: Bytes,
    pub(crate) took: Duration,
}

impl Pace {
    /// Bytes a second; zero if no time passed.
    pub(crate) fn bytes_per_second(self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { self.bytes.as_u64() as f64 / seconds } else { 0.0 }
    }

    /// `1.25 GB/s`.
    pub(crate) fn words(self) -> String {
        format!("{:.2} GB/s", self.bytes_per_second() / 1e9)
    }
}

/// How fast the processor copies as many bytes, up to 64 MiB at a time, in this process and now.
pub(crate) fn memcpy(bytes: Bytes) -> Pace {
    const MOST: u64 = 64 << 20;
    const LEAST_TIME: Duration = Duration::from_millis(20);
    let len = bytes.as_u64().clamp(1, MOST) as usize;
    let from = vec![0x5a_u8; len];
    let mut to = vec![0_u8; len];
    // The first copy has the pages brought and is not counted.
    to.copy_from_slice(black_box(&from));
    let (begun, mut copied) = (Instant::now(), 0);
    loop {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        copied += len as u64;
        let took = begun.elapsed();
        if took >= LEAST_TIME {
            return Pace { bytes: Bytes::new(copied), took };
        }
    }
}
