//! Who owns buffers, and does things to the memory that they lie in, a step at a time.

use super::device::Exposed;
use super::field::{Field, Home};
use crate::machine::Machine;
use peerdma::access::Prot;
use peerdma::buffer::life::{Answers, Contents, DISTURBANCES, Disturbance, Phase};
use peerdma::buffer::shared::{Buffer, Disturbed, Disturbing};
use peerdma::buffer::terms::{Methods, Moves, Offer, OfferError, Place, Stays};
use std::collections::BTreeMap;

/// A buffer, for one who wants to import it.
pub struct Offered<'e> {
    /// The buffer.
    pub buffer: &'e Buffer,
    /// The epoch under which its memory may be written; `None` while it is closed.
    pub epoch: Option<u32>,
    /// All places where it can be.
    pub fields: &'e [Field],
}

/// One buffer, and where it is.
struct Export {
    buffer: Buffer,
    /// Index of the field that it lies in.
    field: usize,
    /// Index of the one that it is being moved to.
    arriving: Option<usize>,
    /// What its importers are promised.
    stays: Stays,
}

/// What lies in a GPU's memory goes where there is room, and is lost with the GPU.
const MOVED_AND_LOST: Stays = Stays { moves: Moves::UnlessPinned, revoked: true };

/// A deed under way.
struct Deed {
    what: Disturbance,
    /// Which exports it is about.
    targets: Vec<usize>,
    gpu: Option<usize>,
    /// Looks, or steps, that are left before something else happens.
    left: u32,
    stage: Stage,
}

enum Stage {
    Waiting(Disturbing),
    Happening(Disturbed),
}

/// What the exporter has to tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deeds {
    /// How often each disturbance happened.
    pub happened: BTreeMap<&'static str, u64>,
    /// How often a buffer went from one place to another.
    pub moved: BTreeMap<(Place, Place), u64>,
    /// How often a disturbance was refused, since somebody had been promised that the memory stays.
    pub refused: u64,
    /// How often one was given up because somebody held on for too long.
    pub given_up: u64,
}

/// Owns fields and the buffers in them, and disturbs them.
pub struct Exporter {
    fields: Vec<Field>,
    /// Which exports lie in a field, or arrive there.
    exports: Vec<Export>,
    gpus: Vec<Exposed>,
    epoch: u32,
    deeds: Vec<Deed>,
    /// What it has to tell.
    pub tally: Deeds,
}

/// Whether it happens to a device, and so to all that lies in it.
fn is_of_device(what: Disturbance) -> bool {
    !matches!(what, Disturbance::Move | Disturbance::Close | Disturbance::Permission)
}

/// Deeds at once.
const AT_ONCE: usize = 3;

impl Exporter {
    /// An exporter of `count` buffers in the first of these fields, with these GPUs.
    ///
    /// The last of them stays in RAM, and is only moved from where nobody has pinned it; for importers that
    /// cannot do without it.
    ///
    /// # Errors
    /// [`OfferError`]: a field has no bytes.
    pub fn new(mut fields: Vec<Field>, count: usize, gpus: Vec<Exposed>) -> Result<Self, OfferError> {
        let last = count.min(fields.len()).saturating_sub(1);
        if let Some(ram) = fields.iter().position(|field| field.home == Home::Ram) {
            fields.swap(last, ram);
        }
        let mut new = Self { fields, exports: Vec::new(), gpus, epoch: 0, deeds: Vec::new(), tally: Deeds::default() };
        new.fields.iter().for_each(Field::close);
        for field in 0..count.min(new.fields.len()) {
            let stays = if field == last { Stays::UNLESS_PINNED } else { MOVED_AND_LOST };
            let buffer = new.create(field, stays)?;
            new.exports.push(Export { buffer, field, arriving: None, stays });
        }
        Ok(new)
    }

    /// How many buffers there are.
    pub fn buffers(&self) -> usize {
        self.exports.len()
    }

