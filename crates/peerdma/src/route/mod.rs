//! Whether a request arrives, by which route, and at which address.
//!
//! Two views that share no rule: [`kernel_view`], what Linux decides, omissions
//! included, and [`fabric`], what the hardware does by the PCI Express specification.
//! [`verdict`] puts them together with what else decides: [`domain`] (how the IOMMU
//! treats the initiator), [`payload`] (how large packets are) and [`root_complex`]
//! (what is known of one). Every answer carries [`Reason`]s: which gate, which
//! object, what was read, what would change it.
//!
//! [`acs_boot`] predicts what the kernel's `pci=` parameters write into ACS
//! control registers.

pub mod acs_boot;
pub mod change;
pub mod checkup;
pub mod compat;
pub mod domain;
pub mod fabric;
pub mod fix;
pub mod groups;
pub mod guest;
pub mod kernel_view;
pub mod knowledge;
pub mod lint;
pub mod payload;
mod reason;
pub mod root_complex;
mod target;
pub mod verdict;
pub mod whose;

pub use reason::{Gate, Reason};
pub use target::{Target, TargetError};

pub use verdict::{AddressKind, Judge, Need, PairVerdict, Permission, Verdict};
