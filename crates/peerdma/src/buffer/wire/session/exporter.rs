//! The exporter's side of one attachment.

use super::super::super::life::{Generation, Notice, NoticeId, Phase};
use super::super::super::terms::Place;
use super::super::codes::{Descriptors, Ending, Features};
use super::super::message::{
    Declare, Denied, Gone, Goodbye, Granted, LetGo, MayMap, Message, Moved, Offer, Refusal, Terms, Welcome,
};
use super::super::text::Text;
use super::super::{RequestId, VERSIONS};
use super::violation::{OutOfTurn, Violation};
use super::{MAPPINGS_MAX, OUTBOX_MAX, REQUESTS_MAX, UNANSWERED_MAX};
use crate::access::Prot;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

/// What an importer said, after it was found to be in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It speaks a version of ours, which it has been told. An offer is due.
    Greeted,
    /// It speaks no version of ours. It has been told so, and the session is over.
    NoCommonVersion {
        /// The lowest version that it speaks.
        lowest: u16,
        /// The highest.
        highest: u16,
    },
    /// It can take this and wants that. Terms or a refusal are due.
    Declared(Declare),
    /// It wants one more mapping. Granting or denying it is due.
    Map(RequestId),
    /// It has taken so many down.
    Unmapped(u32),
    /// It has taken note of this notice.
    Noted(NoticeId),
    /// It goes; the session is over.
    Goodbye(Ending),
}

/// Whose turn it is, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    TheirHello,
    OurOffer,
    TheirDeclaration,
    OurTerms,
    Attached,
    Over,
}

/// The exporter's side of one attachment: what the importer may say, and what is to be said to it.
///
/// # Invariants
/// - At most [`REQUESTS_MAX`] requests are unanswered, at most [`MAPPINGS_MAX`] mappings counted, and at most
///   [`UNANSWERED_MAX`] notices unanswered, sent or not; one that was not sent cannot be answered, and so the messages that
///   wait to be sent are bounded too.
/// - Once it is over, nothing more is said, and nothing is taken.
#[derive(Clone, Debug)]
pub struct ExporterSession {
    turn: Turn,
    outbox: VecDeque<Message>,
    last_request: Option<RequestId>,
    asked: Vec<RequestId>,
    mappings: u32,
    unanswered: VecDeque<NoticeId>,
    /// Where the bytes went, and the last notice, while too many are unanswered.
    held: (Option<Moved>, Option<(NoticeId, Message)>),
}

impl Default for ExporterSession {
    fn default() -> Self {
        Self::new()
    }
}

impl ExporterSession {
    /// A session with an importer that has not said anything.
    pub fn new() -> Self {
        Self {
            turn: Turn::TheirHello,
            outbox: VecDeque::new(),
            last_request: None,
            asked: Vec::new(),
            mappings: 0,
            unanswered: VecDeque::new(),
            held: (None, None),
        }
    }

    /// Whether it is over; what [`outgoing`](Self::outgoing) still has may be sent.
    pub fn is_over(&self) -> bool {
        self.turn == Turn::Over
    }

    /// Whether terms were settled and the session has not ended.
    pub fn is_attached(&self) -> bool {
        self.turn == Turn::Attached
    }

    /// Mappings that were granted and not taken down.
    pub fn mappings(&self) -> u32 {
        self.mappings
    }

    /// The next message to send, to be taken out with [`sent`](Self::sent) when it was.
    pub fn outgoing(&self) -> Option<&Message> {
        self.outbox.front()
    }

    /// The message that [`outgoing`](Self::outgoing) showed is on its way.
    pub fn sent(&mut self) {
        self.outbox.pop_front();
    }

    /// Takes what came, with how many descriptors; those that a message must not have are closed by the caller.
    ///
    /// # Errors
    /// [`Violation`]: the session is over, and the importer is told why.
    pub fn receive(&mut self, bytes: &[u8], descriptors: usize) -> Result<Said, Violation> {
        let taken = Message::decode(bytes).map_err(Violation::from).and_then(|message| {
            let (kind, expected) = (message.word(), message.descriptors().count());
            if descriptors != expected {
                return Err(Violation::Descriptors { kind, expected, got: descriptors });
            }
            self.take(message)
        });
        if let Err(violation) = &taken {
            self.cut(violation);
        }
        taken
    }