    /// A buffer by its number; another takes its place when it is gone.
    pub fn offered(&self, number: usize) -> Option<Offered<'_>> {
        let export = self.exports.get(number)?;
        let epoch = self.fields.get(export.field).and_then(Field::epoch);
        Some(Offered { buffer: &export.buffer, epoch, fields: &self.fields })
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        self.deeds.is_empty()
    }

    /// Who holds on to memory that something is to happen to.
    pub fn held(&self) -> Vec<String> {
        let waits = self.deeds.iter().filter_map(|deed| match &deed.stage {
            Stage::Waiting(disturbing) => Some(disturbing.held()),
            Stage::Happening(_) => None,
        });
        waits.flatten().map(|held| held.to_string()).collect()
    }

    /// Takes one step: begins something where `more`, or goes on with something.
    pub fn step(&mut self, machine: &Machine, random: &mut fastrand::Rng, more: bool) {
        if more && self.deeds.len() < AT_ONCE && random.u8(..4) == 0 {
            self.begin(machine, random);
        }
        let Some(index) = random.choice(0..self.deeds.len()) else { return };
        let mut deed = self.deeds.remove(index);
        deed.left = deed.left.saturating_sub(1);
        let next = match deed.stage {
            Stage::Waiting(disturbing) => match disturbing.try_proceed() {
                Ok(disturbed) => {
                    Some(self.happens(machine, random, Deed { stage: Stage::Happening(disturbed), ..deed }))
                }
                // A removal has happened, and nobody can give it up.
                Err(disturbing) if deed.left == 0 && deed.what != Disturbance::Removal => {
                    self.tally.given_up += 1;
                    self.release(&deed.targets);
                    drop(disturbing);
                    self.reopen(&deed.targets);
                    None
                }
                Err(disturbing) => Some(Deed { stage: Stage::Waiting(disturbing), ..deed }),
            },
            // What lies in the field next is told of nothing that began before.
            stage if deed.what == Disturbance::Close && self.is_disturbed(&deed.targets) => {
                Some(Deed { stage, ..deed })
            }
            Stage::Happening(disturbed) if deed.left == 0 => {
                self.ends(machine, disturbed, deed.what, &deed.targets, deed.gpu);
                None
            }
            stage => Some(Deed { stage, ..deed }),
        };
        self.deeds.extend(next);
    }

    fn begin(&mut self, machine: &Machine, random: &mut fastrand::Rng) {
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
        if !self.is_in_the_way(what, &targets, gpu) {
            self.announce_all(machine, what, (targets, gpu), to, left);
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
        self.announce_all(machine, what, (targets, gpu), place, u32::MAX)
    }

    fn announce_all(
        &mut self,
        machine: &Machine,
        what: Disturbance,
        (targets, gpu): (Vec<usize>, Option<usize>),
        to: Option<usize>,
        left: u32,
    ) -> bool {
        if let (Disturbance::Removal, Some(gpu)) = (what, gpu) {
            // Nobody is asked: it comes as news of what has happened.
            self.gpus[gpu].begin(machine, what);
        }
        let buffers: Vec<Buffer> = targets.iter().map(|&target| self.exports[target].buffer.clone()).collect();
        match Buffer::begin_all(&buffers, what) {
            Ok(disturbing) => {
                if let (Some(to), Some(&target)) = (to, targets.first()) {
                    self.exports[target].arriving = Some(to);
                }
                self.deeds.push(Deed { what, targets, gpu, left, stage: Stage::Waiting(disturbing) });
                true
            }
            Err(_) => {
                self.tally.refused += 1;
                false
            }
        }
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
    fn is_taken(&self, field: usize) -> bool {
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

    /// Exports that lie in a GPU's memory, or are on their way there.
    fn on(&self, gpu: usize) -> Vec<usize> {
        let is_there = |index: usize| matches!(self.fields[index].home, Home::Vram { gpu: other, .. } if other == gpu);
        let at = |export: &Export| is_there(export.field) || export.arriving.is_some_and(is_there);
        self.exports.iter().enumerate().filter(|(_, export)| at(export)).map(|(index, _)| index).collect()
    }

    /// What was to be moved is not.
    fn release(&mut self, targets: &[usize]) {
        for &target in targets {
            self.exports[target].arriving = None;
        }
    }

    /// All are quiet: nothing may touch their memory, and the deed is done.
    fn happens(&mut self, machine: &Machine, random: &mut fastrand::Rng, mut deed: Deed) -> Deed {
        for &target in &deed.targets {
            let field = &self.fields[self.exports[target].field];
            if let Home::Vram { gpu, .. } = field.home {
                self.gpus[gpu].push(machine);
            }
            field.close();
        }
        if let Some(gpu) = deed.gpu.filter(|_| deed.what != Disturbance::Removal) {
            self.gpus[gpu].begin(machine, deed.what);
        }
        *self.tally.happened.entry(deed.what.word()).or_default() += 1;
        deed.left = random.u32(1..30);
        deed
    }

    fn ends(
        &mut self,
        machine: &Machine,
        disturbed: Disturbed,
        what: Disturbance,
        targets: &[usize],
        gpu: Option<usize>,
    ) {
        if let Some(gpu) = gpu {
            self.gpus[gpu].end(machine, what);
        }
        if what.about().contents == Contents::Lost {
            targets.iter().for_each(|&target| self.scramble(target));
        }
        match (what, targets) {
            (Disturbance::Move, &[target]) => self.moved(disturbed, target),
            (Disturbance::Permission, _) => disturbed.permit(Prot::ReadWrite),
            (Disturbance::Close | Disturbance::Removal, _) => {
                disturbed.done();
                // A field that made one buffer makes another.
                for &target in targets {
                    let Export { field, stays, .. } = self.exports[target];
                    if let Ok(buffer) = self.create(field, stays) {
                        self.exports[target].buffer = buffer;
                    }
                }
                return;
            }
            _ => disturbed.done(),
        }
        self.reopen(targets);
    }

    /// Memory that is within reach again is open, under an epoch that no mapping before has seen.
    fn reopen(&mut self, targets: &[usize]) {
        for &target in targets {
            let export = &self.exports[target];
            let reachable = matches!(export.buffer.phase(), Phase::Live | Phase::Restored);
            if reachable && self.fields[export.field].epoch().is_none() {
                self.epoch += 1;
                self.fields[export.field].open(self.epoch);
            }
        }
    }

    /// Whether something else is done to one of these exports.
    fn is_disturbed(&self, targets: &[usize]) -> bool {
        self.deeds.iter().any(|deed| deed.targets.iter().any(|target| targets.contains(target)))
    }

    fn moved(&mut self, disturbed: Disturbed, target: usize) {
        let export = &mut self.exports[target];
        let Some(to) = export.arriving.take() else { return disturbed.done() };
        let (old, new) = (&self.fields[export.field], &self.fields[to]);
        new.put(&old.bytes());
        if disturbed.moved(new.place(), new.residence()).is_ok() {
            *self.tally.moved.entry((old.residence(), new.residence())).or_default() += 1;
            export.field = to;
        }
    }

    /// A buffer in this field; born revoked where the field's device does not answer.
    fn create(&mut self, field: usize, stays: Stays) -> Result<Buffer, OfferError> {
        let place = &self.fields[field];
        let answers = match place.home {
            Home::Vram { gpu, .. } => self.gpus[gpu].answers(),
            Home::Ram => Answers::YES,
        };
        self.epoch += 1;
        let name = format!("buffer {}", self.epoch);
        if answers == Answers::YES {
            place.open(self.epoch);
        }
        let elsewhere = self.fields.iter().filter(|field| stays.revoked || field.home == Home::Ram);
        let elsewhere = elsewhere.filter_map(|field| Some((field.residence(), field.owner()?)));
        let offer = Offer::new(place.place(), stays, place.residence())?.to_peers().permitting(Methods::all());
        let offer = elsewhere.fold(offer, |offer, (residence, owner)| offer.or_at(residence, owner));
        Ok(Buffer::new(&name, offer, answers))
    }

    /// What a reset leaves in memory.
    fn scramble(&self, target: usize) {
        let field = &self.fields[self.exports[target].field];
        field.put(&vec![0xdb; field.len().as_u64() as usize]);
    }
}
