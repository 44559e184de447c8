//! Claims about fences, by what they are about.

#[cfg(feature = "std")]
mod blocking;
mod model;
mod reservation;
mod timeline;
