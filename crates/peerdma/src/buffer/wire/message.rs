//! The messages: one description of each, from which reader, writer and documentation are made.

use super::super::life::{AttachmentId, Disturbance, Generation, NoticeId, Phase};
use super::super::terms::{Contiguity, Methods, Place, Stays};
use super::super::{Control, Enforcement, Lifetime};
use super::codes::{Carrier, Descriptors, Ending, Features};
use super::field::{BadField, Field, Reader, Shape};
use super::malformed::Malformed;
use super::text::Text;
use super::{RequestId, VERSIONS};
use crate::access::Prot;
use crate::addr::Bytes;
use crate::topology::IommuMode;
use alloc::vec::Vec;

/// Bytes of the header: kind (`u16`), reserved and zero (`u16`), length of the whole message (`u32`).
pub const HEADER_LEN: usize = 8;

/// Most bytes that a message has, header included.
pub const MAX_LEN: usize = 4096;

/// Who says a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// Whoever owns the memory.
    Exporter,
    /// Whoever maps it.
    Importer,
    /// Either.
    Both,
}

/// Where a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// On the connection to the exporter's socket, until terms are settled.
    Connection,
    /// On the control descriptor, afterwards.
    Control,
    /// On whichever the session is.
    Either,
}

/// What is to be known of one field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldAbout {
    /// Its name.
    pub name: &'static str,
    /// How it lies in bytes.
    pub shape: Shape,
    /// What it says.
    pub meaning: &'static str,
}

/// What is to be known of one kind of message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// The number in its header.
    pub number: u16,
    /// Its name.
    pub word: &'static str,
    /// Who says it.
    pub sender: Sender,
    /// Where.
    pub channel: Channel,
    /// What it says.
    pub meaning: &'static str,
    /// Its fields, in the order in which they follow the header.
    pub fields: &'static [FieldAbout],
}

macro_rules! messages {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $number:literal $word:literal $sender:ident $channel:ident {
            $($(#[doc = $fdoc:literal])+ $field:ident: $sort:ty,)*
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, PartialEq, Eq, Debug)]
            pub struct $name {
                $($(#[doc = $fdoc])+ pub $field: $sort,)*
            }
        )+

        /// Anything that one side says to the other.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Message {
            $($(#[doc = $doc])+ $name($name),)+
        }

        /// Every kind of message, by number.
        pub const KINDS: &[Kind] = &[$(Kind {
            number: $number,
            word: $word,
            sender: Sender::$sender,
            channel: Channel::$channel,
            meaning: concat!($($doc),+),
            fields: &[$(FieldAbout {
                name: stringify!($field),
                shape: <$sort as Field>::SHAPE,
                meaning: concat!($($fdoc),+),
            },)*],
        },)+];

        impl Message {
            /// The number of its kind.
            pub const fn number(&self) -> u16 {
                match self { $(Self::$name(_) => $number,)+ }
            }

            /// The name of its kind.
            pub const fn word(&self) -> &'static str {
                match self { $(Self::$name(_) => $word,)+ }
            }

            fn put_fields(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(message) => { $(Field::put(&message.$field, out);)* })+
                }
            }

            fn take_fields(kind: u16, input: &mut Reader<'_>) -> Result<Self, Malformed> {
                match kind {
                    $($number => Ok(Self::$name($name {
                        $($field: Field::take(input).map_err(|bad| at($word, stringify!($field), bad))?,)*
                    })),)+
                    kind => Err(Malformed::UnknownKind { kind }),
                }
            }
        }
    };
}

