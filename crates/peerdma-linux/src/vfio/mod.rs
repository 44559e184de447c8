//! VFIO devices: opened, looked at, mapped, interrupted, reset, put to sleep, exported.
//!
//! Linux hands a PCI function to a process in two ways, and this module opens both:
//!
//! ```text
//! /dev/vfio/vfio  ── container ─┐
//! /dev/vfio/N     ── group ─────┴─ Type1Space ── device(address) ───┐
//! /dev/iommu      ── iommufd ────┬─ IommufdSpace ── bind(node) ─────┴─ VfioDevice
//! /dev/vfio/devices/vfioN ─ DeviceNode ─┘                               map, config, reset, export
//! ```
//!
//! Before a device is opened, [`place`] says from sysfs what stands in the way (another
//! driver, no IOMMU, neighbours in the group), since the kernel's own answer to most of
//! that is EINVAL. Every path that is opened from comes through [`Nodes`], and every
//! descriptor can come from the caller instead, as a virtual machine monitor's do.
//!
//! **What is refused.** Groups and device nodes without an IOMMU behind them (`noiommu`):
//! a device there reaches all of memory and nothing that this library says holds.
//!
//! **Who keeps what open.** A device's descriptor keeps its group and container, or its
//! iommufd, open in the kernel, and a [`BarMapping`] keeps the device open. So values may
//! be dropped in any order and nothing leaks; but a space that is closed keeps its
//! mappings until its last device is closed, which is why spaces unmap in `drop`.
//!
//! Not here: migration; the address spaces themselves
//! ([`crate::type1`], [`crate::iommufd`]); whether two devices reach each other.

mod bar;
pub mod binding;
mod chain;
mod config;
mod cpu_file;
mod device;
mod error;
mod event;
mod export;
mod function_reset;
mod hot_reset;
mod interrupt_error;
mod interrupts;
mod node;
pub mod place;
mod power;
mod region;
pub mod shared;
pub mod standing;
pub(crate) mod type1_info;

pub use bar::{AccessError, BarMapping, MapBarError};
pub use config::{Command, ConfigError};
pub(crate) use cpu_file::holds;
pub use device::{ResetError, VfioDevice};
pub(crate) use error::errno;
pub use error::{BindLine, Damage, Neighbour, OpenError};
pub use event::{EventError, InterruptEvent};
pub use export::ExportError;
pub use function_reset::FunctionResetError;
pub use hot_reset::{Affected, HotResetError, HotResetInfo, Membership, ShownGroup};
pub use interrupt_error::InterruptError;
pub use interrupts::{InterruptInfo, InterruptKind};
pub use node::{DeviceNode, Nodes};
pub use power::PowerError;
pub use region::{Bar, BarIndex, BarRange, Mappable};
pub use shared::{Deed, SharedDevice};
