//! What came of a transfer, byte by byte.

use peerdma::addr::Bytes;

/// A byte that is not what was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Offset in the target's range, in both directions.
    pub offset: Bytes,
    /// What was sent.
    pub expected: u8,
    /// What the destination's owner reads.
    pub seen: u8,
}

/// Which side of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Below its first byte.
    Before,
    /// Above its last byte.
    After,
}

/// A byte beside the destination that changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// On which side.
    pub side: Side,
    /// How far from the destination's edge; 1 is the next byte.
    pub distance: Bytes,
    /// What it held.
    pub was: u8,
    /// What it holds.
    pub is: u8,
}

/// What came of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The first byte that is not what was sent.
    pub first_wrong: Option<Wrong>,
    /// How many bytes are not.
    pub wrong: Bytes,
    /// Every byte of the destination still holds what it held before the transfer.
    pub untouched: bool,
    /// A byte beside the destination changed.
    pub damage: Option<Damage>,
}

impl Delivery {
    /// Compares what came with what was sent and what was there before.
    pub(crate) fn compare(offset: Bytes, sent: &[u8], before: &[u8], came: &[u8], damage: Option<Damage>) -> Self {
        let wrong = |(index, (sent, came)): (usize, (&u8, &u8))| {
            (sent != came).then(|| Wrong {
                offset: Bytes::new(offset.as_u64() + index as u64),
                expected: *sent,
                seen: *came,
            })
        };
        let mut all = sent.iter().zip(came).enumerate().filter_map(wrong);
        let first_wrong = all.next();
        let count = all.count() + usize::from(first_wrong.is_some());
        Self { first_wrong, wrong: Bytes::new(count as u64), untouched: before == came, damage }
    }

    /// Nothing moved and nothing is wrong: what a verification starts with.
    const NONE: Self = Self { first_wrong: None, wrong: Bytes::ZERO, untouched: false, damage: None };

    /// Whether every byte came and none beside it changed.
    pub const fn is_delivered(&self) -> bool {
        self.first_wrong.is_none() && self.damage.is_none()
    }
}

/// What came of both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verification {
    /// Initiator to target.
    pub write: Delivery,
    /// Target to initiator.
    pub read: Delivery,
    /// Bytes of the target that were moved in both directions and looked at.
    pub checked: Bytes,
    /// Bytes that were to be checked.
    pub total: Bytes,
    /// The target holds again what it held before, as its CPU reads it.
    pub restored: bool,
}

impl Verification {
    pub(super) const fn new(total: Bytes) -> Self {
        Self { write: Delivery::NONE, read: Delivery::NONE, checked: Bytes::ZERO, total, restored: true }
    }

    /// Takes the result of a run of `len` bytes; whether it makes sense to go on.
    pub(super) fn add(&mut self, len: usize, write: Delivery, read: Delivery, restored: bool) -> bool {
        self.checked = Bytes::new(self.checked.as_u64() + len as u64);
        self.write = write;
        self.read = read;
        self.restored &= restored;
        write.is_delivered() && read.is_delivered()
    }

    /// Whether every byte came in both directions.
    pub fn is_verified(&self) -> bool {
        self.write.is_delivered() && self.read.is_delivered() && self.checked == self.total
    }
}
