//! Who owns buffers, and does things to the memory that they lie in, a step at a time.

mod announcing;
mod wrong;

use super::device::Exposed;
use super::field::{Field, Home};
use crate::machine::Machine;
use peerdma::access::Prot;
use peerdma::buffer::life::{Answers, Contents, Disturbance, Phase};
use peerdma::buffer::shared::{Bar, Buffer, Disturbed, Disturbing};
use peerdma::buffer::terms::{Methods, Moves, Offer, OfferError, Place, Stays};
use peerdma::dma::Peers;
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
    /// Of which GPU's memory it is exported for good; such a buffer is told with all others of that memory.
    bar: Option<usize>,
    /// What is permitted now.
    permitted: Prot,
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
    /// What is permitted when it is over, where it is about that.
    prot: Prot,
    stage: Stage,
}

/// What was announced to one buffer after the other, or to all of a GPU's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Buffers,
    Bar,
}

enum Stage {
    /// What is waited for, and what is quiet already.
    Waiting(Vec<(To, Disturbing)>, Vec<(To, Disturbed)>),
    Happening(Vec<(To, Disturbed)>),
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
    /// How often a buffer was left for reading alone.
    pub left_for_reading: u64,
    /// How often a buffer of a GPU's memory was exported while something happened to that.
    pub born_away: u64,
}

