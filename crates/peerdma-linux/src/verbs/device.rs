//! An adapter, before it is opened.

use super::context::Context;
use super::error::ObjectError;
use crate::sys::verbs;
use std::fmt;
use std::path::PathBuf;

/// An adapter that the library found.
#[derive(Clone)]
pub struct Device {
    raw: verbs::Device,
}

impl Device {
    pub(super) fn new(raw: verbs::Device) -> Self {
        Self { raw }
    }

    /// Its name, such as `mlx5_0`.
    pub fn name(&self) -> String {
        self.raw.name()
    }

    /// Its file, below `/dev/infiniband`, which whoever opens it must be permitted to read and write.
    pub fn file(&self) -> PathBuf {
        PathBuf::from("/dev/infiniband").join(self.raw.uverbs_name())
    }

    /// Its folder in sysfs; `device` in there is the PCI function, where it has one.
    pub fn sysfs(&self) -> PathBuf {
        self.raw.sysfs_path().into()
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`ObjectError`]: its file may not be opened, or the adapter has gone.
    pub fn open(&self) -> Result<Context, ObjectError> {
        let raw = self.raw.open().map_err(|errno| ObjectError::opening(&self.name(), &self.file(), errno))?;
        Ok(Context::new(raw, self.name()))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, transport) = (self.raw.node_type(), self.raw.transport());
        write!(f, "Device {} (node type {kind}, transport {transport})", self.name())
    }
}
