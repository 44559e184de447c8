//! An exporter with its life, and an importer that says anything.

use super::Input;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Action, AttachmentId, Disturbance, Event, Life, NoticeId, Refused};
use peerdma::buffer::terms::{Contiguity, Methods, Moves, Place, Stays, negotiate};
use peerdma::buffer::wire::{
    Carrier, Declare, Descriptors, Ending, Export, ExporterSession, Features, Goodbye, Hello, MAPPINGS_MAX, Map,
    Message, Noted, OUTBOX_MAX, Refusal, RequestId, Said, Terms, Text, UNANSWERED_MAX, Unmapped,
};
use peerdma::buffer::{Control, Enforcement, Lifetime};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, OwnerId, Peers};
use peerdma::topology::IommuMode;
use std::collections::VecDeque;

const SIZE: Bytes = Bytes::new(1 << 16);
const WHO: AttachmentId = AttachmentId::new(1);

/// Answers and notices that wait, at most: both bounds, a place told with a notice, and what ends a session.
const WAITING_MAX: usize = OUTBOX_MAX + 2 * UNANSWERED_MAX + 4;

struct World {
    life: Life,
    session: ExporterSession,
    export: Export,
    /// Who sees to it that the importer lets go, once terms were settled.
    attached: Option<Enforcement>,
    begun: Option<Disturbance>,
    mappings: u32,
    last_request: u64,
    told: Vec<NoticeId>,
}

pub(super) fn with_importer(mut input: Input<'_>) -> usize {
    let export = Export {
        name: Text::new("fuzzed"),
        prot: input.choice(&[Prot::ReadWrite, Prot::Read]),
        stays: input.choice(&[
            Stays::UNTIL_REVOKED,
            Stays { moves: Moves::UnlessPinned, revoked: true },
            Stays { moves: Moves::Never, revoked: false },
        ]),
        methods: Methods::CPU | Methods::DMA,
        floor: input.choice(&[Enforcement::None, Enforcement::Cooperative]),
        strongest: Enforcement::Cooperative,
        control: Control::Full,
    };
    let mut world = World {
        life: Life::new(),
        session: ExporterSession::new(),
        export,
        attached: None,
        begun: None,
        mappings: 0,
        last_request: 0,
        told: Vec::new(),
    };
    let mut said = 0;
    while !input.is_empty() && !world.session.is_over() {
        said += usize::from(world.happen(&mut input));
        world.check();
    }
    said
}

impl World {
    /// One thing happens; whether the importer said something that was found in order.
    fn happen(&mut self, input: &mut Input<'_>) -> bool {
        let op = input.byte();
        let message = match op & 0xf {
            0 => return self.hear(input.some(), usize::from(op >> 6)),
            1 => Message::Hello(Hello {
                lowest: input.word(),
                highest: input.word(),
                features: Features::from_bits(u32::from(input.byte())),
            }),
            2 => Message::Hello(Hello::new()),
            3 => Message::Declare(declare(input)),
            4 | 5 => Message::Map(Map { request: RequestId::new(self.last_request + u64::from(input.byte() & 3)) }),
            6 => Message::Unmapped(Unmapped { count: u32::from(input.byte() & 3) }),
            7 | 8 => Message::Noted(Noted { notice: self.notice(input) }),
            9 => Message::Goodbye(Goodbye { ending: input.choice(&[Ending::Done, Ending::Untrue]) }),
            10 => {
                self.disturb(input);
                return false;
            }
            11 => {
                if self.session.is_attached() {
                    let along = input.choice(&[Descriptors::None, Descriptors::Memory]);
                    let unmapped = self.session.mappings() == 0;
                    assert_eq!(self.session.moved(Place::Ram, along).is_ok(), unmapped);
                }
                return false;
            }
            // It reads, and so there is room.
            _ => {
                for _ in 0..=input.byte() & 7 {
                    self.session.sent();
                }
                return false;
            }
        };
        // Mostly with the descriptors that it must have, which are none.
        let descriptors = if op & 0xf0 == 0xf0 { usize::from(input.byte()) } else { 0 };
        self.hear(&message.encode(), descriptors)
    }

    /// One that it was told of, or a neighbour.
    fn notice(&self, input: &mut Input<'_>) -> NoticeId {
        let byte = input.byte();
        let told = self.told.len().checked_sub(1 + usize::from(byte & 0x1f)).map(|index| self.told[index]);
        NoticeId::new(told.unwrap_or_default().number().wrapping_add(u64::from(byte >> 7)))
    }

