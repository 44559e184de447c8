//! The formats, one file each.

pub mod amd;
pub mod arm;
pub mod vtd;
pub mod x86;
