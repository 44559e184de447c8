//! The importer's side of one attachment.

use super::super::super::life::{Generation, NoticeId, Phase};
use super::super::codes::{Descriptors, Ending, Features};
use super::super::message::{Declare, Goodbye, Hello, LetGo, Map, Message, Noted, Offer, Terms, Unmapped};
use super::super::{RequestId, VERSIONS};
use super::heard::Heard;
use super::violation::{OutOfTurn, Violation};
use super::{MAPPINGS_MAX, REQUESTS_MAX, UNANSWERED_MAX};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

/// Whose turn it is, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Welcome,
    Offer,
    OurDeclaration,
    Terms,
    Attached,
    Over,
}

/// Whether the importer may ask for mappings, as far as it has taken note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Within,
    Out,
    Gone,
}

/// The importer's side of one attachment: what the exporter may say, and what is to be said to it.
///
/// # Invariants
/// - At most [`REQUESTS_MAX`] requests are unanswered, and at most [`MAPPINGS_MAX`] mappings are held or asked for.
/// - Bytes move only while nothing is mapped, and once to a notice, so that what is heard is bounded as notices are.
/// - Once it is over, nothing more is said, and nothing is taken.
#[derive(Clone, Debug)]
pub struct ImporterSession {
    turn: Turn,
    outbox: VecDeque<Message>,
    offer: Option<Offer>,
    declared: Option<Declare>,
    reach: Reach,
    next_request: u64,
    asked: Vec<RequestId>,
    mappings: u32,
    last_notice: Option<NoticeId>,
    /// Notices of which no note was taken, with what the last of them makes of the reach.
    open: VecDeque<(NoticeId, Reach)>,
    /// The bytes were said to have moved, and the notice with which that is said has not come.
    has_moved: bool,
    generation: Generation,
}

impl Default for ImporterSession {
    fn default() -> Self {
        Self::new()
    }
}

impl ImporterSession {
    /// A session that begins by saying hello.
    pub fn new() -> Self {
        Self {
            turn: Turn::Welcome,
            outbox: VecDeque::from([Message::Hello(Hello::new())]),
            offer: None,
            declared: None,
            reach: Reach::Out,
            next_request: 1,
            asked: Vec::new(),
            mappings: 0,
            last_notice: None,
            open: VecDeque::new(),
            has_moved: false,
            generation: Generation::FIRST,
        }
    }

    /// Whether it is over; what [`outgoing`](Self::outgoing) still has may be sent.
    pub fn is_over(&self) -> bool {
        self.turn == Turn::Over
    }

    /// Mappings that were granted and not said to be taken down.
    pub fn mappings(&self) -> u32 {
        self.mappings
    }

    /// Whether asking for a mapping has a chance: the last notice noted did not forbid it.
    pub fn may_ask(&self) -> bool {
        self.turn == Turn::Attached && self.reach == Reach::Within
    }

    /// The next message to send, to be taken out with [`sent`](Self::sent) when it was.
    pub fn outgoing(&self) -> Option<&Message> {
        self.outbox.front()
    }

    /// The message that [`outgoing`](Self::outgoing) showed is on its way.
    pub fn sent(&mut self) {
        self.outbox.pop_front();
    }

