//! What a fault has told the exporter or an importer to do wrong, until one of them does.

use crate::faults::{Lender, Wrong};
use std::sync::{Mutex, PoisonError};

/// Wrongs that are to be done to buffers in one GPU's memory.
#[derive(Debug, Default)]
pub struct Mischief(Mutex<Vec<Wrong>>);

impl Mischief {
    /// Whether this is to be done.
    pub fn is_due(&self, how: Wrong) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&how)
    }

    /// It is done.
    pub fn done(&self, how: Wrong) {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = due.iter().position(|due| *due == how) {
            due.remove(index);
        }
    }
}

impl Lender for Mischief {
    fn do_wrong(&self, how: Wrong) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(how);
        true
    }
}
