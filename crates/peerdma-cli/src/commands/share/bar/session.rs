//! The session of a BAR: importers served, commands followed, the memory switched off and on, the device reset.

use super::super::chronicle::Chronicle;
use super::super::session::{SLICE, describe, due, failed, lines, pieces, unwell};
use crate::args::ShareArguments;
use crate::document::share::EventDocument;
use crate::exit::{Exit, Failure};
use peerdma::addr::Bytes;
use peerdma::buffer::life::Answers;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::pattern::Pattern;
use peerdma_linux::share::{Bar, Exporter, Guest, Happened, WaitDeedError};
use peerdma_linux::vfio::shared::{CpuWindow, Outcome};
use peerdma_linux::vfio::{BarRange, Deed, SharedDevice, VfioDevice};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

/// The Command register, and its bit for memory space (PCIe 6.0 §7.5.1.1.3).
const COMMAND: u16 = 0x04;
const MEMORY: u16 = 1 << 1;

pub(super) struct Session<'a> {
    arguments: &'a ShareArguments,
    exporter: &'a mut Exporter<Bar>,
    device: SharedDevice,
    range: BarRange,
    window: CpuWindow<VfioDevice>,
    interrupts: Option<&'a Interrupts>,
    chronicle: Chronicle,
    lines: Option<Receiver<String>>,
    /// Which pattern the memory holds, where it is filled.
    filled: u64,
    is_off: bool,
    revoke_at: Option<Instant>,
    restore_at: Option<Instant>,
    exit: Exit,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        arguments: &'a ShareArguments,
        exporter: &'a mut Exporter<Bar>,
        device: SharedDevice,
        range: BarRange,
        interrupts: Option<&'a Interrupts>,
    ) -> Result<Self, Failure> {
        let window = device.window("peerdma share", range);
        let window = window.map_err(|error| Failure::device("cannot map the BAR", error))?;
        Ok(Self {
            arguments,
            exporter,
            device,
            range,
            window,
            interrupts,
            chronicle: Chronicle::new(arguments.output.json),
            lines: Some(lines()),
            filled: 0,
            is_off: false,
            revoke_at: None,
            restore_at: None,
            exit: Exit::Done,
        })
    }

    pub(super) fn into_events(self) -> (Vec<EventDocument>, u64) {
        self.chronicle.into_events()
    }

    pub(super) fn run(&mut self) -> Result<Exit, Failure> {
        let path = self.exporter.listener().path().display().to_string();
        let floor = peerdma::buffer::Enforcement::from(self.arguments.floor);
        let text = format!("{} of {} at {path}, floor {floor}", self.range, self.device.address());
        self.chronicle.tell("sharing", &text)?;
        self.tell_of_dma_bufs()?;
        // Nobody has attached: what is off is switched on, and whoever comes finds memory that answers.
        self.decode(true, "on")?;
        let end = self.arguments.lasts.map(|lasts| Instant::now() + lasts);
        while !self.interrupts.is_some_and(Interrupts::came) && end.is_none_or(|end| Instant::now() < end) {
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

    /// What devices of others could be given, which importers of this command are not.
    fn tell_of_dma_bufs(&mut self) -> Result<(), Failure> {
        let range = self.range;
        match self.device.with(|function| function.export(range)) {
            Some(Ok(_)) => self.chronicle.tell(
                "note",
                "importers map it by the device's descriptor, as no CPU maps a dma-buf of VFIO; for devices this kernel exports one too",
            ),
            Some(Err(why)) => {
                let text = format!("importers map it by the device's descriptor; devices of others are not given it: {why}");
                self.chronicle.tell("note", &text)
            }
            None => Ok(()),
        }
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
            "reset" => self.reset()?,
            "status" => self.status()?,
            "quit" => return Ok(false),
            other => {
                let text = format!("{other:?} is no command of a BAR; there are revoke, restore, reset, status, quit");
                self.chronicle.tell("usage", &text)?;
            }
        }
        Ok(true)
    }

    /// Announces something, waits for everybody to let go, and does it; `None` if somebody held on.
    fn perform(&mut self, deed: Deed<'_>) -> Result<Option<Outcome>, Failure> {
        let device = self.device.clone();
        self.chronicle.tell("announced", &format!("{deed}: importers are told to let go"))?;
        let announced = match device.announce(deed) {
            Ok(announced) => announced,
            Err(refused) => {
                self.exit = Exit::Refused;
                self.chronicle.tell("refused", &refused.to_string())?;
                return Ok(None);
            }
        };
        let waited = self.exporter.wait_deed(announced, Instant::now() + self.arguments.patience);
        // What happened meanwhile, before what came of it.
        self.serve(Instant::now())?;
        match waited {
            Ok(quiet) => {
                let done = quiet.act();
                Ok(Some(
                    done.map_err(|error| Failure::device("the device was not touched, or does not answer", error))?,
                ))
            }
            Err(WaitDeedError::Deed(late)) => {
                let not_running: Vec<String> = self.exporter.importers().filter_map(|guest| unwell(&guest)).collect();
                self.exit = Exit::Refused;
                self.chronicle.tell("held", &late.to_string())?;
                for text in not_running {
                    self.chronicle.tell("note", &text)?;
                }
                self.chronicle.tell("gave-up", "the device was not touched; importers may map on")?;
                Ok(None)
            }
            Err(error) => Err(Failure::device("cannot wait for importers", error)),
        }
    }

    /// Switches memory space on or off, if it is not so already; whether it is so now.
    fn decode(&mut self, on: bool, word: &'static str) -> Result<bool, Failure> {
        let failed = |error| Failure::device("cannot read the Command register", error);
        let Some(config) = self.device.with(VfioDevice::config_space) else { return Ok(false) };
        let config = config.map_err(failed)?;
        let at = usize::from(COMMAND);
        let before = config.bytes().get(at..at + 2).and_then(|bytes| bytes.first_chunk().copied());
        let before = u16::from_le_bytes(before.unwrap_or_default());
        let after = if on { before | MEMORY } else { before & !MEMORY };
        if before == after {
            self.fill()?;
            return Ok(true);
        }
        let bytes = after.to_le_bytes();
        let deed = Deed::config(COMMAND, &bytes);
        let deed = deed.map_err(|error| Failure::device("cannot write the Command register", error))?;
        let Some(outcome) = self.perform(deed)? else { return Ok(false) };
        if on {
            // Before importers are served again, who hear of it then.
            self.fill()?;
        }
        let answers = match outcome.answers {
            Some(Answers::YES) => "it answers",
            _ => "it does not answer",
        };
        self.chronicle.tell(word, &format!("memory space of {}: {answers}", self.device.address()))?;
        Ok(true)
    }

    fn revoke(&mut self) -> Result<(), Failure> {
        if self.is_off {
            return self.chronicle.tell("usage", "its memory space is off already; restore switches it on");
        }
        if self.decode(false, "revoked")? {
            self.is_off = true;
            self.filled += 1;
            self.restore_at = self.arguments.restore_after.map(|after| Instant::now() + after);
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Failure> {
        self.restore_at = None;
        if !self.is_off {
            return self.chronicle.tell("usage", "its memory space is on; revoke switches it off");
        }
        self.is_off = !self.decode(true, "restored")?;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Failure> {
        if self.perform(Deed::Reset)?.is_some() {
            self.chronicle
                .tell("reset", "its registers are as after power-on, save those that the kernel puts back")?;
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
        lines.iter().try_for_each(|line| self.chronicle.tell("status", line))
    }

    /// The device is closed: importers let go, or are left with memory that ends them when they touch it.
    fn close(&mut self) -> Result<(), Failure> {
        if self.perform(Deed::Close)?.is_some() {
            // Gone for good is sent here.
            self.serve(Instant::now())?;
        }
        self.chronicle.tell("done", "the socket is removed, and the device is closed")
    }

    /// Writes the pattern of now, where that was asked for.
    fn fill(&mut self) -> Result<(), Failure> {
        if !self.arguments.fill {
            return Ok(());
        }
        let (pattern, start) = (Pattern::new(self.arguments.seed, self.filled), self.range.offset().as_u64());
        for (at, len) in pieces(self.range.len()) {
            let bytes = pattern.bytes(at, len);
            let written = self.window.write(Bytes::new(start + at.as_u64()), &bytes);
            written.map_err(|error| Failure::device("cannot fill the BAR", error))?;
        }
        self.chronicle.tell("filled", &format!("with pattern {}", self.filled))
    }
}
