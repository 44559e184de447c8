//! The library itself.

use super::device::Device;
use super::error::DevicesError;
use crate::sys::verbs::library::FILE;
use crate::sys::verbs::{self, Library, NotLoaded};
use std::sync::OnceLock;

static LOADED: OnceLock<Library> = OnceLock::new();

/// Why there is no libibverbs to use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The dynamic linker does not find it, or not what it needs.
    #[error(
        "libibverbs.so.1 cannot be loaded ({said}); install libibverbs1 and ibverbs-providers (Debian), or rdma-core"
    )]
    Absent {
        /// What the linker said.
        said: String,
    },
    /// A program that was linked statically cannot load it.
    #[error(
        "libibverbs.so.1 cannot be loaded into a program that is linked statically; build one that is linked dynamically"
    )]
    Static,
    /// It lacks a function.
    #[error("libibverbs.so.1 has no {name} of version {version}; install rdma-core 17 or newer in its place")]
    Symbol {
        /// The function.
        name: &'static str,
        /// In which version.
        version: &'static str,
    },
}

impl From<NotLoaded> for LoadError {
    fn from(why: NotLoaded) -> Self {
        match why {
            NotLoaded::Static => Self::Static,
            NotLoaded::Absent(said) => Self::Absent { said },
            NotLoaded::Symbol { name, version } => Self::Symbol { name, version },
        }
    }
}

/// libibverbs, loaded. It stays so until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Verbs {
    library: &'static Library,
}

impl Verbs {
    /// Loads the library, or takes the one that was loaded before. Blocks while files are read.
    ///
    /// ```
    /// use peerdma_linux::verbs::{LoadError, Verbs};
    ///
    /// match Verbs::load() {
    ///     Ok(verbs) => drop(verbs.devices()),
    ///     Err(error) => assert!(matches!(error, LoadError::Static) || error.to_string().contains("install")),
    /// }
    /// ```
    ///
    /// # Errors
    /// [`LoadError`]: what to install. It is tried anew at the next call.
    pub fn load() -> Result<Self, LoadError> {
        if let Some(library) = LOADED.get() {
            return Ok(Self { library });
        }
        let library = Library::load(FILE)?;
        Ok(Self { library: LOADED.get_or_init(|| library) })
    }

    #[cfg(test)]
    pub(super) fn of(library: &'static Library) -> Self {
        Self { library }
    }

    /// Whether the library has a call for dma-bufs (rdma-core 34); kernel and adapter have a say as well.
    pub fn knows_dmabufs(&self) -> bool {
        self.library.registers_dmabufs()
    }

    /// Lists the adapters that a provider of the library drives. Blocks while sysfs is read.
    ///
    /// # Errors
    /// [`DevicesError`]; a machine without adapters gives none, and no error.
    pub fn devices(&self) -> Result<Vec<Device>, DevicesError> {
        let found = verbs::Device::all(self.library).map_err(DevicesError::new)?;
        Ok(found.into_iter().map(Device::new).collect())
    }
}
