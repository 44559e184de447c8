//! Whom a disturbance waits for, by name.

use super::disturbing::Disturbing;
use super::importer::Holder;
use crate::buffer::fence::FenceName;
use crate::buffer::life::{AttachmentId, Still};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Somebody, or something, that a disturbance waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The buffer's name.
    pub buffer: String,
    /// Which of its attachments; `None` for fences, which belong to the buffer.
    pub who: Option<AttachmentId>,
    /// Who stands behind that attachment.
    pub holder: Option<Holder>,
    /// What is outstanding.
    pub what: Still,
    /// Which fences, where it is fences.
    pub fences: Vec<FenceName>,
    /// Whether nobody knows which, as somebody has the reservation's lock.
    pub reservation_taken: bool,
}

impl fmt::Display for Held {
    /// Writes `vram0: attachment 3 of nic0 in process 4711 (server) has 2 mappings`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.holder, self.who) {
            (Some(holder), Some(who)) => write!(f, "{}: {who} of {holder} {}", self.buffer, self.what)?,
            _ if self.reservation_taken => {
                write!(f, "{}: somebody has its reservation, and its fences cannot be looked at", self.buffer)?;
            }
            _ => write!(f, "{}: {}", self.buffer, self.what)?,
        }
        for (index, fence) in self.fences.iter().enumerate() {
            write!(f, "{}{fence}", if index == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// The deadline has passed and somebody still holds on.
#[derive(Debug, thiserror::Error)]
#[error("{} must not happen yet: {}; wait on, end whoever holds on, or give up", self.disturbing.what(), Lines(&self.held))]
pub struct Late {
    /// The disturbance, to wait for again or to give up.
    pub disturbing: Disturbing,
    /// Who holds on, and what is outstanding. Never empty.
    pub held: Vec<Held>,
}

/// Each of several, in a row.
pub(super) struct Lines<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, each) in self.0.iter().enumerate() {
            write!(f, "{}{each}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
