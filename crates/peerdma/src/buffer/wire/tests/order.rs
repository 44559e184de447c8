//! What may be said when, and what becomes of who says something else.

use super::*;
use crate::buffer::life::{Disturbance, Generation, Notice, NoticeId};

fn said(exporter: &mut ExporterSession, message: &Message) -> Result<Said, Violation> {
    exporter.receive(&message.encode(), message.descriptors().count())
}

fn heard(importer: &mut ImporterSession, message: &Message) -> Result<Heard, Violation> {
    importer.receive(&message.encode(), message.descriptors().count())
}

const LET_GO: Notice = Notice::LetGo { cause: Disturbance::Reset };

#[test]
fn an_attachment_goes_through_its_life() {
    let (mut exporter, mut importer) = attached().unwrap();
    let request = importer.ask().unwrap();
    assert_eq!(to_exporter(&mut importer, &mut exporter), Some(Ok(Said::Map(request))));
    exporter.grant(request, Generation::FIRST, Prot::Read).unwrap();
    assert!(matches!(to_importer(&mut exporter, &mut importer), Some(Ok(Heard::Granted { .. }))));
    exporter.tell(NoticeId::new(1), LET_GO, 250).unwrap();
    let Some(Ok(Heard::LetGo { notice, deadline_ms: 250, .. })) = to_importer(&mut exporter, &mut importer) else {
        unreachable!("a notice to let go")
    };
    assert!(!importer.may_ask());
    importer.note(notice).unwrap();
    importer.unmapped(1).unwrap();
    assert_eq!(to_exporter(&mut importer, &mut exporter), Some(Ok(Said::Noted(notice))));
    assert_eq!(to_exporter(&mut importer, &mut exporter), Some(Ok(Said::Unmapped(1))));
    exporter.tell(NoticeId::new(2), Notice::MayMap { generation: Generation::new(1) }, 0).unwrap();
    assert!(matches!(to_importer(&mut exporter, &mut importer), Some(Ok(Heard::MayMap { .. }))));
    assert!(!importer.may_ask(), "not before it has taken note");
    importer.note(NoticeId::new(2)).unwrap();
    assert!(importer.may_ask());
    importer.goodbye().unwrap();
    assert!(matches!(to_exporter(&mut importer, &mut exporter), Some(Ok(Said::Noted(_)))));
    assert_eq!(to_exporter(&mut importer, &mut exporter), Some(Ok(Said::Goodbye(Ending::Done))));
    assert!(exporter.is_over() && importer.is_over());
}

#[test]
fn an_importer_of_another_version_is_told_both_ranges() {
    for (lowest, highest) in [(2, 9), (0, 0)] {
        let mut exporter = ExporterSession::new();
        let hello = Message::Hello(Hello { lowest, highest, features: Features::from_bits(!0) });
        assert_eq!(said(&mut exporter, &hello), Ok(Said::NoCommonVersion { lowest, highest }));
        let mut importer = ImporterSession::new();
        let Some(Ok(Heard::Refused(refusal))) = to_importer(&mut exporter, &mut importer) else {
            unreachable!("a refusal")
        };
        assert_eq!(refusal.rule.as_str(), "version");
        assert!(refusal.why.as_str().contains(&format!("versions 1 to 1 and the importer {lowest} to {highest}")));
        assert!(exporter.is_over() && importer.is_over());
    }
    let newer = Message::Hello(Hello { lowest: 1, highest: 7, features: Features::from_bits(!0) });
    let mut exporter = ExporterSession::new();
    assert_eq!(said(&mut exporter, &newer), Ok(Said::Greeted));
    let chosen = Message::Welcome(Welcome { version: 1, features: Features::NONE });
    assert_eq!(exporter.outgoing(), Some(&chosen), "the highest that both speak, and no feature of one alone");
}

#[test]
fn a_message_at_another_time_or_of_the_other_side_ends_the_session_and_tells_why() {
    let messages = [
        Message::Hello(Hello::new()),
        Message::Declare(declare()),
        Message::Offer(offer()),
        Message::Terms(terms(AttachmentId::new(1))),
        Message::LetGo(LetGo { notice: NoticeId::new(1), cause: Disturbance::Close, deadline_ms: 0 }),
        Message::Gone(Gone { notice: NoticeId::new(1) }),
    ];
    for message in &messages {
        let (mut exporter, _) = attached().unwrap();
        let violation = said(&mut exporter, message).unwrap_err();
        assert_eq!(violation, Violation::OutOfTurn { kind: message.word(), when: "while attached" });
        assert_eq!(exporter.outgoing(), Some(&Message::Goodbye(Goodbye { ending: Ending::OutOfTurn })));
        exporter.sent();
        assert!(exporter.is_over() && said(&mut exporter, message).is_err());
        assert_eq!(exporter.outgoing(), None, "nothing is said twice");
    }
    let mut early = ExporterSession::new();
    assert!(said(&mut early, &Message::Map(Map { request: RequestId::new(1) })).is_err());
    let mut early = ImporterSession::new();
    assert!(heard(&mut early, &Message::Terms(terms(AttachmentId::new(1)))).is_err());
}

