//! What an importer hears.

use super::super::super::life::{Disturbance, Generation, NoticeId, Phase};
use super::super::super::terms::Place;
use super::super::RequestId;
use super::super::codes::{Descriptors, Ending};
use super::super::message::{Offer, Refusal, Terms};
use crate::access::Prot;
use alloc::string::String;

/// What an exporter said, after it was found to be in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It chose a version. Its offer follows.
    Welcomed,
    /// It has this. A declaration is due.
    Offered(Offer),
    /// Terms are settled.
    Attached(Terms),
    /// It does not settle; the session is over.
    Refused(Refusal),
    /// A mapping may be made; it is counted.
    Granted {
        /// Which request.
        request: RequestId,
        /// What the mapping belongs to.
        generation: Generation,
        /// What may be done with it.
        prot: Prot,
    },
    /// A mapping may not be made.
    Denied {
        /// Which request.
        request: RequestId,
        /// Where the buffer is in its life.
        phase: Phase,
        /// Why, in its words.
        why: String,
    },
    /// Stop, and unmap. Taking note is due.
    LetGo {
        /// Which notice.
        notice: NoticeId,
        /// What is about to happen, or has.
        cause: Disturbance,
        /// For how long it means to wait, in milliseconds; 0 if it does not say.
        deadline_ms: u32,
    },
    /// The buffer is within reach. Taking note is due, and mapping possible then.
    MayMap {
        /// Which notice.
        notice: NoticeId,
        /// What a mapping made now belongs to.
        generation: Generation,
    },
    /// The bytes lie elsewhere.
    Moved {
        /// Where.
        place: Place,
        /// What came along.
        descriptors: Descriptors,
    },
    /// The buffer is gone for good.
    Gone,
    /// It goes; the session is over.
    Goodbye(Ending),
}
