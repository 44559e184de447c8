//! One file a command.

pub(crate) mod capture;
pub(crate) mod copy;
pub(crate) mod matrix;
pub(crate) mod route;
pub(crate) mod topo;
