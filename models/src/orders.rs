//! Which orders are tried.

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Tries `orders` orders drawn evenly at every access, and as many that let threads run
/// for long and break in at few places.
///
/// The second kind finds what needs one thread to stop at a certain point while another
/// goes a long way; the first finds the rest.
pub fn some(orders: usize, model: impl Fn() + Send + Sync + Copy + 'static) {
    Runner::new(RandomScheduler::new(orders), config()).run(model);
    for depth in [1, 2, 3] {
        Runner::new(PctScheduler::new(depth, orders / 3 + 1), config()).run(model);
    }
}

/// Tries orders of a model with few accesses one after the other; answers how many there are,
/// or `most` if they are not fewer.
pub fn all(most: usize, model: impl Fn() + Send + Sync + 'static) -> usize {
    Runner::new(DfsScheduler::new(Some(most), false), config()).run(model)
}

fn config() -> Config {
    let mut config = Config::new();
    // Threads of the core need little, and frames lie on the heap.
    config.stack_size = 0x10_0000;
    // It would say that orderings weaker than sequential consistency are not modelled; so does this crate.
    config.silence_warnings = true;
    config
}