#[test]
fn claims_that_cannot_be_true_end_the_session() {
    let (exporter, importer) = attached().unwrap();
    for lie in [
        Message::Unmapped(Unmapped { count: 1 }),
        Message::Unmapped(Unmapped { count: 0 }),
        Message::Noted(Noted { notice: NoticeId::new(1) }),
    ] {
        assert!(matches!(said(&mut exporter.clone(), &lie), Err(Violation::Untrue { .. })), "{lie:?}");
    }
    for lie in [
        Message::Granted(Granted { request: RequestId::new(1), generation: Generation::FIRST, prot: Prot::Read }),
        Message::Denied(Denied { request: RequestId::new(1), phase: Phase::Dead, why: Text::default() }),
    ] {
        assert!(matches!(heard(&mut importer.clone(), &lie), Err(Violation::Untrue { .. })), "{lie:?}");
    }
    let mut importer = importer;
    let notice = |number| Message::Gone(Gone { notice: NoticeId::new(number) });
    assert!(heard(&mut importer, &notice(5)).is_ok());
    assert!(matches!(heard(&mut importer, &notice(5)), Err(Violation::Untrue { .. })), "numbers go up");
}

#[test]
fn terms_other_than_what_was_declared_bind_nobody() {
    let good = terms(AttachmentId::new(1));
    let others = [
        Terms { size: Bytes::new(1 << 21), ..good.clone() },
        Terms { lifetime: Lifetime::Movable, ..good.clone() },
        Terms { prot: Prot::Read, ..good.clone() },
        Terms { methods: Methods::DMA, ..good.clone() },
        Terms { enforcement: Enforcement::None, ..good.clone() },
        Terms { start: Bytes::new(u64::MAX), carrier: Carrier::Device, ..good.clone() },
        Terms { control: Control::Full, ..good },
    ];
    for other in others {
        let mut importer = ImporterSession::new();
        importer.sent();
        heard(&mut importer, &Message::Welcome(Welcome { version: 1, features: Features::NONE })).unwrap();
        heard(&mut importer, &Message::Offer(offer())).unwrap();
        importer.declare(declare()).unwrap();
        let violation = heard(&mut importer, &Message::Terms(other)).unwrap_err();
        assert!(matches!(violation, Violation::Untrue { kind: "terms", .. }), "{violation}");
    }
}

/// What an importer declares is held against the rules as if it were in this process.
#[test]
fn a_declaration_survives_the_way() {
    use crate::buffer::terms::{Rule, negotiate};
    use crate::chunk::{Chunk, Chunks};
    use crate::dma::{Owner, OwnerId, Peers};
    let export = Export {
        name: Text::new("memfd"),
        prot: Prot::ReadWrite,
        stays: Stays::UNTIL_REVOKED,
        methods: Methods::CPU | Methods::DMA,
        floor: Enforcement::Cooperative,
        strongest: Enforcement::Cooperative,
        control: Control::Use,
    };
    let chunk = Chunk::new(Owner::Memfd(OwnerId::new(1)), Bytes::ZERO, Bytes::new(4096), Default::default()).unwrap();
    let offer = export.offer(Chunks::collect_from([chunk]).unwrap(), Place::Ram).unwrap();
    let rule = |declare: &Declare| negotiate(&offer, &declare.declaration(), &Peers::none()).map_err(|why| why.rule);
    assert_eq!(rule(&declare()).unwrap().lifetime(), Lifetime::Revocable);
    assert_eq!(rule(&Declare { takes: Lifetime::Pinned, ..declare() }), Err(Rule::Revoked));
    assert_eq!(rule(&Declare { enforcement: Enforcement::None, ..declare() }), Err(Rule::Unenforced));
    assert_eq!(rule(&Declare { methods: Methods::FRAMES, ..declare() }), Err(Rule::MethodNotOffered));
    assert_eq!(rule(&Declare { control: Control::Full, ..declare() }), Err(Rule::FullNotOffered));
    let device = Declare { methods: Methods::DMA, mask_bits: 32, iommu: IommuMode::Translated, ..declare() };
    assert_eq!(rule(&device).unwrap().methods(), Methods::DMA);
}

