//! Every pair of functions: what `peerdma` says against what the kernel says.
//!
//! A guest boots the small kernel; inside, in one and the same state of the machine,
//! `peerdma capture` runs as root and as nobody and the module under `vm/oracle` writes
//! down the kernel's own decision for every ordered pair. Outside, `peerdma matrix --json`
//! answers from the captures alone, and the two are compared:
//!
//! - from root's capture every answer equals the kernel's, and *unknown* does not;
//! - from nobody's capture nothing is claimed that the kernel contradicts.
//!
//! ```text
//! plan ─ (boot) ─ outcome ─┬─ kernel ─┐
//!                          └─ ours ───┴─ compare ─ check ─ row
//! ```
//!
//! On a kernel that nobody prepared, `nvme` does the same for the pairs that real I/O
//! between NVMe drives asks about. `fixtures` keeps what the guests said, so that
//! `cargo test` repeats the comparison without them.
//!
//! Not here: booting, and how topologies look.

mod check;
mod compare;
mod fixtures;
mod kernel;
mod nvme;
mod ours;
mod plan;

pub(super) use check::check;
pub(super) use fixtures::write as write_fixtures;
pub(super) use kernel::{Answers as KernelAnswers, MapType, Pair};
pub(super) use nvme::{STOCK_PLANS, StockPlan, check as check_nvme};
pub(super) use plan::{GuestPlan, plan, random_plan};