/// Owns fields and the buffers in them, and disturbs them.
pub struct Exporter {
    fields: Vec<Field>,
    /// Which exports lie in a field, or arrive there.
    exports: Vec<Export>,
    gpus: Vec<Exposed>,
    /// The memory of each of them.
    bars: Vec<Bar>,
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
    /// cannot do without it. Of each GPU's memory one stays there, and is taken away and given back with the GPU.
    ///
    /// # Errors
    /// [`OfferError`]: a field has no bytes.
    pub fn new(mut fields: Vec<Field>, count: usize, gpus: Vec<Exposed>) -> Result<Self, OfferError> {
        let last = count.min(fields.len()).saturating_sub(1);
        if let Some(ram) = fields.iter().position(|field| field.home == Home::Ram) {
            fields.swap(last, ram);
        }
        let bars = gpus.iter().map(|gpu| Bar::new(gpu.answers())).collect();
        let (exports, deeds, tally) = (Vec::new(), Vec::new(), Deeds::default());
        let mut new = Self { fields, exports, gpus, bars, epoch: 0, deeds, tally };
        new.fields.iter().for_each(Field::close);
        for field in 0..count.min(new.fields.len()) {
            // The first goes everywhere, for importers that follow.
            let of = match new.fields[field].home {
                Home::Vram { gpu, .. } if field > 0 => Some(gpu),
                _ => None,
            };
            let bar = of.filter(|gpu| new.exports.iter().all(|export| export.bar != Some(*gpu)));
            let stays = match bar {
                _ if field == last => Stays::UNLESS_PINNED,
                Some(_) => Stays::UNTIL_REVOKED,
                None => MOVED_AND_LOST,
            };
            if let Some(buffer) = new.create(field, stays, bar)? {
                new.exports.push(Export { buffer, field, arriving: None, stays, bar, permitted: Prot::ReadWrite });
            }
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

    /// Whether a buffer goes from one place to another; one that is of a GPU's memory for good does not.
    pub fn is_moved(&self, number: usize) -> bool {
        self.exports.get(number).is_some_and(|export| export.bar.is_none())
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        self.deeds.is_empty()
    }

    /// Who holds on to memory that something is to happen to.
    pub fn held(&self) -> Vec<String> {
        let waits = self.deeds.iter().filter_map(|deed| match &deed.stage {
            Stage::Waiting(waiting, _) => Some(waiting.iter().flat_map(|(_, disturbing)| disturbing.held())),
            Stage::Happening(_) => None,
        });
        waits.flatten().map(|held| held.to_string()).collect()
    }

    /// Takes one step: begins something where `more`, or goes on with something.
    pub fn step(&mut self, (machine, peers): (&Machine, &Peers<'_>), random: &mut fastrand::Rng, more: bool) {
        self.do_wrong();
        if more && self.deeds.len() < AT_ONCE && random.u8(..4) == 0 {
            self.begin(machine, random);
        }
        let Some(index) = random.choice(0..self.deeds.len()) else { return };
        let mut deed = self.deeds.remove(index);
        deed.left = deed.left.saturating_sub(1);
        let next = match deed.stage {
            Stage::Waiting(waiting, mut quiet) => {
                let mut still = Vec::new();
                for (to, disturbing) in waiting {
                    match disturbing.try_proceed() {
                        // It stays so.
                        Ok(disturbed) => quiet.push((to, disturbed)),
                        Err(disturbing) => still.push((to, disturbing)),
                    }
                }
                if still.is_empty() {
                    Some(self.happens(machine, random, Deed { stage: Stage::Happening(quiet), ..deed }))
                } else if deed.left == 0 && deed.what != Disturbance::Removal {
                    // A removal has happened, and nobody can give it up.
                    self.tally.given_up += 1;
                    self.release(&deed.targets);
                    drop((still, quiet));
                    self.reopen(&deed.targets);
                    None
                } else {
                    Some(Deed { stage: Stage::Waiting(still, quiet), ..deed })
                }
            }
            // What lies in the field next is told of nothing that began before, but of all that is under way in a GPU's memory.
            stage
                if deed.what == Disturbance::Close
                    && self.is_disturbed(&deed.targets)
                    && !self.are_of_bars(&deed.targets) =>
            {
                Some(Deed { stage, ..deed })
            }
            Stage::Happening(disturbed) if deed.left == 0 => {
                self.ends((machine, peers), disturbed, (deed.what, deed.prot), &deed.targets, deed.gpu);
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
        (machine, peers): (&Machine, &Peers<'_>),
        disturbed: Vec<(To, Disturbed)>,
        (what, prot): (Disturbance, Prot),
        targets: &[usize],
        gpu: Option<usize>,
    ) {
        if let Some(gpu) = gpu {
            self.gpus[gpu].end(machine, what);
        }
        if what.about().contents == Contents::Lost {
            targets.iter().for_each(|&target| self.scramble(target));
        }
        if matches!(what, Disturbance::Close | Disturbance::Removal) {
            disturbed.into_iter().for_each(|(_, disturbed)| disturbed.done());
            if let (Disturbance::Removal, Some(gpu)) = (what, gpu) {
                // What was pulled is gone for good. This is another.
                self.bars[gpu] = Bar::new(self.gpus[gpu].answers());
            }
            return targets.iter().for_each(|&target| self.create_anew(target));
        }
        for (to, disturbed) in disturbed {
            match (what, targets) {
                (Disturbance::Move, &[target]) => self.moved(peers, disturbed, target),
                (Disturbance::Permission, _) => {
                    disturbed.permit(prot);
                    self.tally.left_for_reading += u64::from(!prot.writes());
                    targets.iter().for_each(|&target| self.exports[target].permitted = prot);
                }
                // Others may have begun, and not ended, what the registers show.
                _ => match gpu.filter(|_| to == To::Bar) {
                    Some(gpu) => disturbed.done_answering(self.gpus[gpu].answers()),
                    None => disturbed.done(),
                },
            }
        }
        self.reopen(targets);
    }

    /// A field that made one buffer makes another.
    fn create_anew(&mut self, target: usize) {
        let Export { field, stays, bar, .. } = self.exports[target];
        if let Ok(Some(buffer)) = self.create(field, stays, bar) {
            let export = &mut self.exports[target];
            (export.buffer, export.permitted) = (buffer, Prot::ReadWrite);
        }
    }

    /// Memory that is within reach again is open, under an epoch that no mapping before has seen.
    fn reopen(&mut self, targets: &[usize]) {
        for &target in targets {
            let export = &self.exports[target];
            let reachable = matches!(export.buffer.phase(), Phase::Live | Phase::Restored);
            if reachable && self.fields[export.field].epoch().is_none() {
                self.open(target);
            }
        }
    }

    /// Opens the field that an export lies in, for what is permitted, under an epoch of its own.
    fn open(&mut self, target: usize) {
        let export = &self.exports[target];
        self.epoch += 1;
        match export.permitted.writes() {
            true => self.fields[export.field].open(self.epoch),
            false => self.fields[export.field].open_for_reading(self.epoch),
        }
    }

    /// Whether all of these are told with all others of a GPU's memory.
    fn are_of_bars(&self, targets: &[usize]) -> bool {
        targets.iter().all(|&target| self.exports[target].bar.is_some())
    }

    /// Whether something else is done to one of these exports.
    fn is_disturbed(&self, targets: &[usize]) -> bool {
        self.deeds.iter().any(|deed| deed.targets.iter().any(|target| targets.contains(target)))
    }

    fn moved(&mut self, peers: &Peers<'_>, disturbed: Disturbed, target: usize) {
        let export = &mut self.exports[target];
        let Some(to) = export.arriving.take() else { return disturbed.done() };
        let (old, new) = (&self.fields[export.field], &self.fields[to]);
        new.put(&old.bytes());
        if disturbed.moved(new.place(), new.residence(), peers).is_ok() {
            *self.tally.moved.entry((old.residence(), new.residence())).or_default() += 1;
            export.field = to;
        }
    }

    /// A buffer in this field; born revoked where the field's device does not answer, or is disturbed and `bar` knows
    /// of it. None of memory that is gone.
    fn create(&mut self, field: usize, stays: Stays, bar: Option<usize>) -> Result<Option<Buffer>, OfferError> {
        let place = &self.fields[field];
        let answers = match place.home {
            Home::Vram { gpu, .. } => self.gpus[gpu].answers(),
            Home::Ram => Answers::YES,
        };
        self.epoch += 1;
        let name = format!("buffer {}", self.epoch);
        let moves = stays.moves != Moves::Never;
        let elsewhere = self.fields.iter().filter(|field| moves && (stays.revoked || field.home == Home::Ram));
        let elsewhere = elsewhere.filter_map(|field| Some((field.residence(), field.owner()?)));
        let offer = Offer::new(place.place(), stays, place.residence())?.to_peers().permitting(Methods::all());
        let offer = elsewhere.fold(offer, |offer, (residence, owner)| offer.or_at(residence, owner));
        let buffer = match bar {
            Some(gpu) => self.bars[gpu].export(&name, offer).ok(),
            None => Some(Buffer::new(&name, offer, answers)),
        };
        let Some(buffer) = buffer else { return Ok(None) };
        if buffer.phase() == Phase::Live {
            place.open(self.epoch);
        } else if bar.is_some() {
            self.tally.born_away += 1;
        }
        Ok(Some(buffer))
    }

    /// What a reset leaves in memory.
    fn scramble(&self, target: usize) {
        let field = &self.fields[self.exports[target].field];
        field.put(&vec![0xdb; field.len().as_u64() as usize]);
    }
}
