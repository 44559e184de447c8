//! The shipped [`Life::step`](super::Life::step) explored to closure: every state that bounded surroundings can bring it
//! into, and what must hold in all of them.
//!
//! - [`closure`]: a breadth-first search that keeps the graph, to ask from where something can be reached.
//! - [`buffer`]: one buffer with importers and authors that may do anything at any time.
//! - [`devices`]: two buffers of one device, and authors that disturb both and obey their rules.
//!
//! Numbers of notices and generations only count up and are only compared for equality, so each
//! state is renumbered before it is kept; without that no search would end.

mod buffer;
mod closure;
mod devices;
