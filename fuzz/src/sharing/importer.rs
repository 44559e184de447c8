//! An importer, and an exporter that says anything.

use super::Input;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{AttachmentId, Disturbance, Generation, NoticeId, Phase};
use peerdma::buffer::terms::{Methods, Place, Stays};
use peerdma::buffer::wire::{
    Carrier, Declare, Denied, Descriptors, Ending, Features, Gone, Goodbye, Granted, Heard, ImporterSession, LetGo,
    MAPPINGS_MAX, MayMap, Message, Moved, Offer, Refusal, RequestId, Terms, Text, UNANSWERED_MAX, Welcome,
};
use peerdma::buffer::{Control, Enforcement, Lifetime};

struct World {
    session: ImporterSession,
    attached: bool,
    asked: Vec<RequestId>,
    mappings: u32,
    /// Notices of which no note was taken, and whether they say that it may map.
    open: Vec<(NoticeId, bool)>,
    last_notice: u64,
    generation: Generation,
    /// Whether terms said that it may be mapped.
    within_at_first: bool,
    last_let_go: Option<NoticeId>,
    has_moved: bool,
    last_may_map: Option<NoticeId>,
    gone: bool,
}

pub(super) fn with_exporter(mut input: Input<'_>) -> usize {
    let mut world = World {
        session: ImporterSession::new(),
        attached: false,
        asked: Vec::new(),
        mappings: 0,
        open: Vec::new(),
        last_notice: 0,
        generation: Generation::FIRST,
        within_at_first: false,
        last_let_go: None,
        has_moved: false,
        last_may_map: None,
        gone: false,
    };
    let mut heard = 0;
    while !input.is_empty() && !world.session.is_over() {
        heard += usize::from(world.happen(&mut input));
        world.check();
    }
    heard
}

impl World {
    /// One thing happens; whether the exporter said something that was found in order.
    fn happen(&mut self, input: &mut Input<'_>) -> bool {
        let op = input.byte();
        let message = match op & 0xf {
            0 => return self.hear(input.some(), usize::from(op >> 6)),
            1 => Message::Welcome(Welcome {
                version: 1 + u16::from(input.byte() >> 7),
                features: Features::from_bits(u32::from(op >> 7)),
            }),
            2 => Message::Offer(offer(input)),
            3 => Message::Terms(terms(input)),
            4 => Message::Granted(Granted {
                request: self.request(input),
                generation: self.generation(input),
                prot: Prot::ReadWrite,
            }),
            5 => Message::Denied(Denied {
                request: self.request(input),
                phase: Phase::Revoked,
                why: Text::new(&String::from_utf8_lossy(input.some())),
            }),
            6 => Message::LetGo(LetGo { notice: self.notice(input), cause: Disturbance::Reset, deadline_ms: 5 }),
            7 => Message::MayMap(MayMap { notice: self.notice(input), generation: self.generation(input) }),
            8 => {
                let descriptors =
                    input.choice(&[Descriptors::None, Descriptors::Memory, Descriptors::MemoryAndControl]);
                Message::Moved(Moved { place: Place::Ram, descriptors })
            }
            9 => Message::Gone(Gone { notice: self.notice(input) }),
            10 => Message::Goodbye(Goodbye { ending: input.choice(&[Ending::Done, Ending::Flood]) }),
            11 => Message::Refusal(Refusal::by("rule", &String::from_utf8_lossy(input.some()))),
            12 => {
                if let Ok(request) = self.session.ask() {
                    assert!(!self.asked.contains(&request), "no request is made twice");
                    self.asked.push(request);
                }
                return false;
            }
            13 => {
                let count = u32::from(input.byte() & 3);
                if self.session.unmapped(count).is_ok() {
                    self.mappings -= count;
                }
                return false;
            }
            14 => {
                self.note(input);
                return false;
            }
            _ => {
                self.session.sent();
                return false;
            }
        };
        let descriptors = message.descriptors().count();
        let descriptors = if op & 0xf0 == 0xf0 { usize::from(input.byte()) } else { descriptors };
        self.hear(&message.encode(), descriptors)
    }

    fn request(&self, input: &mut Input<'_>) -> RequestId {
        let byte = input.byte();
        let asked = self.asked.get(usize::from(byte & 7)).copied();
        asked.unwrap_or(RequestId::new(u64::from(byte)))
    }

    fn notice(&self, input: &mut Input<'_>) -> NoticeId {
        // Mostly the next.
        NoticeId::new(self.last_notice.wrapping_add(1).wrapping_sub(u64::from(input.byte() >> 6)))
    }

    fn generation(&self, input: &mut Input<'_>) -> Generation {
        Generation::new(self.generation.number().wrapping_add(1).wrapping_sub(u64::from(input.byte() >> 6)))
    }

