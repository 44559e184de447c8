//! An exporter that does not keep to the rules, where a fault makes it.

use super::Exporter;
use crate::faults::Wrong;
use crate::sharing::field::Home;
use peerdma::buffer::life::Phase;

impl Exporter {
    /// Does what a fault has asked for, as soon as somebody's mapping is there to suffer from it.
    pub(super) fn do_wrong(&mut self) {
        for gpu in 0..self.gpus.len() {
            for how in [Wrong::Revokes, Wrong::Migrates] {
                if self.gpus[gpu].mischief().is_due(how)
                    && let Some(number) = self.in_use_on(gpu)
                    && self.do_this_wrong(number, how)
                {
                    self.gpus[gpu].mischief().done(how);
                }
            }
        }
    }

    /// Whether an importer of this buffer is to say that it has unmapped before it has; once.
    pub fn lets_go_too_early(&self, number: usize) -> bool {
        let home = self.exports.get(number).map(|export| self.fields[export.field].home);
        let Some(Home::Vram { gpu, .. }) = home else { return false };
        let mischief = self.gpus[gpu].mischief();
        let due = mischief.is_due(Wrong::UnmapsLate);
        if due {
            mischief.done(Wrong::UnmapsLate);
        }
        due
    }

    /// A buffer in a GPU's memory that somebody has mapped, and that nothing is announced for.
    fn in_use_on(&self, gpu: usize) -> Option<usize> {
        self.on(gpu).into_iter().find(|&number| {
            let export = &self.exports[number];
            let is_mapped = || export.buffer.attached().iter().any(|attended| attended.mappings > 0);
            export.buffer.phase() == Phase::Live && !self.is_disturbed(&[number]) && is_mapped()
        })
    }

    /// Whether it was done.
    fn do_this_wrong(&mut self, number: usize, how: Wrong) -> bool {
        let from = self.exports[number].field;
        let to = match how {
            // Somebody else has the memory from here on, and the importers were not told.
            Wrong::Revokes => from,
            _ => match (0..self.fields.len()).find(|&field| !self.is_taken(field)) {
                Some(free) => {
                    self.fields[free].put(&self.fields[from].bytes());
                    self.exports[number].field = free;
                    free
                }
                None => return false,
            },
        };
        self.fields[from].close();
        debug_assert_eq!(self.exports[number].field, to);
        self.open(number);
        true
    }
}