messages! {
    /// The importer tells which versions it speaks.
    Hello = 1 "hello" Importer Connection {
        /// the lowest version
        lowest: u16,
        /// the highest version
        highest: u16,
        /// what it can do beyond that
        features: Features,
    }
    /// The exporter chose a version.
    Welcome = 2 "welcome" Exporter Connection {
        /// the version of everything that follows
        version: u16,
        /// the features that both have
        features: Features,
    }
    /// The exporter tells what it has.
    Offer = 3 "offer" Exporter Connection {
        /// the buffer's name, for people
        name: Text<64>,
        /// its length in bytes
        size: Bytes,
        /// the most that importers may do with it
        prot: Prot,
        /// what may happen to it, and what can be prevented
        stays: Stays,
        /// the ways in which it can be reached
        methods: Methods,
        /// where its bytes lie
        place: Place,
        /// the least enforcement that is accepted
        floor: Enforcement,
        /// the most enforcement that memory of its sort can have
        strongest: Enforcement,
        /// `full` while nobody else holds full control
        control: Control,
    }
    /// The importer tells what it can take, and what it wants.
    Declare = 4 "declare" Importer Connection {
        /// what refusals call it
        name: Text<64>,
        /// the ways in which it reaches the memory
        methods: Methods,
        /// what it wants to do
        prot: Prot,
        /// the least promise that it can live with
        takes: Lifetime,
        /// who sees to it that it lets go
        enforcement: Enforcement,
        /// what it wants to control
        control: Control,
        /// in how many pieces it takes the memory
        contiguity: Contiguity,
        /// of a device that reaches it: how many address bits the device forms; 0 without a device
        mask_bits: u8,
        /// of a device that reaches it: how an IOMMU treats the device; `none` without a device
        iommu: IommuMode,
    }
    /// The exporter settles. Two descriptors come with this message: the memory, then the control channel.
    Terms = 5 "terms" Exporter Connection {
        /// the number of the attachment
        attachment: AttachmentId,
        /// for how long mappings stay good
        lifetime: Lifetime,
        /// what the importer may do
        prot: Prot,
        /// the ways in which it reaches the memory
        methods: Methods,
        /// where the bytes lie
        place: Place,
        /// who sees to it that it lets go
        enforcement: Enforcement,
        /// what it controls
        control: Control,
        /// the length in bytes
        size: Bytes,
        /// where the buffer is in its life; it may be mapped at once only while `live` or `restored`
        phase: Phase,
        /// what the memory's descriptor is
        carrier: Carrier,
        /// where in the descriptor the memory begins, in bytes; a descriptor that comes later is of the same sort, and it begins there too
        start: Bytes,
    }
    /// The exporter does not settle.
    Refusal = 6 "refusal" Exporter Connection {
        /// the word of the rule that refuses
        rule: Text<32>,
        /// object, evidence and next step, for people
        why: Text<1024>,
    }
    /// The importer asks for one more mapping, which it makes when it is granted.
    Map = 16 "map" Importer Control {
        /// the number of the request, greater than any before
        request: RequestId,
    }
    /// The exporter has counted the mapping.
    Granted = 17 "granted" Exporter Control {
        /// which request
        request: RequestId,
        /// what the mapping belongs to
        generation: Generation,
        /// what the importer may do with it
        prot: Prot,
    }
    /// The exporter does not grant it.
    Denied = 18 "denied" Exporter Control {
        /// which request
        request: RequestId,
        /// where the buffer is in its life
        phase: Phase,
        /// why, and what to do, for people
        why: Text<512>,
    }
    /// The importer has taken mappings down, and nothing that it runs uses them any more.
    Unmapped = 19 "unmapped" Importer Control {
        /// how many, at least one
        count: u32,
    }
    /// The exporter wants the importer to stop: begin nothing new, let what runs end, unmap.
    LetGo = 20 "let-go" Exporter Control {
        /// the number of the notice, greater than any before
        notice: NoticeId,
        /// what is about to happen, or has
        cause: Disturbance,
        /// for how long the exporter means to wait, in milliseconds; 0 if it does not say
        deadline_ms: u32,
    }
    /// The importer has taken note of this notice and of all before it.
    Noted = 21 "noted" Importer Control {
        /// the number of the notice
        notice: NoticeId,
    }
    /// The exporter says that the buffer is within reach; what was mapped before is not.
    MayMap = 22 "may-map" Exporter Control {
        /// the number of the notice, greater than any before
        notice: NoticeId,
        /// what a mapping made now belongs to
        generation: Generation,
    }
    /// The exporter says where the bytes lie from now on. A notice follows at once; never said while anything is mapped, nor twice without a notice.
    Moved = 23 "moved" Exporter Control {
        /// where they lie
        place: Place,
        /// what comes along: `memory` if the old descriptor is of no use any more, else `none`
        descriptors: Descriptors,
    }
    /// The exporter says that the buffer is gone for good; no answer is expected.
    Gone = 24 "gone" Exporter Control {
        /// the number of the notice, greater than any before
        notice: NoticeId,
    }
    /// Either side ends the session. The last message of its sender.
    Goodbye = 25 "goodbye" Both Either {
        /// why
        ending: Ending,
    }
}

fn at(kind: &'static str, field: &'static str, bad: BadField) -> Malformed {
    match bad {
        BadField::Cut => Malformed::Cut { kind, field },
        BadField::Meaningless(found) => Malformed::Meaningless { kind, field, found },
        BadField::Unprintable => Malformed::Unprintable { kind, field },
        BadField::TooLong { got, max } => Malformed::TextTooLong { kind, field, got, max },
    }
}

impl Message {
    /// How many descriptors come with it, and which.
    pub const fn descriptors(&self) -> Descriptors {
        match self {
            Self::Terms(_) => Descriptors::MemoryAndControl,
            Self::Moved(moved) => moved.descriptors,
            _ => Descriptors::None,
        }
    }

    /// Its bytes, header included; at most [`MAX_LEN`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.number().put(&mut out);
        0_u16.put(&mut out);
        0_u32.put(&mut out);
        self.put_fields(&mut out);
        assert!(out.len() <= MAX_LEN, "no message is longer than its fields can be");
        let len = (out.len() as u32).to_le_bytes();
        out[4..HEADER_LEN].copy_from_slice(&len);
        out
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// [`Malformed`], with the field that is wrong. Whoever sent it speaks another protocol or version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_LEN {
            return Err(Malformed::Long { got: bytes.len() });
        }
        let mut input = Reader::new(bytes);
        let short = |_| Malformed::Short { got: bytes.len() };
        let kind = u16::take(&mut input).map_err(short)?;
        let reserved = u16::take(&mut input).map_err(short)?;
        let told = u32::take(&mut input).map_err(short)?;
        if told as usize != bytes.len() {
            return Err(Malformed::Length { told, got: bytes.len() });
        }
        if reserved != 0 {
            return Err(Malformed::Reserved { found: reserved });
        }
        let message = Self::take_fields(kind, &mut input)?;
        match input.left() {
            0 => Ok(message),
            extra => Err(Malformed::Trailing { kind: message.word(), extra }),
        }
    }
}

impl Hello {
    /// What this library says.
    pub const fn new() -> Self {
        Self { lowest: *VERSIONS.start(), highest: *VERSIONS.end(), features: Features::NONE }
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}