    /// Ends the session because of what the importer did, and tells it.
    pub fn cut(&mut self, violation: &Violation) {
        if !self.is_over() {
            // What waits is of no use to a peer that is no longer believed, and would only keep the reason from it.
            self.outbox.clear();
            self.end(violation.ending());
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.turn != Turn::Over {
            self.turn = Turn::Over;
            self.held = (None, None);
            self.outbox.push_back(Message::Goodbye(Goodbye { ending }));
        }
    }

    fn take(&mut self, message: Message) -> Result<Said, Violation> {
        let kind = message.word();
        match (self.turn, message) {
            (Turn::TheirHello, Message::Hello(hello)) => {
                if hello.lowest > hello.highest {
                    let what = format!("its lowest version {} is above its highest {}", hello.lowest, hello.highest);
                    return Err(Violation::Untrue { kind, what });
                }
                let version = hello.highest.min(*VERSIONS.end());
                if version < hello.lowest || version < *VERSIONS.start() {
                    self.outbox.push_back(Message::Refusal(no_version(hello.lowest, hello.highest)));
                    self.turn = Turn::Over;
                    return Ok(Said::NoCommonVersion { lowest: hello.lowest, highest: hello.highest });
                }
                let features = hello.features.common(Features::NONE);
                self.outbox.push_back(Message::Welcome(Welcome { version, features }));
                self.turn = Turn::OurOffer;
                Ok(Said::Greeted)
            }
            (Turn::TheirDeclaration, Message::Declare(declare)) => {
                if let Some(what) = declare.contradiction() {
                    return Err(Violation::Untrue { kind, what: what.to_string() });
                }
                self.turn = Turn::OurTerms;
                Ok(Said::Declared(declare))
            }
            (Turn::Attached, Message::Map(map)) => self.asked(map.request),
            (Turn::Attached, Message::Unmapped(unmapped)) => {
                if unmapped.count == 0 || unmapped.count > self.mappings {
                    let what = format!("{} were taken down and it has {}", unmapped.count, self.mappings);
                    return Err(Violation::Untrue { kind, what });
                }
                self.mappings -= unmapped.count;
                Ok(Said::Unmapped(unmapped.count))
            }
            (Turn::Attached, Message::Noted(noted)) => {
                let Some(place) = self.unanswered.iter().position(|&id| id == noted.notice) else {
                    let what = format!("notice {} awaits no answer", noted.notice.number());
                    return Err(Violation::Untrue { kind, what });
                };
                // Answers to what nobody has read yet would let one notice after the other join those that wait.
                if self.outbox.iter().any(|waiting| notice_of(waiting) == Some(noted.notice)) {
                    let what = format!("notice {} has not been sent", noted.notice.number());
                    return Err(Violation::Untrue { kind, what });
                }
                self.unanswered.drain(..=place);
                self.release();
                Ok(Said::Noted(noted.notice))
            }
            (Turn::Attached, Message::Goodbye(goodbye)) => {
                if goodbye.ending == Ending::Done && self.mappings > 0 {
                    let what = format!("it has {} mappings", self.mappings);
                    return Err(Violation::Untrue { kind, what });
                }
                self.turn = Turn::Over;
                self.outbox.clear();
                Ok(Said::Goodbye(goodbye.ending))
            }
            (turn, _) => Err(Violation::OutOfTurn { kind, when: turn.expects() }),
        }
    }

    fn asked(&mut self, request: RequestId) -> Result<Said, Violation> {
        if self.last_request.is_some_and(|last| request <= last) {
            let what = format!("request {} has been made before, or was skipped", request.number());
            return Err(Violation::Untrue { kind: "map", what });
        }
        if self.asked.len() >= REQUESTS_MAX {
            return Err(Violation::Flood { what: "more requests are unanswered", bound: REQUESTS_MAX });
        }
        if self.outbox.len() >= OUTBOX_MAX {
            return Err(Violation::Flood { what: "more answers wait to be read", bound: OUTBOX_MAX });
        }
        // At most REQUESTS_MAX, which is small.
        if self.mappings.saturating_add(self.asked.len() as u32) >= MAPPINGS_MAX {
            return Err(Violation::Flood { what: "more mappings are asked for", bound: MAPPINGS_MAX as usize });
        }
        self.last_request = Some(request);
        self.asked.push(request);
        Ok(Said::Map(request))
    }

    /// Says what there is, once greeted.
    ///
    /// # Errors
    /// [`OutOfTurn`] at any other time.
    pub fn offer(&mut self, offer: Offer) -> Result<(), OutOfTurn> {
        if self.turn != Turn::OurOffer {
            return Err(OutOfTurn { kind: "offer", why: self.turn.expects() });
        }
        self.outbox.push_back(Message::Offer(offer));
        self.turn = Turn::TheirDeclaration;
        Ok(())
    }

    /// Settles, once it has declared.
    ///
    /// # Errors
    /// [`OutOfTurn`] at any other time.
    pub fn settle(&mut self, terms: Terms) -> Result<(), OutOfTurn> {
        if self.turn != Turn::OurTerms {
            return Err(OutOfTurn { kind: "terms", why: self.turn.expects() });
        }
        self.outbox.push_back(Message::Terms(terms));
        self.turn = Turn::Attached;
        Ok(())
    }

    /// Refuses, once it has declared; the session is over.
    ///
    /// # Errors
    /// [`OutOfTurn`] at any other time.
    pub fn refuse(&mut self, refusal: Refusal) -> Result<(), OutOfTurn> {
        if self.turn != Turn::OurTerms {
            return Err(OutOfTurn { kind: "refusal", why: self.turn.expects() });
        }
        self.outbox.push_back(Message::Refusal(refusal));
        self.turn = Turn::Over;
        Ok(())
    }

    /// Grants a mapping that was asked for, which counts from now on.
    ///
    /// # Errors
    /// [`OutOfTurn`] if it was not asked for, or was answered.
    pub fn grant(&mut self, request: RequestId, generation: Generation, prot: Prot) -> Result<(), OutOfTurn> {
        self.answer("granted", request)?;
        self.mappings += 1;
        self.outbox.push_back(Message::Granted(Granted { request, generation, prot }));
        Ok(())
    }

    /// Denies a mapping that was asked for.
    ///
    /// # Errors
    /// [`OutOfTurn`] if it was not asked for, or was answered.
    pub fn deny(&mut self, request: RequestId, phase: Phase, why: &str) -> Result<(), OutOfTurn> {
        self.answer("denied", request)?;
        self.outbox.push_back(Message::Denied(Denied { request, phase, why: Text::new(why) }));
        Ok(())
    }

    fn answer(&mut self, kind: &'static str, request: RequestId) -> Result<(), OutOfTurn> {
        let place = self.asked.iter().position(|&asked| asked == request);
        let place = place.filter(|_| self.turn == Turn::Attached);
        let place = place.ok_or(OutOfTurn { kind, why: "no such request awaits an answer" })?;
        self.asked.remove(place);
        Ok(())
    }

    /// Tells a notice; `deadline_ms` says for how long its author means to wait, 0 for no word about it.
    ///
    /// While too many are unanswered it is held back, and a later one takes its place.
    ///
    /// # Errors
    /// [`OutOfTurn`] before terms were settled, and after the end.
    pub fn tell(&mut self, notice: NoticeId, what: Notice, deadline_ms: u32) -> Result<(), OutOfTurn> {
        if self.turn != Turn::Attached {
            return Err(OutOfTurn { kind: "notice", why: self.turn.expects() });
        }
        let message = match what {
            Notice::LetGo { cause } => Message::LetGo(LetGo { notice, cause, deadline_ms }),
            Notice::MayMap { generation } => Message::MayMap(MayMap { notice, generation }),
            // Nobody answers it, so it never waits for answers.
            Notice::Gone => {
                self.held = (None, None);
                self.outbox.push_back(Message::Gone(Gone { notice }));
                return Ok(());
            }
        };
        self.held.1 = Some((notice, message));
        self.release();
        Ok(())
    }

    /// Says where the bytes lie from now on; to be told before the notice that they may be mapped.
    ///
    /// # Errors
    /// [`OutOfTurn`] before terms were settled, while a mapping is counted, and after the end.
    pub fn moved(&mut self, place: Place, descriptors: Descriptors) -> Result<(), OutOfTurn> {
        if self.turn != Turn::Attached || descriptors == Descriptors::MemoryAndControl {
            return Err(OutOfTurn { kind: "moved", why: self.turn.expects() });
        }
        if self.mappings > 0 {
            return Err(OutOfTurn { kind: "moved", why: "while it has mappings" });
        }
        // It goes out with the next notice, so that a peer which answers nothing is not sent one descriptor after the other.
        let descriptors = self.held.0.as_ref().map_or(descriptors, |held| held.descriptors.max(descriptors));
        self.held.0 = Some(Moved { place, descriptors });
        Ok(())
    }

    /// Says goodbye; the session is over.
    pub fn goodbye(&mut self) {
        self.end(Ending::Done);
    }

    fn release(&mut self) {
        if self.unanswered.len() >= UNANSWERED_MAX {
            return;
        }
        if let Some((id, message)) = self.held.1.take() {
            if let Some(moved) = self.held.0.take() {
                self.outbox.push_back(Message::Moved(moved));
            }
            self.unanswered.push_back(id);
            self.outbox.push_back(message);
        }
    }
}

impl Turn {
    const fn expects(self) -> &'static str {
        match self {
            Self::TheirHello => "while `hello` is due",
            Self::OurOffer => "while the offer is due",
            Self::TheirDeclaration => "while `declare` is due",
            Self::OurTerms => "while the terms are due",
            Self::Attached => "while attached",
            Self::Over => "after the session was over",
        }
    }
}

/// The notice that a message tells, where it is one to be noted.
fn notice_of(message: &Message) -> Option<NoticeId> {
    match message {
        Message::LetGo(told) => Some(told.notice),
        Message::MayMap(told) => Some(told.notice),
        _ => None,
    }
}

fn no_version(lowest: u16, highest: u16) -> Refusal {
    let why = format!(
        "this exporter speaks versions {} to {} and the importer {lowest} to {highest}; run both with versions of peerdma that share one",
        VERSIONS.start(),
        VERSIONS.end()
    );
    Refusal::by("version", &why)
}
