//! Machines described in a file, for trying peerdma without the hardware.
//!
//! What is here: [`platform`], which reads the description of a machine (host
//! bridges with their windows, ports with their ACS, functions with their BARs,
//! IOMMU, CPU, kernel), checks it, and turns it into the same
//! [`Topology`](peerdma::topology::Topology) that a scan of a real machine yields.
//! Three machines are built in.
//!
//! Three principles:
//!
//! 1. **A description is either right or refused with its line.** Nothing is
//!    repaired, and no input panics.
//! 2. **The same file is the same machine.** What a file leaves open, such as where
//!    BARs lie, follows from the file alone.
//! 3. **Nothing here decides a route.** The resolver in `peerdma` and what moves
//!    bytes on an emulated machine share words, not code, so that each can find the
//!    other wrong.
//!
//! ```
//! use peerdma_emu::platform::Platform;
//!
//! let file = "schema = 1\n[[host_bridge]]\nname = \"hb0\"\nbus = 3\n";
//! let error = Platform::parse(file, "mine.toml").unwrap_err();
//! assert!(error.to_string().starts_with("mine.toml:4: unknown field `bus`"));
//! ```
//!
//! Not here: moving bytes. A description is all there is so far; requests that
//! travel port by port and devices that answer them build on it.

pub mod platform;
