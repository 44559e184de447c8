//! Document of `demo`.

use super::map::MapDocument;
use super::{Pair, Source};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `demo`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DemoDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// The machine.
    pub(crate) source: Source,
    /// Seed of the run.
    pub(crate) seed: u64,
    /// Whether everything arrived where it should.
    pub(crate) verified: bool,
    /// What did not, in words.
    pub(crate) missing: Vec<&'static str>,
    /// Every pair, row-major by address, initiators first.
    pub(crate) matrix: Vec<Pair>,
    /// One pair that is refused, with reasons; null where none is.
    pub(crate) refused: Option<Pair>,
    /// A mixed list mapped for a NIC.
    pub(crate) mapping: MapDocument,
    /// Bytes that devices moved.
    pub(crate) transfers: Vec<TransferDocument>,
    /// What the processor copies in this process, in bytes a second.
    pub(crate) memcpy_bytes_per_second: f64,
    /// Ways of a doorbell.
    pub(crate) doorbell: DoorbellDocument,
    /// An address of the wrong kind, under an IOMMU that translates.
    pub(crate) wrong_kind: WrongKindDocument,
    /// A refused route over a root complex that answers all ones.
    pub(crate) forced_route: ForcedRouteDocument,
    /// A doorbell that overtakes its payload.
    pub(crate) overtaken: OvertakenDocument,
    /// Two processes on one accelerator.
    pub(crate) processes: ProcessesDocument,
    /// A buffer that is moved and reset while devices are at it.
    pub(crate) buffer: BufferLifeDocument,
    /// How long everything took.
    pub(crate) seconds: f64,
}

/// A buffer that is moved and reset while devices are at it.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct BufferLifeDocument {
    /// Who fills it.
    pub(crate) drive: String,
    /// Who sends what is in it, and who takes it.
    pub(crate) nics: [String; 2],
    /// Whose memory it lies in, now and then.
    pub(crate) gpus: [String; 2],
    /// How long it is.
    pub(crate) bytes: u64,
    /// How long a batch is.
    pub(crate) batch_bytes: u64,
    /// How many batches went through.
    pub(crate) batches: u64,
    /// What happened meanwhile, in order.
    pub(crate) disturbances: Vec<DeedDocument>,
    /// Whether every batch arrived as it is on the medium.
    pub(crate) arrived: bool,
    /// Whether nothing came to where the buffer no longer was.
    pub(crate) left_alone: bool,
}

/// Something that happened to the buffer.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DeedDocument {
    /// `move` or `function-reset`.
    pub(crate) what: &'static str,
    /// Where the buffer was.
    pub(crate) at: String,
    /// Where it was brought; null for a reset.
    pub(crate) to: Option<String>,
    /// Who held on, and by what, when everybody had heard.
    pub(crate) held: Vec<String>,
    /// Batches that were lost there, and read again.
    pub(crate) read_again: u64,
}

/// Document of `demo --serve`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ServeDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where it was answered.
    pub(crate) socket: String,
    /// The machine.
    pub(crate) platform: String,
    /// Rounds, the one that was ended early included.
    pub(crate) rounds: u64,
    /// Batches that went through the buffers.
    pub(crate) batches: u64,
    /// What happened to them.
    pub(crate) disturbances: u64,
    /// Batches that were lost in a reset, and read again.
    pub(crate) read_again: u64,
    /// Whether everything arrived, and nothing came to where a buffer no longer was.
    pub(crate) verified: bool,
}

impl ServeDocument {
    pub(crate) fn new(socket: &std::path::Path, platform: &str) -> Self {
        Self {
            schema: super::SCHEMA,
            socket: socket.display().to_string(),
            platform: platform.to_string(),
            rounds: 0,
            batches: 0,
            disturbances: 0,
            read_again: 0,
            verified: true,
        }
    }

    /// Counts one more round.
    pub(crate) fn add(&mut self, life: &peerdma_emu::scenario::BufferLife) {
        self.rounds += 1;
        self.batches += life.sent;
        self.disturbances += life.deeds.len() as u64;
        self.read_again += life.deeds.iter().map(|deed| deed.again).sum::<u64>();
        self.verified &= life.is_good();
    }
}

/// Bytes that one device moved to or from another's memory.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct TransferDocument {
    /// Who sent requests.
    pub(crate) initiator: String,
    /// Whose memory; null for RAM.
    pub(crate) target: Option<String>,
    /// `writes` or `reads`: what the initiator did.
    #[schemars(extend("enum" = ["writes", "reads"]))]
    pub(crate) moves: &'static str,
    /// `direct`, `host_bridge`, or `memory`.
    pub(crate) route: String,
    /// `bus`, `iova` or `cpu_physical`.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical"]))]
    pub(crate) address_kind: &'static str,
    /// The first address.
    pub(crate) address: String,
    /// How many bytes.
    pub(crate) bytes: u64,
    /// Whether each is where it should be.
    pub(crate) verified: bool,
    /// How fast; of NICs from memory to memory through both.
    pub(crate) bytes_per_second: f64,
}

