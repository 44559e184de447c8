//! Claims about pools.

mod place;
mod taking;
