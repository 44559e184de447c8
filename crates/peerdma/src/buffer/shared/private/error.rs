//! Why a step of a private register was not taken.

use super::super::{Held, Late};
use crate::buffer::confidential::{Action, Event, Refusal};
use crate::buffer::life::Refused;
use alloc::vec::Vec;

/// Why a step was not taken. What it would have begun is as it was, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError<E: core::error::Error + 'static> {
    /// It is not its turn; the refusal says what is.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Importers have not let go in time. They stay told: the step is taken again, or given up.
    #[error("{event} has to wait: {} hold on; wait longer, or end them", held.len())]
    Late {
        /// The step.
        event: Event,
        /// Who holds on, and what is outstanding.
        held: Vec<Held>,
    },
    /// The device did not do what was asked.
    #[error(transparent)]
    Undone(Undone<E>),
    /// The memory cannot be taken from its importers.
    #[error("importers cannot be told: {0}")]
    Announce(#[source] Refused),
    /// Nothing can be exported of it.
    #[error("nothing can be exported of it: {0}")]
    Export(#[source] Refused),
}

/// Something was not done by a device; what came before it was, and is asked for again when the step is.
#[derive(Debug, thiserror::Error)]
#[error("{event} stopped at {action}, after {} of its steps; mend the device and take it again, or close", done.len())]
pub struct Undone<E: core::error::Error + 'static> {
    /// The step.
    pub event: Event,
    /// What was not done.
    pub action: Action,
    /// What was done before.
    pub done: Vec<Action>,
    /// Why.
    pub source: E,
}

impl<E: core::error::Error + 'static> PrivateError<E> {
    pub(super) fn late(event: Event, late: &Late) -> Self {
        Self::Late { event, held: late.held.clone() }
    }
}
