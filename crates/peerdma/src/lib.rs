//! Whether, by which route and at which address devices reach each other's memory.
//!
//! This crate is the logic of peerdma: pure, `no_std` with `alloc`, without a
//! clock, thread, file descriptor or global. Inputs come as values, decisions go
//! out as values, and `peerdma-linux` and the command line act on them.
//!
//! Three principles:
//!
//! 1. **Unknown is an answer.** A register that was not read is not zero. A
//!    verdict is unknown exactly when two ways of filling in the missing facts
//!    lead to different verdicts.
//! 2. **Types carry the proof.** An address has a kind, a topology is immutable,
//!    a verdict carries the evidence that led to it.
//! 3. **Views are never mixed.** What Linux decides, omissions included, is
//!    [`route::kernel_view`]; what the hardware does is another module.
//!
//! ```
//! use peerdma::pcie::{ClassCode, PciAddr, PciId};
//! use peerdma::route::kernel_view::{KernelView, MapType};
//! use peerdma::topology::{Builder, FunctionInfo, Position};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut builder = Builder::new();
//! for (address, class) in [("00:01.0", 0x030000), ("00:02.0", 0x020000)] {
//!     let mut function = FunctionInfo::new(address.parse::<PciAddr>()?, Position::RootBus { bus: 0 });
//!     function.registers.id = Some(PciId { vendor: 0x10de, device: 0x2330 });
//!     function.registers.class = Some(ClassCode::new(class));
//!     builder.function(function);
//! }
//! let topology = builder.build();
//! let (gpu, nic) = (topology.at("00:01.0".parse()?).unwrap(), topology.at("00:02.0".parse()?).unwrap());
//! let decision = KernelView::new(&topology).decide(gpu, nic);
//! // Nothing says which CPU this is, so nobody knows what its host bridge forwards.
//! assert_eq!(decision.map_type, MapType::Unknown);
//! # Ok(())
//! # }
//! ```
//!
//! Not here: reading a machine (`peerdma-linux`), printing (`peerdma-cli`).

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod access;
pub mod addr;
pub mod buffer;
pub mod chunk;
pub mod dma;
pub mod iopt;
pub mod iova;
pub mod mirror;
pub mod pcie;
pub mod pin;
pub mod pool;
pub mod route;
pub mod sync;
pub mod topology;
