//! The document of `copy`: what was permitted, what was granted, what was verified.

use super::{Pair, Source};
use peerdma::addr::{AddrRange, Iova};
use peerdma_linux::verified::{Damage, Delivery, Side, Verification};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `copy`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct CopyDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts about the pair came from: always this machine.
    pub(crate) source: Source,
    /// The kind of engine.
    #[schemars(extend("enum" = ["edu"]))]
    pub(crate) engine: &'static str,
    /// The pair and the range: permitted if `kernel.map_type` is `BUS_ADDR` or
    /// `THRU_HOST_BRIDGE`.
    pub(crate) pair: Pair,
    /// Whether --force was given: then a refused or unknown pair was tried all the same.
    pub(crate) forced: bool,
    /// What a driver of the kernel mapped; null where nothing was: the pair was not touched, or
    /// the copy failed before.
    pub(crate) granted: Option<GrantedDocument>,
    /// Bytes that the engine reported as moved to the target; null where nothing was touched and
    /// where the copy failed. It reports so whether or not they arrived.
    pub(crate) moved: Option<u64>,
    /// What the target's owner saw; null without --verify, where nothing was touched, and where
    /// the copy failed before the bytes were judged.
    pub(crate) verified: Option<VerifiedDocument>,
}

/// What was mapped for the initiator.
#[derive(Serialize, JsonSchema, Clone, Debug)]
pub(crate) struct GrantedDocument {
    /// `type1` or `iommufd`.
    #[schemars(extend("enum" = ["type1", "iommufd"]))]
    pub(crate) via: &'static str,
    /// First IOVA of the target's range.
    target_iova: String,
    /// IOVAs that were mapped to the target: the whole pages around the range.
    mapped_iova: String,
    /// IOVAs that were mapped to process memory.
    staging_iova: String,
}

impl GrantedDocument {
    pub(crate) fn new(
        via: &'static str,
        target: AddrRange<Iova>,
        mapped: AddrRange<Iova>,
        staging: AddrRange<Iova>,
    ) -> Self {
        Self {
            via,
            target_iova: target.start().to_string(),
            mapped_iova: mapped.to_string(),
            staging_iova: staging.to_string(),
        }
    }

    /// The same as a clause.
    pub(crate) fn words(&self) -> String {
        let Self { via, target_iova, mapped_iova, staging_iova } = self;
        format!("{via} mapped the target at IOVA {target_iova} (pages {mapped_iova}) and memory at {staging_iova}")
    }
}

/// What the target's owner saw.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct VerifiedDocument {
    /// Every byte arrived, in both directions, and nothing beside them changed.
    verified: bool,
    /// The seed of the bytes.
    seed: u64,
    /// Bytes of the target that were moved in both directions and looked at.
    checked: u64,
    /// Bytes asked for.
    total: u64,
    /// Initiator to target, read by the CPU through the target's BAR.
    write: DeliveryDocument,
    /// Target to initiator and from there to process memory, read by the CPU there.
    read: DeliveryDocument,
    /// The target holds again what it held before.
    restored: bool,
}

impl VerifiedDocument {
    pub(crate) fn new(seed: u64, verification: &Verification) -> Self {
        Self {
            verified: verification.is_verified(),
            seed,
            checked: verification.checked.as_u64(),
            total: verification.total.as_u64(),
            write: (&verification.write).into(),
            read: (&verification.read).into(),
            restored: verification.restored,
        }
    }
}

/// What came of one direction, in its last run.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DeliveryDocument {
    /// Every byte arrived and nothing beside them changed.
    delivered: bool,
    /// Bytes that are not what was sent.
    wrong: u64,
    /// The destination holds what it held before the transfer: nothing arrived at all.
    untouched: bool,
    /// The first byte that is not what was sent; null if all are.
    first_wrong: Option<WrongDocument>,
    /// A byte beside the destination that changed; null if none did.
    damaged: Option<DamageDocument>,
}

impl From<&Delivery> for DeliveryDocument {
    fn from(delivery: &Delivery) -> Self {
        Self {
            delivered: delivery.is_delivered(),
            wrong: delivery.wrong.as_u64(),
            untouched: delivery.untouched,
            first_wrong: delivery.first_wrong.map(|wrong| WrongDocument {
                offset: wrong.offset.as_u64(),
                expected: wrong.expected,
                seen: wrong.seen,
            }),
            damaged: delivery.damage.map(Into::into),
        }
    }
}

/// A byte that is not what was sent.
#[derive(Serialize, JsonSchema, Debug)]
struct WrongDocument {
    /// Offset in the range.
    offset: u64,
    /// What was sent.
    expected: u8,
    /// What was read.
    seen: u8,
}

/// A byte beside the destination that changed.
#[derive(Serialize, JsonSchema, Debug)]
struct DamageDocument {
    /// `before` or `after` the destination.
    #[schemars(extend("enum" = ["before", "after"]))]
    side: &'static str,
    /// Bytes from the destination's edge; 1 is the next byte.
    distance: u64,
    /// What it held.
    was: u8,
    /// What it holds.
    is: u8,
}

impl From<Damage> for DamageDocument {
    fn from(damage: Damage) -> Self {
        let side = match damage.side {
            Side::Before => "before",
            Side::After => "after",
        };
        Self { side, distance: damage.distance.as_u64(), was: damage.was, is: damage.is }
    }
}
