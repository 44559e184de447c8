//! Whether memory keeps its place while the kernel moves what it can, tried on the kernel that runs.
//!
//! A [`Sample`] is memory of small pages that is left alone, locked or pinned; something makes the kernel move pages; and
//! afterwards it is asked how many of the sample's lie elsewhere. With `CAP_SYS_ADMIN` page frames are compared, page
//! by page. Without it the kernel's answer and the huge pages that a sample is made of by then tell as much of one
//! kind of move, the collapse into huge pages, which anybody may ask for.
//!
//! [`prove`] does that with all three at once. What it shows of pinned memory counts only if plain and locked memory did
//! move meanwhile: a kernel that moves nothing proves nothing, and the verdict is then [`Verdict::Inconclusive`].
//!
//! Not here: moves that take a machine apart (memory offline, CMA, NUMA nodes), which guests are for.

mod prove;
mod sample;
#[cfg(test)]
mod tests;

pub use prove::{By, Proof, ProofError, Trial, Verdict, fitting, prove};
pub use sample::{Collapse, Fill, Keep, Moved, Sample, SampleError, huge_page_size};

use crate::sys::forced;
use rustix::io::Errno;

/// Asks the kernel to move all of this process's pages from one NUMA node to another; how many stayed where they were.
///
/// # Errors
/// The kernel's answer: `EINVAL` for a node that is not there, `EPERM` where the process may not use it, `ENOSYS` without NUMA.
pub fn migrate(from_node: u8, to_node: u8) -> Result<u64, Errno> {
    let bit = |node: u8| 1_u64.checked_shl(node.into()).ok_or(Errno::INVAL);
    forced::migrate_pages(bit(from_node)?, bit(to_node)?)
}