#[test]
fn a_declaration_that_contradicts_itself_ends_the_session() {
    for wrong in [
        Declare { methods: Methods::empty(), ..declare() },
        Declare { methods: Methods::DMA, ..declare() },
        Declare { mask_bits: 48, ..declare() },
        Declare { methods: Methods::DMA, mask_bits: 65, ..declare() },
    ] {
        let mut exporter = ExporterSession::new();
        said(&mut exporter, &Message::Hello(Hello::new())).unwrap();
        exporter.offer(offer()).unwrap();
        let violation = said(&mut exporter, &Message::Declare(wrong)).unwrap_err();
        assert!(matches!(violation, Violation::Untrue { kind: "declare", .. }), "{violation}");
    }
}

#[test]
fn who_asks_more_than_it_may_is_cut_off() {
    let (mut exporter, _) = attached().unwrap();
    let map = |number| Message::Map(Map { request: RequestId::new(number) });
    for number in 1..=super::super::session::REQUESTS_MAX as u64 {
        assert!(said(&mut exporter, &map(number)).is_ok());
    }
    assert!(matches!(said(&mut exporter, &map(99)), Err(Violation::Flood { bound: 8, .. })));
}

#[test]
fn who_does_not_read_its_answers_is_cut_off() {
    let (mut exporter, _) = attached().unwrap();
    for number in 1..=OUTBOX_MAX as u64 {
        let request = RequestId::new(number);
        assert_eq!(said(&mut exporter, &Message::Map(Map { request })), Ok(Said::Map(request)));
        exporter.grant(request, Generation::FIRST, Prot::Read).unwrap();
    }
    let one_more = Message::Map(Map { request: RequestId::new(99) });
    assert!(matches!(said(&mut exporter, &one_more), Err(Violation::Flood { bound: OUTBOX_MAX, .. })));
    assert_eq!(exporter.mappings(), OUTBOX_MAX as u32, "what it has it has, cut off or not");
}

/// Its addresses would lead to where the bytes were.
#[test]
fn nothing_is_said_to_have_moved_under_a_mapping() {
    let (mut exporter, _) = attached().unwrap();
    let request = RequestId::new(1);
    said(&mut exporter, &Message::Map(Map { request })).unwrap();
    exporter.grant(request, Generation::FIRST, Prot::Read).unwrap();
    assert!(exporter.moved(Place::Ram, Descriptors::Memory).is_err());
    said(&mut exporter, &Message::Unmapped(Unmapped { count: 1 })).unwrap();
    assert!(exporter.moved(Place::Ram, Descriptors::Memory).is_ok());
}

#[test]
fn mappings_are_bounded() {
    let (mut exporter, _) = attached().unwrap();
    for number in 1..=u64::from(MAPPINGS_MAX) {
        let request = RequestId::new(number);
        said(&mut exporter, &Message::Map(Map { request })).unwrap();
        exporter.grant(request, Generation::FIRST, Prot::Read).unwrap();
        exporter.sent();
    }
    let one_more = Message::Map(Map { request: RequestId::new(u64::MAX) });
    assert!(matches!(said(&mut exporter, &one_more), Err(Violation::Flood { bound: 4096, .. })));
}

/// A stopped importer answers nothing while its exporter tries again and again.
#[test]
fn notices_that_nobody_answers_are_held_back_and_only_the_last_is_kept() {
    let (mut exporter, mut importer) = attached().unwrap();
    for round in 0..100 {
        exporter.moved(Place::Ram, Descriptors::Memory).unwrap();
        exporter.tell(NoticeId::new(2 * round + 1), LET_GO, 0).unwrap();
        let generation = Generation::new(round + 1);
        exporter.tell(NoticeId::new(2 * round + 2), Notice::MayMap { generation }, 0).unwrap();
    }
    let mut last = None;
    let mut sent = 0;
    while let Some(heard) = to_importer(&mut exporter, &mut importer) {
        sent += 1;
        if let Heard::LetGo { notice, .. } | Heard::MayMap { notice, .. } = heard.unwrap() {
            last = Some(notice);
        }
    }
    assert!(sent <= 2 * UNANSWERED_MAX, "{sent}");
    importer.note(last.unwrap()).unwrap();
    to_exporter(&mut importer, &mut exporter).unwrap().unwrap();
    let moved = to_importer(&mut exporter, &mut importer).unwrap().unwrap();
    assert_eq!(moved, Heard::Moved { place: Place::Ram, descriptors: Descriptors::Memory });
    let may_map = to_importer(&mut exporter, &mut importer).unwrap().unwrap();
    assert_eq!(may_map, Heard::MayMap { notice: NoticeId::new(200), generation: Generation::new(100) });
    assert_eq!(exporter.outgoing(), None);
}

