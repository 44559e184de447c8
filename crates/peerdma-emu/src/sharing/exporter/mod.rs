//! Who owns buffers, and does things to the memory that they lie in, a step at a time.

mod announcing;
mod wrong;

use super::device::Exposed;
use super::field::{Field, Home};
use crate::machine::Machine;
use peerdma::access::Prot;
use peerdma::buffer::life::{Answers, Contents, Disturbance, Phase};
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
        self.do_wrong();
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
