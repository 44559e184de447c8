//! Configuration space: the registers of ports and functions, and what they decide.
//!
//! Each port and each function of an emulated machine owns the bytes that a configuration
//! request reaches. They are laid out once, from a [`Description`] of what they say at power-on
//! (`encode`, with `image` for the two capability lists, `bars` for the base address registers
//! and `layout` for what lies where), and live in a [`Space`], whose writes go through the masks
//! that hardware has: a bit without a capability stays clear, ones written to a BAR come back as
//! its size, ones clear a status.
//!
//! The fabric asks a `Space` what a port does with an address, and the answer is decoded from the
//! registers at that moment (`reading`). Nothing here knows a second function, and nothing here
//! is shared with the decoder that the resolver's input goes through, so that a register that is
//! read wrongly on one side differs on the other.
//!
//! ```
//! use peerdma::addr::{AddrRange, BusAddr, Bytes};
//! use peerdma::pcie::express::PortType;
//! use peerdma_emu::config::{Description, Space, Width};
//!
//! let window = AddrRange::new(BusAddr::new(0x9000_0000), Bytes::new(16 << 20));
//! let port = Space::new(&Description {
//!     memory_window: window,
//!     ..Description::express(PortType::DownstreamPort)
//! });
//! assert!(port.window_claims(BusAddr::new(0x90ff_ffff)));
//! // Base above limit closes the window.
//! assert!(port.write(0x20, Width::Four, 0x0000_fff0));
//! assert!(!port.window_claims(BusAddr::new(0x90ff_ffff)));
//! ```

mod bars;
mod description;
mod encode;
mod image;
mod layout;
mod reading;
mod space;
mod status;

#[cfg(test)]
mod tests;

pub use description::{
    AcsDescription, BarDescription, Buses, Description, ExpressDescription, Header, LinkDescription, PasidDescription,
};
pub use reading::{Acs, BarHit};
pub use space::{Space, Width};
pub use status::Detected;

/// The vendor of functions that nobody named: the PCI-SIG's own, so that no kernel has a quirk
/// for them. There is no number that is set aside for this; all ones would mean that nothing is
/// there.
pub const NEUTRAL_VENDOR: u16 = 0x0001;
