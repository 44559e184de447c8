//! The exporter's session: importers served, commands followed, memory taken away and given back.

use super::chronicle::Chronicle;
use crate::args::ShareArguments;
use crate::document::share::EventDocument;
use crate::exit::{Exit, Failure};
use peerdma::addr::Bytes;
use peerdma::buffer::life::Disturbance;
use peerdma::buffer::shared::Disturbed;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::pattern::Pattern;
use peerdma_linux::share::{Exporter, Guest, Happened, Standing, WaitError};
use std::io::BufRead;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// How long at most until a command or a signal is noticed.
pub(super) const SLICE: Duration = Duration::from_millis(50);

pub(super) struct Session<'a> {
    arguments: &'a ShareArguments,
    exporter: &'a mut Exporter,
    interrupts: Option<&'a Interrupts>,
    chronicle: Chronicle,
    lines: Option<Receiver<String>>,
    /// Which pattern the memory holds.
    filled: u64,
    away: Option<Disturbed>,
    revoke_at: Option<Instant>,
    restore_at: Option<Instant>,
    exit: Exit,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        arguments: &'a ShareArguments,
        exporter: &'a mut Exporter,
        interrupts: Option<&'a Interrupts>,
    ) -> Self {
        Self {
            arguments,
            exporter,
            interrupts,
            chronicle: Chronicle::new(arguments.output.json),
            lines: Some(lines()),
            filled: 0,
            away: None,
            revoke_at: None,
            restore_at: None,
            exit: Exit::Done,
        }
    }

    pub(super) fn into_events(self) -> (Vec<EventDocument>, u64) {
        self.chronicle.into_events()
    }

    pub(super) fn run(&mut self) -> Result<Exit, Failure> {
        self.fill()?;
        let (size, path) = (self.exporter.memory().len(), self.exporter.listener().path().display().to_string());
        let prot = self.exporter.memory().prot();
        let floor = peerdma::buffer::Enforcement::from(self.arguments.floor);
        self.chronicle.tell("sharing", &format!("{size} ({prot}) at {path}, floor {floor}"))?;
        if floor > peerdma::buffer::Enforcement::Cooperative {
            self.chronicle
                .tell("note", "nobody will attach: nothing in the kernel takes a memfd from who has mapped it")?;
        }
        let end = self.arguments.lasts.map(|lasts| Instant::now() + lasts);
        while !self.interrupted() && end.is_none_or(|end| Instant::now() < end) {
            if !self.obey()? {
                break;
            }
            if due(&mut self.revoke_at) {
                self.revoke()?;
            }
            if due(&mut self.restore_at) {
                self.restore()?;
            }
            let next = [end, self.revoke_at, self.restore_at].into_iter().flatten().min();
            let slice = Instant::now() + SLICE;
            self.serve(next.map_or(slice, |next| next.min(slice)))?;
        }
        self.close()?;
        Ok(self.exit)
    }

    fn interrupted(&self) -> bool {
        self.interrupts.is_some_and(Interrupts::came)
    }

    fn serve(&mut self, until: Instant) -> Result<(), Failure> {
        while let Some(happened) = self.exporter.serve(until).map_err(failed)? {
            if let Happened::Mapped { .. } = happened
                && let Some(after) = self.arguments.revoke_after
                && self.filled == 0
                && self.revoke_at.is_none()
            {
                self.revoke_at = Some(Instant::now() + after);
            }
            let (what, text) = describe(&happened);
            self.chronicle.tell(what, &text)?;
            // An importer that maps and unmaps without end must not keep commands and signals waiting.
            if Instant::now() >= until + SLICE {
                break;
            }
        }
        Ok(())
    }

    /// Follows what was typed; false to end.
    fn obey(&mut self) -> Result<bool, Failure> {
        let line = match self.lines.as_ref().map(Receiver::try_recv) {
            Some(Ok(line)) => line,
            // Standard input has ended; the rest is up to time and signals.
            Some(Err(TryRecvError::Disconnected)) => {
                self.lines = None;
                return Ok(true);
            }
            _ => return Ok(true),
        };
        match line.trim() {
            "" => {}
            "revoke" => self.revoke()?,
            "restore" => self.restore()?,
            "move" => self.relocate()?,
            "status" => self.status()?,
            "quit" => return Ok(false),
            other => {
                let text = format!("{other:?} is no command; there are revoke, restore, move, status, quit");
                self.chronicle.tell("usage", &text)?;
            }
        }
        Ok(true)
    }

    /// Announces something and waits for everybody to let go; `None` if somebody did not.
    fn take_away(&mut self, what: Disturbance) -> Result<Option<Disturbed>, Failure> {
        self.chronicle.tell("announced", &format!("{what}: importers are told to let go"))?;
        let until = Instant::now() + self.arguments.patience;
        let announced = match self.exporter.buffer().begin(what) {
            Ok(announced) => announced,
            Err(refused) => {
                self.exit = Exit::Refused;
                self.chronicle.tell("refused", &refused.to_string())?;
                return Ok(None);
            }
        };
        // A signal ends every wait but the last one, which it brought about; the second signal ends the process.
        let interrupts = self.interrupts.filter(|_| what != Disturbance::Close);
        let waited = self.exporter.wait_unless(announced, until, || interrupts.is_some_and(Interrupts::came));
        // What happened meanwhile, before what came of it.
        self.serve(Instant::now())?;
        match waited {
            Ok(quiet) => Ok(Some(quiet)),
            Err(WaitError::Late(late)) => {
                let not_running: Vec<String> = self.exporter.importers().filter_map(|guest| unwell(&guest)).collect();
                self.exit = Exit::Refused;
                self.chronicle.tell("held", &late.to_string())?;
                for text in not_running {
                    self.chronicle.tell("note", &text)?;
                }
                drop(late);
                let left = match what {
                    Disturbance::Close => {
                        "this ends all the same; importers are left with what they have mapped".to_string()
                    }
                    _ => format!("{what} does not happen; importers may map on"),
                };
                self.chronicle.tell("gave-up", &left)?;
                Ok(None)
            }
            Err(error) => Err(Failure::device("cannot wait for importers", error)),
        }
    }

    fn revoke(&mut self) -> Result<(), Failure> {
        if self.away.is_some() {
            return self.chronicle.tell("usage", "it is taken away already; restore gives it back");
        }
        if let Some(quiet) = self.take_away(Disturbance::Reset)? {
            self.chronicle.tell("revoked", "nobody has it mapped")?;
            self.filled += 1;
            self.fill()?;
            self.away = Some(quiet);
            self.restore_at = self.arguments.restore_after.map(|after| Instant::now() + after);
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Failure> {
        self.restore_at = None;
        match self.away.take() {
            Some(quiet) => {
                quiet.done();
                self.chronicle.tell("restored", &format!("importers may map; it holds pattern {}", self.filled))
            }
            None => self.chronicle.tell("usage", "it is not taken away; revoke takes it"),
        }
    }

    fn relocate(&mut self) -> Result<(), Failure> {
        if self.away.is_some() {
            return self.chronicle.tell("usage", "it is taken away; restore it first");
        }
        if let Some(quiet) = self.take_away(Disturbance::Move)? {
            self.exporter.move_memory(quiet).map_err(|error| Failure::device("cannot move the memory", error))?;
            self.chronicle.tell("moved", "its bytes lie in another memfd now, which importers are sent")?;
        }
        Ok(())
    }

    fn status(&mut self) -> Result<(), Failure> {
        let mut lines = vec![format!("the buffer is {}", self.exporter.buffer().phase())];
        lines.extend(self.exporter.importers().map(|guest| {
            let Guest { who, name, pid, standing, mappings, enforcement, .. } = &guest;
            let command = guest.command.as_deref().unwrap_or("?");
            format!("{who}: {name} in process {pid} ({command}, {standing}), {mappings} mapped, {enforcement}")
        }));
        let holds = match self.holds() {
            true => format!("pattern {}", self.filled),
            false => "something that importers wrote".to_string(),
        };
        lines.push(format!("it holds {holds}"));
        lines.iter().try_for_each(|line| self.chronicle.tell("status", line))
    }

    /// The memory is given up: importers let go, or are left with what they have.
    fn close(&mut self) -> Result<(), Failure> {
        drop(self.away.take());
        if let Some(quiet) = self.take_away(Disturbance::Close)? {
            // Gone for good is told by the drop, and sent here.
            self.serve(Instant::now())?;
            quiet.done();
        }
        self.chronicle.tell("done", "the socket is removed")
    }

    fn pattern(&self) -> Pattern {
        Pattern::new(self.arguments.seed, self.filled)
    }

    fn fill(&self) -> Result<(), Failure> {
        let (memory, pattern) = (self.exporter.memory(), self.pattern());
        for (at, len) in pieces(memory.len()) {
            memory
                .write(at, &pattern.bytes(at, len))
                .map_err(|error| Failure::device("cannot fill the memory", error))?;
        }
        Ok(())
    }

    fn holds(&self) -> bool {
        let (memory, pattern) = (self.exporter.memory(), self.pattern());
        pieces(memory.len()).all(|(at, len)| {
            let mut found = vec![0; len];
            memory.read(at, &mut found).is_ok() && found == pattern.bytes(at, len)
        })
    }
}

/// Whole memory in pieces of 64 KiB.
pub(in crate::commands) fn pieces(len: Bytes) -> impl Iterator<Item = (Bytes, usize)> {
    const PIECE: u64 = 1 << 16;
    let len = len.as_u64();
    (0..len.div_ceil(PIECE)).map(move |piece| {
        let at = piece * PIECE;
        (Bytes::new(at), (len - at).min(PIECE) as usize)
    })
}

pub(super) fn failed(error: std::io::Error) -> Failure {
    Failure::device("cannot serve importers", error)
}

pub(super) fn due(at: &mut Option<Instant>) -> bool {
    at.take_if(|at| Instant::now() >= *at).is_some()
}

/// What to know of an importer that does not simply run.
pub(super) fn unwell(guest: &Guest) -> Option<String> {
    let Guest { who, pid, .. } = guest;
    match (&guest.cut_off, guest.speaker, guest.standing) {
        (Some(why), ..) => Some(format!("{who}: process {pid} was cut off, as it {why}; end it")),
        (None, Some(speaker), _) => Some(format!("{who}: its control descriptor is with process {speaker}")),
        (None, None, Standing::Stopped) => Some(format!("{who}: process {pid} is stopped; continue or end it")),
        (None, None, Standing::Ended) => {
            Some(format!("{who}: process {pid} has ended, and somebody else holds its control descriptor"))
        }
        _ => None,
    }
}

pub(super) fn describe(happened: &Happened) -> (&'static str, String) {
    match happened {
        Happened::Attached { who, peer, terms } => ("attached", format!("{who} by {peer}: {terms}")),
        Happened::Refused { peer, rule, why } => ("refused", format!("{peer} ({rule}): {why}")),
        Happened::Mapped { who, mappings } => ("mapped", format!("{who}, {mappings} now")),
        Happened::Unmapped { who, mappings } => ("unmapped", format!("{who}, {mappings} left")),
        Happened::Noted { who } => ("noted", who.to_string()),
        Happened::PassedOn { who, pid } => ("passed-on", format!("{who} is spoken for by process {pid}")),
        Happened::Detached { who } => ("detached", who.to_string()),
        Happened::HungUp { who: Some(who), peer, mappings } => {
            ("hung-up", format!("{who} by {peer}, with {mappings} mapped"))
        }
        Happened::HungUp { who: None, peer, .. } => ("hung-up", format!("{peer}, before terms were settled")),
        Happened::CutOff { peer, violation, mappings, .. } => {
            ("cut-off", format!("{peer}, which {violation}; {mappings} mappings stay in the way"))
        }
        Happened::Ended { who } => ("ended", format!("the process of {who}")),
        other => ("other", format!("{other:?}")),
    }
}

/// Lines of standard input. The thread ends with the process; nothing waits for it.
pub(super) fn lines() -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