    fn note(&mut self, input: &mut Input<'_>) {
        let index = usize::from(input.byte());
        let Some((notice, _)) = self.open.get(index).or(self.open.first()).copied() else { return };
        assert_eq!(self.session.note(notice), Ok(()), "a notice that was heard can be noted");
        for (id, may_map) in std::mem::take(&mut self.open) {
            match (id <= notice, may_map) {
                (true, true) => self.last_may_map = Some(id),
                (true, false) => {}
                (false, _) => self.open.push((id, may_map)),
            }
        }
    }

    fn hear(&mut self, bytes: &[u8], descriptors: usize) -> bool {
        let heard = match self.session.receive(bytes, descriptors) {
            Ok(heard) => heard,
            Err(violation) => {
                assert!(self.session.is_over() && !violation.to_string().is_empty());
                let goodbye = Message::Goodbye(Goodbye { ending: violation.ending() });
                assert_eq!(self.session.outgoing(), Some(&goodbye), "it is told why, before anything else");
                return false;
            }
        };
        match heard {
            Heard::Offered(_) => assert_eq!(self.session.declare(declare()), Ok(())),
            Heard::Attached(terms) => {
                self.attached = true;
                self.within_at_first = matches!(terms.phase, Phase::Live | Phase::Restored);
                assert_eq!((terms.prot, terms.enforcement), (Prot::ReadWrite, Enforcement::Cooperative));
            }
            Heard::Granted { request, generation, .. } => {
                self.answered(request);
                self.mappings += 1;
                assert!(generation >= self.generation, "generations go forward");
                self.generation = generation;
            }
            Heard::Denied { request, .. } => self.answered(request),
            Heard::LetGo { notice, .. } => {
                self.told(notice);
                self.open.push((notice, false));
                self.last_let_go = Some(notice);
            }
            Heard::MayMap { notice, generation } => {
                self.told(notice);
                self.open.push((notice, true));
                assert!(generation >= self.generation, "generations go forward");
                self.generation = generation;
            }
            Heard::Gone => {
                self.has_moved = false;
                self.gone = true;
                self.open.clear();
            }
            Heard::Moved { descriptors, .. } => {
                assert_ne!(descriptors, Descriptors::MemoryAndControl);
                assert_eq!(self.mappings, 0, "nothing moves that is mapped");
                assert!(!std::mem::replace(&mut self.has_moved, true), "each move has its notice");
            }
            Heard::Welcomed | Heard::Refused(_) | Heard::Goodbye(_) => {}
        }
        true
    }

    fn answered(&mut self, request: RequestId) {
        let before = self.asked.len();
        self.asked.retain(|asked| *asked != request);
        assert_eq!(self.asked.len() + 1, before, "what is answered was asked");
    }

    fn told(&mut self, notice: NoticeId) {
        self.has_moved = false;
        assert!(!self.gone, "nothing is told of what is gone");
        self.last_notice = self.last_notice.max(notice.number());
    }

    fn check(&self) {
        assert_eq!(self.session.mappings(), self.mappings, "the session counts what was granted");
        assert!(self.mappings <= MAPPINGS_MAX && self.open.len() <= UNANSWERED_MAX);
        let within = match self.last_let_go {
            None => self.within_at_first || self.last_may_map.is_some(),
            Some(told) => self.last_may_map.is_some_and(|noted| noted > told),
        };
        let may_ask = self.attached && !self.gone && !self.session.is_over() && within;
        assert_eq!(self.session.may_ask(), may_ask, "it may ask after the last notice to let go was lifted, and noted");
    }
}

fn declare() -> Declare {
    Declare {
        takes: Lifetime::Revocable,
        enforcement: Enforcement::Cooperative,
        ..Declare::of_process("fuzzed", Prot::ReadWrite)
    }
}

fn offer(input: &mut Input<'_>) -> Offer {
    Offer {
        name: Text::new(&String::from_utf8_lossy(input.some())),
        size: Bytes::new(1 << 16),
        prot: Prot::ReadWrite,
        stays: Stays::UNTIL_REVOKED,
        methods: Methods::CPU,
        place: Place::Ram,
        floor: input.choice(&[Enforcement::None, Enforcement::Kernel]),
        strongest: Enforcement::Cooperative,
        control: Control::Use,
    }
}

/// What was declared, but for what the input changes.
fn terms(input: &mut Input<'_>) -> Terms {
    let declared = declare();
    let mostly = |input: &mut Input<'_>| input.byte() < 0xe0;
    Terms {
        attachment: AttachmentId::new(1),
        lifetime: if mostly(input) { declared.takes } else { Lifetime::Movable },
        prot: if mostly(input) { declared.prot } else { Prot::Read },
        methods: declared.methods,
        place: Place::Ram,
        enforcement: if mostly(input) { declared.enforcement } else { Enforcement::None },
        control: declared.control,
        size: Bytes::new(if mostly(input) { 1 << 16 } else { 1 << 20 }),
        phase: input.choice(&[Phase::Live, Phase::Revoked, Phase::Restored]),
        carrier: input.choice(&[Carrier::Memfd, Carrier::Device]),
        start: Bytes::new(if mostly(input) { 0x1000 } else { u64::MAX }),
    }
}