/// Ways of a doorbell.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DoorbellDocument {
    /// Who rang or had it rung.
    pub(crate) sender: String,
    /// Whose doorbell.
    pub(crate) bell: String,
    /// The peer's write.
    pub(crate) by_peer: JourneyDocument,
    /// The interrupt before the processor's write.
    pub(crate) interrupt: JourneyDocument,
    /// The processor's write.
    pub(crate) by_cpu: JourneyDocument,
}

/// The way of one request.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct JourneyDocument {
    /// Sender, ports by which it went on, and where it ended.
    pub(crate) places: Vec<String>,
    /// Links between devices that it crossed.
    pub(crate) links: usize,
    /// Whether its doorbell was heard, and what it was rung for arrived; null for an interrupt.
    pub(crate) heard: Option<bool>,
}

/// An address of the wrong kind.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct WrongKindDocument {
    /// Who writes.
    pub(crate) initiator: String,
    /// Into whose VRAM.
    pub(crate) target: String,
    /// The kind of address that the engine gave.
    pub(crate) given_kind: &'static str,
    /// The address.
    pub(crate) given: String,
    /// Whether bytes arrived there.
    pub(crate) arrived: bool,
    /// What other numbers did; only with --show-unsafe, else null.
    pub(crate) happening: Option<Vec<MistakeDocument>>,
}

/// A write to a number that the engine did not give.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct MistakeDocument {
    /// Who wrote.
    pub(crate) initiator: String,
    /// What the number was.
    pub(crate) what: &'static str,
    /// The number.
    pub(crate) number: String,
    /// Whose memory it was meant for.
    pub(crate) meant: String,
    /// Whose was overwritten; null if nobody's was.
    pub(crate) overwritten: Option<String>,
    /// Whether the device reported success.
    pub(crate) reported_done: bool,
    /// Whether the bytes are where they were meant to be.
    pub(crate) arrived: bool,
    /// Faults that the IOMMU recorded, where the bytes are nowhere; else null.
    pub(crate) faults: Option<u64>,
}

/// A refused route.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ForcedRouteDocument {
    /// Who reads.
    pub(crate) initiator: String,
    /// Whose VRAM.
    pub(crate) target: String,
    /// Why the engine gives no address; null if it gave one.
    pub(crate) refused: Option<String>,
    /// What became of it by force; only with --show-unsafe, else null.
    pub(crate) happening: Option<ForcedDocument>,
}

/// What a forced transfer came to.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ForcedDocument {
    /// The IOVA that was mapped by hand.
    pub(crate) number: String,
    /// Bytes moved.
    pub(crate) bytes: u64,
    /// Whether the drive reported success.
    pub(crate) reported_done: bool,
    /// Bytes that are as in VRAM.
    pub(crate) right: u64,
    /// Bytes that are `0xff`.
    pub(crate) ones: u64,
}

/// A doorbell that overtakes its payload.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct OvertakenDocument {
    /// In whose slot the engine stands that writes payload and doorbell.
    pub(crate) sender: String,
    /// Whose doorbell.
    pub(crate) bell: String,
    /// Steps that the engine asks for between the two.
    pub(crate) advice: Vec<&'static str>,
    /// Runs of each kind.
    pub(crate) runs: u64,
    /// Runs without the advice in which the old payload was copied.
    pub(crate) overtaken: u64,
    /// The first seed of those; null without any.
    pub(crate) first_seed: Option<u64>,
    /// Runs with the advice in which it was.
    pub(crate) overtaken_with_advice: u64,
}

/// Two processes on one accelerator.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ProcessesDocument {
    /// The accelerator.
    pub(crate) accelerator: String,
    /// Both.
    pub(crate) processes: Vec<ProcessDocument>,
    /// Page requests that were answered with no.
    pub(crate) page_requests_refused: u64,
}

/// One process.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ProcessDocument {
    /// Number of its address space.
    pub(crate) pasid: u32,
    /// Where its list is.
    pub(crate) list: String,
    /// The sum that the accelerator found.
    pub(crate) sum: u64,
    /// The sum as it is.
    pub(crate) expected: u64,
    /// An address that only the other has.
    pub(crate) foreign: String,
    /// How a load there was refused; null if it was not.
    pub(crate) load_refused: Option<String>,
    /// How a store there was refused; null if it was not.
    pub(crate) store_refused: Option<String>,
    /// Whether the other's memory is as it was.
    pub(crate) left_alone: bool,
}
