//! A buffer that other processes import.
//!
//! [`Exporter`] has the memory and listens at a path, [`Importer`] attaches there. What they say to each other
//! is [`peerdma::buffer::wire`]; here are the socket, the descriptors and the processes behind them. To the
//! buffer an importer in another process is one like any other ([`peerdma::buffer::shared`]): whoever disturbs the
//! memory waits for both, and is told who holds on.
//!
//! Nothing runs by itself. An exporter does its work in [`Exporter::serve`] and [`Exporter::wait`], on the
//! thread that calls them; both are [`AsFd`](std::os::fd::AsFd) for event loops, and everything that waits takes the moment
//! at which it stops waiting.
//!
//! ```
//! use peerdma::access::Prot;
//! use peerdma::addr::Bytes;
//! use peerdma::buffer::life::Disturbance;
//! use peerdma::buffer::wire::{Declare, Heard};
//! use peerdma::buffer::{Enforcement, Lifetime};
//! use peerdma_linux::share::{Exporter, Importer, Listener, Memory, Shared};
//! use std::time::{Duration, Instant};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = std::env::temp_dir().join(format!("peerdma-share-{}", std::process::id()));
//! std::fs::create_dir(&folder)?;
//! let path = folder.join("frames");
//! let until = || Instant::now() + Duration::from_secs(10);
//! let memory = Memory::create("frames", Bytes::new(0x10000))?;
//! let mut exporter = Exporter::new(Listener::bind(&path)?, memory, Shared::named("frames"))?;
//!
//! let importer = std::thread::spawn(move || -> Result<(), String> {
//!     let mut declare = Declare::of_process("viewer", Prot::Read);
//!     (declare.takes, declare.enforcement) = (Lifetime::Revocable, Enforcement::Cooperative);
//!     let mut importer = Importer::attach(&path, declare, until()).map_err(|why| why.to_string())?;
//!     let mapped = importer.map(until()).map_err(|why| why.to_string())?;
//!     while let Some(heard) = importer.next(until()).map_err(|why| why.to_string())? {
//!         if let Heard::LetGo { notice, .. } = heard {
//!             importer.note(notice).map_err(|why| why.to_string())?;
//!             importer.unmap(mapped).map_err(|why| why.to_string())?;
//!             break;
//!         }
//!     }
//!     importer.detach(until()).map_err(|why| why.to_string())
//! });
//!
//! while exporter.importers().next().is_none_or(|importer| importer.mappings == 0) {
//!     exporter.serve(until())?;
//! }
//! let reset = exporter.buffer().begin(Disturbance::Reset)?;
//! let reset = exporter.wait(reset, until())?; // Nobody has it mapped.
//! reset.done();
//! importer.join().map_err(|_| "the importer failed")??;
//! # drop(exporter);
//! # std::fs::remove_dir(&folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! A BAR is shared by [`Exporter::of_bar`], and what is done to its device waits for importers with
//! [`Exporter::wait_deed`]. What uses the memory by following a [`Buffer`](peerdma::buffer::shared::Buffer), as a guest's slot does,
//! gets one in the importing process from a [`Relay`].
//!
//! Not here: which words there are.

mod exporter;
mod importer;
mod lend;
mod listener;
mod memory;
mod packet;
mod process;
mod relay;

pub use exporter::{Exporter, Guest, Happened, MoveError, Shared, WaitDeedError, WaitError};
pub use importer::{AttachError, Ended, Importer, MapError, Mapped, WriteError};
pub use lend::{Bar, Lend, ShareBarError};
pub use listener::{BindError, Listener};
pub use memory::{Memory, MemoryError};
pub use process::{Peer, Standing};
pub use relay::{Relay, RelayError, Relayed};