/// The numbers of notices can be guessed, and what waits for a reader who answers ahead would grow without end.
#[test]
fn an_answer_to_a_notice_that_was_not_sent_is_untrue() {
    let (mut exporter, _) = attached().unwrap();
    let noted = |number| Message::Noted(Noted { notice: NoticeId::new(number) });
    exporter.tell(NoticeId::new(1), LET_GO, 0).unwrap();
    exporter.tell(NoticeId::new(2), Notice::MayMap { generation: Generation::new(1) }, 0).unwrap();
    exporter.sent();
    assert_eq!(said(&mut exporter.clone(), &noted(1)), Ok(Said::Noted(NoticeId::new(1))));
    assert!(matches!(said(&mut exporter.clone(), &noted(2)), Err(Violation::Untrue { kind: "noted", .. })));
    exporter.sent();
    assert_eq!(said(&mut exporter, &noted(2)), Ok(Said::Noted(NoticeId::new(2))));
}

/// Each move brings a descriptor, and whoever sends one after the other fills the importer's memory.
#[test]
fn an_exporter_that_moves_without_notices_or_under_a_mapping_is_cut_off() {
    let moved = Message::Moved(Moved { place: Place::Ram, descriptors: Descriptors::Memory }).encode();
    let (mut exporter, mut importer) = attached().unwrap();
    exporter.moved(Place::Ram, Descriptors::Memory).unwrap();
    exporter.tell(NoticeId::new(1), LET_GO, 0).unwrap();
    to_importer(&mut exporter, &mut importer).unwrap().unwrap();
    let violation = importer.clone().receive(&moved, 1).unwrap_err();
    assert_eq!(violation.to_string(), "said `moved` twice without a notice");
    to_importer(&mut exporter, &mut importer).unwrap().unwrap();
    assert!(importer.receive(&moved, 1).is_ok(), "after the notice it may be said again");

    let (mut exporter, mut importer) = attached().unwrap();
    let request = importer.ask().unwrap();
    to_exporter(&mut importer, &mut exporter).unwrap().unwrap();
    exporter.grant(request, Generation::FIRST, Prot::Read).unwrap();
    to_importer(&mut exporter, &mut importer).unwrap().unwrap();
    let violation = importer.receive(&moved, 1).unwrap_err();
    assert_eq!(violation.to_string(), "said `moved` while something is mapped");
    assert!(importer.is_over());
}

#[test]
fn descriptors_come_with_the_messages_that_have_them_and_with_no_other() {
    let (mut exporter, mut importer) = attached().unwrap();
    let map = Message::Map(Map { request: RequestId::new(1) });
    let violation = exporter.receive(&map.encode(), 3).unwrap_err();
    assert_eq!(violation.to_string(), "sent 3 descriptors with `map`, which has 0");
    let moved = Message::Moved(Moved { place: Place::Ram, descriptors: Descriptors::Memory });
    assert_eq!(importer.receive(&moved.encode(), 0).unwrap_err().ending(), Ending::Descriptors);
}

#[test]
fn the_own_side_cannot_break_the_order_either() {
    let mut exporter = ExporterSession::new();
    assert!(exporter.offer(offer()).is_err() && exporter.settle(terms(AttachmentId::new(1))).is_err());
    assert!(exporter.grant(RequestId::new(1), Generation::FIRST, Prot::Read).is_err());
    assert!(exporter.tell(NoticeId::new(1), LET_GO, 0).is_err());
    let mut importer = ImporterSession::new();
    assert!(importer.declare(declare()).is_err() && importer.ask().is_err() && importer.unmapped(1).is_err());
    let (mut exporter, mut importer) = attached().unwrap();
    let request = importer.ask().unwrap();
    to_exporter(&mut importer, &mut exporter).unwrap().unwrap();
    exporter.grant(request, Generation::FIRST, Prot::Read).unwrap();
    assert!(exporter.deny(request, Phase::Live, "").is_err(), "one answer to a request");
    to_importer(&mut exporter, &mut importer).unwrap().unwrap();
    assert!(importer.goodbye().is_err() && importer.unmapped(2).is_err());
}