    fn hear(&mut self, bytes: &[u8], descriptors: usize) -> bool {
        let said = match self.session.receive(bytes, descriptors) {
            Ok(said) => said,
            Err(violation) => {
                assert!(self.session.is_over() && !violation.to_string().is_empty());
                let last = std::iter::from_fn(|| self.take_out()).last();
                assert_eq!(last, Some(Message::Goodbye(Goodbye { ending: violation.ending() })), "it is told why");
                assert!(self.session.receive(&Message::Hello(Hello::new()).encode(), 0).is_err());
                return false;
            }
        };
        match said {
            Said::Greeted => {
                let told = self.export.told(SIZE, Place::Ram, Control::Full);
                assert_eq!(self.session.offer(told), Ok(()));
            }
            Said::Declared(declare) => self.settle(&declare),
            Said::Map(request) => {
                self.last_request = request.number();
                let answered = match self.step(Event::Map(WHO)) {
                    Ok(()) => {
                        self.mappings += 1;
                        self.session.grant(request, self.life.generation(), self.export.prot)
                    }
                    Err(why) => self.session.deny(request, self.life.phase(), &why.to_string()),
                };
                assert_eq!(answered, Ok(()));
            }
            Said::Unmapped(count) => {
                for _ in 0..count {
                    assert_eq!(self.step(Event::Unmap(WHO)), Ok(()), "nobody unmaps what was not granted");
                }
                self.mappings -= count;
            }
            Said::Noted(notice) => {
                assert!(self.told.contains(&notice), "an answer belongs to a notice");
                assert_eq!(self.step(Event::Noted(WHO, notice)), Ok(()));
            }
            Said::Goodbye(Ending::Done) if self.attached.is_some() => {
                assert_eq!(self.step(Event::Detach(WHO)), Ok(()), "whoever says goodbye has nothing mapped");
                self.attached = None;
            }
            Said::Goodbye(_) | Said::NoCommonVersion { .. } => {}
        }
        true
    }

    fn take_out(&mut self) -> Option<Message> {
        let message = self.session.outgoing().cloned();
        self.session.sent();
        message
    }

    fn settle(&mut self, declare: &Declare) {
        let chunk = Chunk::new(Owner::Memfd(OwnerId::new(1)), Bytes::ZERO, SIZE, MemAttrs::empty());
        let ranges = chunk.and_then(|chunk| Chunks::collect_from([chunk]).ok());
        let offer = ranges.and_then(|ranges| self.export.offer(ranges, Place::Ram).ok());
        let Some(offer) = offer else { unreachable!("one range can be offered") };
        let said = match negotiate(&offer, &declare.declaration(), &Peers::none()) {
            Ok(terms) => {
                let (lifetime, enforcement) = (terms.lifetime(), terms.enforcement());
                match self.step(Event::Attach { who: WHO, lifetime, enforcement }) {
                    Ok(()) => {
                        self.attached = Some(enforcement);
                        self.session.settle(Terms::of(
                            &terms,
                            WHO,
                            SIZE,
                            self.life.phase(),
                            (Carrier::Memfd, Bytes::ZERO),
                        ))
                    }
                    Err(Refused::Dead { causes }) => self.session.refuse(Refusal::by("gone", &causes.to_string())),
                    Err(refused) => unreachable!("a first attachment is refused: {refused}"),
                }
            }
            Err(refusal) => self.session.refuse(Refusal::of(&refusal)),
        };
        assert_eq!(said, Ok(()));
    }

    fn disturb(&mut self, input: &mut Input<'_>) {
        let what = input.choice(&[Disturbance::Reset, Disturbance::Move, Disturbance::PowerDown, Disturbance::Close]);
        match self.begun.take() {
            // Refused where it was promised that it does not happen.
            None => self.begun = self.step(Event::Begin(what)).ok().map(|()| what),
            Some(disturbance) => {
                assert_ne!(self.step(Event::End { disturbance, answers: None }), Err(Refused::NotAttached { who: WHO }))
            }
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Refused> {
        let mut actions: VecDeque<Action> = self.life.step(event)?.into();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Tell { id, notice, .. } => {
                    self.told.push(id);
                    if self.session.is_attached() {
                        assert_eq!(self.session.tell(id, notice, 0), Ok(()));
                    }
                }
                Action::AwaitFences(generation) => match self.life.step(Event::FencesRetired(generation)) {
                    Ok(more) => actions.extend(more),
                    Err(refused) => unreachable!("fences retire whenever they do: {refused}"),
                },
                Action::Quiet | Action::Reachable => {}
            }
        }
        Ok(())
    }

    fn check(&self) {
        assert_eq!(self.session.mappings(), self.mappings, "the session counts what was granted");
        assert!(self.mappings <= MAPPINGS_MAX);
        if self.life.phase().is_quiet() && self.attached == Some(Enforcement::Cooperative) {
            assert_eq!(self.mappings, 0, "a quiet buffer is mapped");
        }
        let mut session = self.session.clone();
        let waiting = std::iter::from_fn(|| session.outgoing().is_some().then(|| session.sent())).count();
        assert!(waiting <= WAITING_MAX, "{waiting} messages wait for an importer that does not read");
    }
}

fn declare(input: &mut Input<'_>) -> Declare {
    Declare {
        name: Text::new(&String::from_utf8_lossy(input.some())),
        methods: input.choice(&[Methods::CPU, Methods::DMA, Methods::CPU | Methods::DMA, Methods::FRAMES]),
        prot: input.choice(&[Prot::ReadWrite, Prot::Read, Prot::Write]),
        takes: input.choice(&[Lifetime::Movable, Lifetime::Revocable, Lifetime::Pinned]),
        enforcement: input.choice(&[Enforcement::Cooperative, Enforcement::None, Enforcement::Kernel]),
        control: input.choice(&[Control::Use, Control::Full]),
        contiguity: input.choice(&[Contiguity::Scattered, Contiguity::AsSeen, Contiguity::OneRange]),
        mask_bits: input.choice(&[0, 64, 32, 1, 255]),
        iommu: input.choice(&[IommuMode::None, IommuMode::Translated, IommuMode::Identity]),
    }
}
