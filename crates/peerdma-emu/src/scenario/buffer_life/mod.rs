//! A buffer's life: VRAM that a drive fills and a NIC empties, moved and reset while they are at it.
//!
//! Batches go from the drive's medium through two halves of a buffer, and by two NICs to RAM. Meanwhile the
//! buffer's owner moves it to another GPU, resets that one, moves the bytes to RAM and back, and
//! resets the first GPU. Each time it says so first and waits until both have let go, with whatever
//! they had begun done; afterwards they map the buffer where it is then, and go on. A reset loses what was
//! in the buffer and not sent yet, and the drive, which is told, reads that once more.
//!
//! That nothing was lost is seen where it arrived, compared with the medium. That nobody used the
//! buffer where it no longer was is seen there: something else is put there, and is the same in the end.
//!
//! - [`stream`]: what goes through the buffer. - [`hold`]: what every importer does.
//! - [`takers`]: the drive and the NIC. - [`keeper`]: who owns the buffer.

mod hold;
mod keeper;
mod stream;
mod takers;

use super::cast::Cast;
use super::end::End;
use super::error::ScenarioError;
use super::stage::{DRIVE_MEMORY, Stage, noise};
use crate::device::nvme::{BlockSize, Media};
use crate::memory::{Memory, Striped};
use crate::platform::Platform;
use hold::Hold;
use keeper::Keeper;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::life::Disturbance;
use peerdma::buffer::shared::Buffer;
use std::ops::ControlFlow;
use std::sync::Arc;
use stream::{HALVES, Stream};
use takers::{Filler, Sender};

/// Something that happened to the buffer while it was in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deed {
    /// What.
    pub what: Disturbance,
    /// Where the buffer was.
    pub at: String,
    /// Where it was brought, for a move.
    pub to: Option<String>,
    /// Who held on, and by what, when everybody had heard.
    pub held: Vec<String>,
    /// How often the owner looked until nobody held on; the machine goes on a step between two looks.
    pub looks: u64,
    /// Batches that were in the buffer and are gone, so that the drive reads them again.
    pub again: u64,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BufferLife {
    /// Who fills the buffer.
    pub drive: String,
    /// Who sends what is in it, and who takes it.
    pub nics: [String; 2],
    /// Whose memory it lies in, now and then.
    pub gpus: [String; 2],
    /// The buffer's length.
    pub len: Bytes,
    /// How long a batch is.
    pub batch: Bytes,
    /// How many were sent.
    pub sent: u64,
    /// What happened meanwhile, in order.
    pub deeds: Vec<Deed>,
    /// Whether every batch that was sent arrived as it is on the medium.
    pub arrived: bool,
    /// Whether nothing came to where the buffer no longer was.
    pub left_alone: bool,
}

impl BufferLife {
    /// Whether nothing was lost, and nobody used the buffer where it no longer was.
    pub fn is_good(&self) -> bool {
        self.arrived && self.left_alone
    }
}

/// Steps after which the story should long have ended.
const STEPS: u64 = 4_000_000;

/// Sends `batches` of `batch` bytes, rounded up to blocks of 4 KiB, through a buffer to which five things
/// happen meanwhile. `watch` sees the buffer after every step, and ends it early by breaking.
///
/// # Errors
/// [`ScenarioError`] where a device, the mapping engine or the buffer refuses; bytes that went astray are no
/// error, and [`BufferLife::is_good`] tells of them.
pub fn buffer_life(
    platform: &Platform,
    cast: &Cast,
    (batch, batches): (Bytes, u64),
    seed: u64,
    watch: &mut dyn FnMut(&Buffer) -> ControlFlow<()>,
) -> Result<BufferLife, ScenarioError> {
    let block = BlockSize::Long.bytes().as_u64();
    let batch = Bytes::new(batch.as_u64().max(1).div_ceil(block).saturating_mul(block));
    let (len, total) = (Bytes::new(HALVES * batch.as_u64()), Bytes::new(batch.as_u64().saturating_mul(batches)));
    let data = noise(total, seed);
    let media = Arc::new(Striped::new(total));
    media.write(Bytes::ZERO, &data)?;
    let in_drive = Media::new(media, BlockSize::Long);
    let stage = Stage::new(platform, seed, |builder| builder.media(&cast.drive, in_drive))?;

    let (peers, owners) = (stage.peers(), &stage.owners);
    let drive_seat = stage.seat(&cast.drive)?;
    let gpu_seats = [stage.seat(&cast.gpus[0])?, stage.seat(&cast.gpus[1])?];
    let nic_seats = [stage.seat(&cast.nics[0])?, stage.seat(&cast.nics[1])?];
    let drive_desk = drive_seat.context(owners, &peers)?;
    let gpu_desks = [gpu_seats[0].context(owners, &peers)?, gpu_seats[1].context(owners, &peers)?];
    let nic_desks = [nic_seats[0].context(owners, &peers)?, nic_seats[1].context(owners, &peers)?];
    let gpus = [0, 1].map(|index| (cast.gpus[index].as_str(), &gpu_desks[index], &gpu_seats[index]));
    let mut keeper = Keeper::new(&stage, gpus, len, batches)?;
    let buffer = keeper.buffer().clone();

    let drive_memory = stage.ram(&drive_desk, DRIVE_MEMORY)?;
    let hold = Hold::attach(&drive_desk, (&buffer, &peers), &cast.drive, Prot::ReadWrite)?;
    let mut filler = Filler::new(hold, stage.drive(&drive_seat, &drive_memory)?);
    let ends = [End::new(&stage, &nic_desks[0], &nic_seats[0])?, End::new(&stage, &nic_desks[1], &nic_seats[1])?];
    ends[0].connect(&ends[1])?;
    let arrivals = stage.ram(&nic_desks[1], total)?;
    let [sends, takes] = ends;
    let into = takes.register(&arrivals.mapping)?;
    let hold = Hold::attach(&nic_desks[0], (&buffer, &peers), &cast.nics[0], Prot::Read)?;
    let mut sender = Sender::new(hold, sends, into);

    let mut stream = Stream::new(batch, batches);
    let mut left = STEPS;
    while !(stream.is_done() && keeper.is_done()) && watch(&buffer).is_continue() {
        left = left.checked_sub(1).ok_or(ScenarioError::Restless)?;
        stage.machine().step();
        filler.step(&mut stream)?;
        sender.step(&mut stream)?;
        keeper.step(&mut stream)?;
    }
    stage.settle()?;
    keeper.look_everywhere()?;
    let sent = (stream.sent() * batch.as_u64()) as usize;
    let arrived = arrivals.bytes()?.get(..sent) == data.get(..sent);
    Ok(BufferLife {
        drive: cast.drive.clone(),
        nics: cast.nics.clone(),
        gpus: cast.gpus.clone(),
        len,
        batch,
        sent: stream.sent(),
        deeds: keeper.deeds,
        arrived,
        left_alone: keeper.left_alone,
    })
}