    /// Takes what came, with how many descriptors.
    ///
    /// # Errors
    /// [`Violation`]: the session is over, and the exporter is told why once terms were settled.
    pub fn receive(&mut self, bytes: &[u8], descriptors: usize) -> Result<Heard, Violation> {
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

    /// Ends the session because of what the exporter did, and tells it.
    pub fn cut(&mut self, violation: &Violation) {
        if self.turn != Turn::Over {
            self.outbox.clear();
            self.turn = Turn::Over;
            self.outbox.push_back(Message::Goodbye(Goodbye { ending: violation.ending() }));
        }
    }

    fn take(&mut self, message: Message) -> Result<Heard, Violation> {
        let kind = message.word();
        match (self.turn, message) {
            (Turn::Welcome, Message::Welcome(welcome)) => {
                if !VERSIONS.contains(&welcome.version) || welcome.features.bits() & !Features::NONE.bits() != 0 {
                    let what = format!("version {} or its features were not asked for", welcome.version);
                    return Err(Violation::Untrue { kind, what });
                }
                self.turn = Turn::Offer;
                Ok(Heard::Welcomed)
            }
            (Turn::Offer, Message::Offer(offer)) => {
                self.offer = Some(offer.clone());
                self.turn = Turn::OurDeclaration;
                Ok(Heard::Offered(offer))
            }
            (Turn::Terms, Message::Terms(terms)) => {
                self.check(&terms)?;
                self.reach = match terms.phase {
                    Phase::Live | Phase::Restored => Reach::Within,
                    _ => Reach::Out,
                };
                self.turn = Turn::Attached;
                Ok(Heard::Attached(terms))
            }
            (Turn::Welcome | Turn::Terms, Message::Refusal(refusal)) => {
                self.turn = Turn::Over;
                Ok(Heard::Refused(refusal))
            }
            // A reason is given on either channel, and at any time but before the first word.
            (Turn::Over, _) => Err(Violation::OutOfTurn { kind, when: "after the session was over" }),
            (_, Message::Goodbye(goodbye)) => {
                self.turn = Turn::Over;
                self.outbox.clear();
                Ok(Heard::Goodbye(goodbye.ending))
            }
            (Turn::Attached, message) => self.attached(message),
            (_, _) => Err(Violation::OutOfTurn { kind, when: "before terms were settled" }),
        }
    }

    fn attached(&mut self, message: Message) -> Result<Heard, Violation> {
        let kind = message.word();
        match message {
            Message::Granted(granted) => {
                self.answered(kind, granted.request)?;
                if granted.generation < self.generation {
                    return Err(went_back(kind, granted.generation, self.generation));
                }
                self.generation = granted.generation;
                self.mappings += 1;
                Ok(Heard::Granted { request: granted.request, generation: granted.generation, prot: granted.prot })
            }
            Message::Denied(denied) => {
                self.answered(kind, denied.request)?;
                Ok(Heard::Denied { request: denied.request, phase: denied.phase, why: denied.why.to_string() })
            }
            Message::LetGo(let_go) => {
                self.notice(kind, let_go.notice, Reach::Out)?;
                let LetGo { notice, cause, deadline_ms } = let_go;
                Ok(Heard::LetGo { notice, cause, deadline_ms })
            }
            Message::MayMap(may_map) => {
                if may_map.generation < self.generation {
                    return Err(went_back(kind, may_map.generation, self.generation));
                }
                self.notice(kind, may_map.notice, Reach::Within)?;
                self.generation = may_map.generation;
                Ok(Heard::MayMap { notice: may_map.notice, generation: may_map.generation })
            }
            Message::Moved(moved) => {
                if moved.descriptors == Descriptors::MemoryAndControl {
                    let what = "a session has one control channel".to_string();
                    return Err(Violation::Untrue { kind, what });
                }
                if self.mappings > 0 {
                    return Err(Violation::OutOfTurn { kind, when: "while something is mapped" });
                }
                if self.has_moved {
                    return Err(Violation::OutOfTurn { kind, when: "twice without a notice" });
                }
                self.has_moved = true;
                Ok(Heard::Moved { place: moved.place, descriptors: moved.descriptors })
            }
            Message::Gone(gone) => {
                self.number(kind, gone.notice)?;
                self.open.clear();
                self.reach = Reach::Gone;
                Ok(Heard::Gone)
            }
            _ => Err(Violation::OutOfTurn { kind, when: "while attached" }),
        }
    }

    /// Terms that are not what was offered and declared would bind the importer to what it never agreed to.
    fn check(&self, terms: &Terms) -> Result<(), Violation> {
        let (Some(offer), Some(declared)) = (&self.offer, &self.declared) else {
            return Err(Violation::OutOfTurn { kind: "terms", when: "before anything was declared" });
        };
        let claims = [
            (terms.size == offer.size, "the length is not the one that was offered"),
            (terms.start.checked_add(terms.size).is_some(), "the memory ends past 64 bits"),
            (terms.lifetime <= declared.takes, "the lifetime is less than what was declared"),
            (terms.prot == declared.prot, "the protection is not the one that was declared"),
            (terms.methods == declared.methods, "the ways are not the ones that were declared"),
            (terms.enforcement == declared.enforcement, "the enforcement is not the one that was declared"),
            (terms.control == declared.control, "the control is not the one that was declared"),
            (terms.enforcement >= offer.floor, "the enforcement is below the floor"),
        ];
        match claims.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Violation::Untrue { kind: "terms", what: (*what).to_string() }),
            None => Ok(()),
        }
    }

    fn answered(&mut self, kind: &'static str, request: RequestId) -> Result<(), Violation> {
        let place = self.asked.iter().position(|&asked| asked == request).ok_or_else(|| Violation::Untrue {
            kind,
            what: format!("request {} awaits no answer", request.number()),
        })?;
        self.asked.remove(place);
        Ok(())
    }

    fn number(&mut self, kind: &'static str, notice: NoticeId) -> Result<(), Violation> {
        if self.last_notice.is_some_and(|last| notice <= last) {
            let what = format!("notice {} is not after the last", notice.number());
            return Err(Violation::Untrue { kind, what });
        }
        self.last_notice = Some(notice);
        self.has_moved = false;
        Ok(())
    }

    fn notice(&mut self, kind: &'static str, notice: NoticeId, reach: Reach) -> Result<(), Violation> {
        if self.reach == Reach::Gone {
            return Err(Violation::OutOfTurn { kind, when: "after the buffer was gone" });
        }
        self.number(kind, notice)?;
        if self.open.len() >= UNANSWERED_MAX {
            return Err(Violation::Flood { what: "more notices are unanswered", bound: UNANSWERED_MAX });
        }
        // Told to let go, it must not ask, whether or not it has taken note; called back, it may once it has.
        if reach == Reach::Out {
            self.reach = Reach::Out;
        }
        self.open.push_back((notice, reach));
        Ok(())
    }

    /// Declares what can be taken and what is wanted, once something was offered.
    ///
    /// # Errors
    /// [`OutOfTurn`] at any other time.
    pub fn declare(&mut self, declare: Declare) -> Result<(), OutOfTurn> {
        if self.turn != Turn::OurDeclaration {
            return Err(OutOfTurn { kind: "declare", why: "nothing has been offered, or it has been declared" });
        }
        self.declared = Some(declare.clone());
        self.outbox.push_back(Message::Declare(declare));
        self.turn = Turn::Terms;
        Ok(())
    }

    /// Asks for one more mapping.
    ///
    /// # Errors
    /// [`OutOfTurn`] while the buffer is out of reach as far as was told, and at the bounds.
    pub fn ask(&mut self) -> Result<RequestId, OutOfTurn> {
        let why = match self.turn {
            Turn::Attached if self.reach == Reach::Gone => Some("the buffer is gone for good"),
            Turn::Attached if self.reach == Reach::Out => {
                Some("the buffer is out of reach; await the notice that it may be mapped")
            }
            Turn::Attached if self.asked.len() >= REQUESTS_MAX => Some("too many requests are unanswered"),
            // At most REQUESTS_MAX, which is small.
            Turn::Attached if self.mappings + self.asked.len() as u32 >= MAPPINGS_MAX => {
                Some("it has as many mappings as there may be")
            }
            Turn::Attached => None,
            _ => Some("not attached"),
        };
        if let Some(why) = why {
            return Err(OutOfTurn { kind: "map", why });
        }
        let request = RequestId::new(self.next_request);
        self.next_request += 1;
        self.asked.push(request);
        self.outbox.push_back(Message::Map(Map { request }));
        Ok(request)
    }

    /// Says that mappings were taken down, and that nothing uses them any more.
    ///
    /// # Errors
    /// [`OutOfTurn`] for none, for more than there are, and after the end.
    pub fn unmapped(&mut self, count: u32) -> Result<(), OutOfTurn> {
        if self.turn != Turn::Attached || count == 0 || count > self.mappings {
            return Err(OutOfTurn { kind: "unmapped", why: "it has fewer mappings, or is not attached" });
        }
        self.mappings -= count;
        self.outbox.push_back(Message::Unmapped(Unmapped { count }));
        Ok(())
    }

    /// Takes note of a notice and of all before it.
    ///
    /// # Errors
    /// [`OutOfTurn`] if it awaits no answer.
    pub fn note(&mut self, notice: NoticeId) -> Result<(), OutOfTurn> {
        let place = self.open.iter().position(|(open, _)| *open == notice).filter(|_| self.turn == Turn::Attached);
        let place = place.ok_or(OutOfTurn { kind: "noted", why: "the notice awaits no answer" })?;
        let noted = self.open.drain(..=place).next_back();
        // A notice to let go that came after this one holds already.
        let told_since = self.open.iter().any(|(_, reach)| *reach == Reach::Out);
        if let Some((_, Reach::Within)) = noted
            && !told_since
        {
            self.reach = Reach::Within;
        }
        self.outbox.push_back(Message::Noted(Noted { notice }));
        Ok(())
    }

    /// Goes; the session is over.
    ///
    /// # Errors
    /// [`OutOfTurn`] while it has mappings: take them down first.
    pub fn goodbye(&mut self) -> Result<(), OutOfTurn> {
        if self.mappings > 0 {
            return Err(OutOfTurn { kind: "goodbye", why: "it has mappings; take them down first" });
        }
        if self.turn == Turn::Attached {
            self.outbox.push_back(Message::Goodbye(Goodbye { ending: Ending::Done }));
        }
        self.turn = Turn::Over;
        Ok(())
    }
}

fn went_back(kind: &'static str, told: Generation, known: Generation) -> Violation {
    Violation::Untrue { kind, what: format!("generation {} is before {}", told.number(), known.number()) }
}
