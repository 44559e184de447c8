//! PCI and PCI Express: addresses, IDs and the decoding of configuration space.
//!
//! Data flows one way: bytes through [`config::ConfigSpace`], lists through
//! [`caps`], single capabilities through their modules, and all of it together
//! through [`decode::Registers`]. Nothing here knows a second function; how
//! functions hang together is [`crate::topology`].
//!
//! ```
//! use peerdma::pcie::config::{ConfigBytes, ConfigSize};
//! use peerdma::pcie::decode::Registers;
//!
//! let mut bytes = vec![0u8; 64];
//! bytes[0..4].copy_from_slice(&[0x86, 0x80, 0xa2, 0x09]);
//! let registers = Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown));
//! assert_eq!(registers.id.unwrap().to_string(), "8086:09a2");
//! ```

pub mod acs;
pub mod address;
pub mod caps;
pub mod config;
pub mod decode;
pub mod express;
pub mod fact;
pub mod ids;
pub mod virt;

pub use address::{DevFn, PciAddr};
pub use fact::Fact;
pub use ids::{ClassCode, PciId};
