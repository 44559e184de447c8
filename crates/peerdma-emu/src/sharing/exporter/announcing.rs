//! What happens next, and to which buffers.

use super::super::field::{Field, Home};
use super::{Deed, Exporter, Stage, To};
use crate::machine::Machine;
use peerdma::access::Prot;
use peerdma::buffer::life::{DISTURBANCES, Disturbance, Refused};
use peerdma::buffer::shared::{Buffer, Disturbing};
use peerdma::buffer::terms::Place;

/// Whether it happens to a device, and so to all that lies in it.
fn is_of_device(what: Disturbance) -> bool {
    !matches!(what, Disturbance::Move | Disturbance::Close | Disturbance::Permission)
}

impl Exporter {
    /// Begins something, if it can be.
    pub(super) fn begin(&mut self, machine: &Machine, random: &mut fastrand::Rng) {
        let what = random.choice(DISTURBANCES).map_or(Disturbance::Reset, |about| about.disturbance);
        // Nothing of the emulated GPUs is locked or gets another address.
        if matches!(what, Disturbance::Lock | Disturbance::BarMove) {
            return;
        }
        let (targets, gpu) = if is_of_device(what) {
            let gpu = random.usize(..self.gpus.len());
            (self.on(gpu), Some(gpu))
        } else {
            (vec![random.usize(..self.exports.len())], None)
        };
        let to = match what {
            Disturbance::Move if self.exports[targets[0]].bar.is_some() => return,
            Disturbance::Move => {
                let stays_in_ram = !self.exports[targets[0]].stays.revoked;
                let to = self.free_field(random, |field| field.home == Home::Ram || !stays_in_ram);
                if to.is_none() {
                    return;
                }
                to
            }
            _ => None,
        };
        let left = random.u32(1..60);
        // A permission that was taken back is given again by the next, which may be long after.
        let is_full = targets.first().is_none_or(|&target| self.exports[target].permitted.writes());
        let prot = if is_full && random.bool() { Prot::Read } else { Prot::ReadWrite };
        if !self.is_in_the_way(what, &targets, gpu) {
            self.announce_all(machine, (what, prot), (targets, gpu), to, left);
        }
    }

    /// Announces what is to happen to a buffer, or to the whole device in whose memory it lies, and waits for as long
    /// as it takes. A move goes to a free place there is of that residence.
    ///
    /// Answers whether it was announced: not if somebody was promised that the memory stays, if no place is free, or
    /// if memory that is no device's is asked what happens to devices.
    pub fn announce(&mut self, machine: &Machine, what: Disturbance, number: usize, to: Option<Place>) -> bool {
        let Some(export) = self.exports.get(number) else { return false };
        let gpu = match (is_of_device(what), self.fields[export.field].home) {
            (false, _) => None,
            (true, Home::Vram { gpu, .. }) => Some(gpu),
            (true, Home::Ram) => return false,
        };
        let targets = gpu.map_or(vec![number], |gpu| self.on(gpu));
        let place = match what {
            Disturbance::Move if export.bar.is_some() => return false,
            Disturbance::Move => {
                let free = (0..self.fields.len()).find(|&index| {
                    !self.is_taken(index) && to.is_none_or(|place| self.fields[index].residence() == place)
                });
                if free.is_none() {
                    return false;
                }
                free
            }
            _ => None,
        };
        self.announce_all(machine, (what, Prot::ReadWrite), (targets, gpu), place, u32::MAX)
    }

    fn announce_all(
        &mut self,
        machine: &Machine,
        (what, prot): (Disturbance, Prot),
        (targets, gpu): (Vec<usize>, Option<usize>),
        to: Option<usize>,
        left: u32,
    ) -> bool {
        if let (Disturbance::Removal, Some(gpu)) = (what, gpu) {
            // Nobody is asked: it comes as news of what has happened.
            self.gpus[gpu].begin(machine, what);
        }
        match self.begin_each(what, &targets, gpu) {
            Ok(waiting) => {
                if let (Some(to), Some(&target)) = (to, targets.first()) {
                    self.exports[target].arriving = Some(to);
                }
                let stage = Stage::Waiting(waiting, Vec::new());
                self.deeds.push(Deed { what, targets, gpu, left, prot, stage });
                true
            }
            Err(_) => {
                self.tally.refused += 1;
                false
            }
        }
    }

    /// Begins it for each of these buffers; of a device's memory through that, also for those that are exported meanwhile.
    fn begin_each(
        &self,
        what: Disturbance,
        targets: &[usize],
        gpu: Option<usize>,
    ) -> Result<Vec<(To, Disturbing)>, Refused> {
        let exports = targets.iter().map(|&target| &self.exports[target]);
        let singly = exports.filter(|export| gpu.is_none() || export.bar.is_none());
        let buffers: Vec<Buffer> = singly.map(|export| export.buffer.clone()).collect();
        let mut begun = vec![(To::Buffers, Buffer::begin_all(&buffers, what)?)];
        if let Some(gpu) = gpu {
            begun.push((To::Bar, self.bars[gpu].disturb(what)?));
        }
        Ok(begun)
    }

    /// Whether a deed has to wait for another: those of one buffer come one after the other, and nothing else
    /// happens to a device that is being pulled.
    fn is_in_the_way(&self, what: Disturbance, targets: &[usize], gpu: Option<usize>) -> bool {
        let meets = |deed: &Deed| deed.targets.iter().any(|target| targets.contains(target));
        self.deeds.iter().any(|deed| match (what, deed.what) {
            (Disturbance::Removal, _) | (_, Disturbance::Removal) => {
                meets(deed) || deed.gpu.is_some() && deed.gpu == gpu
            }
            _ => gpu.is_none() && deed.gpu.is_none() && meets(deed),
        })
    }

    /// Whether the device that a buffer lies in has been pulled.
    pub fn is_removed(&self, number: usize) -> bool {
        self.deeds.iter().any(|deed| deed.what == Disturbance::Removal && deed.targets.contains(&number))
    }

    /// Whether an export lies in a field or goes to it.
    pub(super) fn is_taken(&self, field: usize) -> bool {
        self.exports.iter().any(|export| export.field == field || export.arriving == Some(field))
    }

    /// A field that no export lies in or goes to, of a device that nothing is done to, and that `is_for` it.
    fn free_field(&self, random: &mut fastrand::Rng, is_for: impl Fn(&Field) -> bool) -> Option<usize> {
        let is_disturbed = |home: Home| match home {
            Home::Vram { gpu, .. } => self.deeds.iter().any(|deed| deed.gpu == Some(gpu)),
            Home::Ram => false,
        };
        let is_free = |index: usize| {
            let field = &self.fields[index];
            !self.is_taken(index) && !is_disturbed(field.home) && is_for(field)
        };
        random.choice((0..self.fields.len()).filter(|&index| is_free(index)).collect::<Vec<_>>())
    }
}
