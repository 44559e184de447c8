//! A machine in a process: described by a file, and running.
//!
//! Devices issue requests, which are routed port by port to memory or BARs and back, through
//! real page tables, and what goes wrong in the field can be made to go wrong. For authors of
//! drivers and virtual machine monitors it is the place to test without hardware; for peerdma it
//! is the second oracle beside its own resolver.
//!
//! Three principles:
//!
//! 1. **Registers route, not descriptions.** Every port and function owns configuration space,
//!    and the fabric decides by its bytes alone. A description only says what they are at power-on.
//! 2. **Nothing here asks the resolver.** No line of routing code is shared with `peerdma::route`
//!    (`cargo xtask layers` sees to it), so that each can find the other wrong.
//! 3. **The same seed is the same run.** Time is steps, and who goes next is drawn from a seed.
//!
//! ```
//! use peerdma::access::Prot;
//! use peerdma::addr::Bytes;
//! use peerdma::chunk::Chunk;
//! use peerdma::dma::{MemAttrs, Owner, Peers};
//! use peerdma_emu::device::{Bus, How};
//! use peerdma_emu::host::{Kernel, wire_address};
//! use peerdma_emu::machine::Builder;
//! use peerdma_emu::platform::Platform;
//! use std::sync::Arc;
//!
//! let platform = Platform::built_in("two-socket").unwrap();
//! let machine = Arc::new(Builder::new(&platform).seed(1).build()?);
//! let kernel = Kernel::boot(machine.clone(), &platform);
//! let (gpu, drive) = (machine.named("gpu0").unwrap(), machine.named("nvme0").unwrap());
//!
//! // The address at which the GPU reaches the drive's memory, by the library's own engine.
//! let (seat, owners, peers) = (kernel.seat(gpu)?, kernel.owners(), Peers::of(kernel.topology()));
//! let context = seat.context(&owners, &peers)?;
//! let bar = Owner::Bar { function: kernel.function(drive).unwrap(), bar: 2 };
//! let chunk = Chunk::new(bar, Bytes::ZERO, Bytes::new(0x1000), MemAttrs::MMIO).unwrap();
//! let mapping = context.map_p2p(chunk, Prot::ReadWrite)?;
//! let at = wire_address(&mapping.spans().next().unwrap());
//!
//! let mut bytes = [0; 5];
//! let mut port = machine.port(gpu);
//! port.write(How::default(), at, b"hello")?;
//! port.read(How::default(), at, &mut bytes)?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`platform`]: the description of a machine, read and checked. Three are built in.
//! - [`config`]: configuration space as bytes with write masks; [`discover`]: from those bytes back to
//!   the [`Topology`](peerdma::topology::Topology) that questions are asked of.
//! - [`wire`]: requests and what they fail with; [`fabric`]: what each port and root complex does with them.
//! - [`memory`], [`iommu`]: where bytes are, and who says where an address leads.
//! - [`device`]: devices that move bytes, with their drivers, and what it takes to write one's own.
//! - [`faults`]: what goes wrong in the field, by name, where and when a plan or a seed says.
//! - [`machine`]: all of it together, in steps or in threads. [`host`]: what a kernel does there.
//!
//! Not here: how long anything takes. Steps are an order and not a duration, and speeds that are
//! printed are those of the emulation.

pub mod config;
pub mod device;
pub mod discover;
pub mod fabric;
pub mod faults;
pub mod host;
pub mod iommu;
pub mod machine;
pub mod memory;
pub mod platform;
pub mod scenario;
pub mod sharing;
pub mod wire;
