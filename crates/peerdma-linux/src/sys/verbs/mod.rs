//! libibverbs, loaded at run time.
//!
//! UNSAFETY: the library is C. Its functions are looked up by name and version, so that each is known to have the
//! signature that `infiniband/verbs.h` gives it under that version; what they return is owned by a value here that hands it back once.
//! What the header has as inline functions (posting, polling, arming) goes through pointers in the context, and
//! does so here.
//!
//! - [`layout`]: the structures, with sizes and offsets asserted. [`library`]: the file and its symbols.
//! - [`objects`]: devices, contexts, domains. [`registration`]: memory. [`completions`] and [`queue`]: work.
//!
//! What a device does to registered memory is what any mapping for a device can do, see the folder's head.
//!
//! Not here: what an error means, and which memory may be registered.

mod answer;
pub(crate) mod completions;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod layout;
pub(crate) mod library;
pub(crate) mod objects;
pub(crate) mod queue;
pub(crate) mod registration;

pub(crate) use completions::Completions;
pub(crate) use library::{Library, NotLoaded};
pub(crate) use objects::{Context, Device, Domain};
pub(crate) use queue::Queue;
pub(crate) use registration::Registration;
