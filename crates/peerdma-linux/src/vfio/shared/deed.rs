//! What is done to a device, in three steps: announced, waited for, done.

use super::super::config::ConfigError;
use super::super::hot_reset::ShownGroup;
use super::super::region::BarIndex;
use super::deed_error::DeedError;
use super::{Function, ImportReport, ImportState, SharedDevice, answers, lock};
use peerdma::addr::GuestPhys;
use peerdma::buffer::config_write::{Change, ConfigWrite, NotAWrite, Register, Target, Unread};
use peerdma::buffer::life::{Answers, Disturbance};
use peerdma::buffer::shared::{Disturbed, Disturbing, Held, Wake};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that is done to a device as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Deed<'a> {
    /// A reset, whichever way the kernel prefers.
    Reset,
    /// A reset by the function's own registers.
    FunctionReset,
    /// A reset of everything below the bridge above, with the groups to show.
    HotReset(&'a [ShownGroup<'a>]),
    /// A write to config space, a guest's mostly; what it does to memory is read out of it.
    Config(ConfigWrite<'a>),
    /// Sleep; an eventfd, if there is one, is signalled when something wakes it.
    LowPower(Option<BorrowedFd<'a>>),
    /// The end of sleep.
    Wake,
    /// A guest sees a BAR somewhere else from now on, which the device is not told: a monitor's that keeps BAR registers itself.
    /// What goes there is said with [`perform_placing`](SharedDevice::perform_placing); by itself it moves nothing.
    BarMove {
        /// Which.
        bar: BarIndex,
        /// Where the guest sees its start.
        to: GuestPhys,
    },
    /// The end of all use.
    Close,
}

impl<'a> Deed<'a> {
    /// A write to config space.
    ///
    /// # Errors
    /// [`NotAWrite`] for what is none.
    pub fn config(offset: u16, bytes: &'a [u8]) -> Result<Self, NotAWrite> {
        Ok(Self::Config(ConfigWrite::new(offset, bytes)?))
    }
}

impl fmt::Display for Deed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What came of a deed that was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// What a write to config space did to memory.
    pub changes: Vec<Change>,
    /// Whether memory answers now; `None` of a device that was closed.
    pub answers: Option<Answers>,
    /// Imports that are to be mapped now and are not; those that are [required](super::Need::Required) first.
    pub unrestored: Vec<ImportReport>,
}

/// One at a time does something to a device.
#[derive(Default)]
pub(super) struct Turn {
    taken: Mutex<bool>,
    given_back: Condvar,
}

struct Taken<'d>(&'d Turn);

impl Turn {
    fn take(&self, patience: Duration) -> Option<Taken<'_>> {
        let taken = lock(&self.taken);
        let waited = self.given_back.wait_timeout_while(taken, patience, |taken| *taken);
        let (mut taken, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if *taken && late.timed_out() {
            return None;
        }
        *taken = true;
        Some(Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) = false;
        self.0.given_back.notify_one();
    }
}

/// A deed that importers have been told of, and that must not happen yet. Dropping it gives it up.
#[must_use = "dropping it gives the deed up"]
pub struct Announced<'d, F: Function> {
    device: &'d SharedDevice<F>,
    deed: Deed<'d>,
    changes: Vec<Change>,
    disturbing: Vec<Disturbing>,
    shuts: bool,
    _turn: Taken<'d>,
}

/// A deed that may happen: nobody reaches the memory. Dropping it gives it up.
#[must_use = "dropping it gives the deed up"]
pub struct Quiet<'d, F: Function> {
    device: &'d SharedDevice<F>,
    deed: Deed<'d>,
    changes: Vec<Change>,
    disturbed: Vec<Disturbed>,
    shut: Shut<'d, F>,
    _turn: Taken<'d>,
}

/// The door, shut; opened again if nobody says otherwise.
struct Shut<'d, F: Function> {
    device: &'d SharedDevice<F>,
    reopens: bool,
}

impl<F: Function> Drop for Shut<'_, F> {
    fn drop(&mut self) {
        if self.reopens {
            self.device.0.door.open();
        }
    }
}

impl<F: Function> SharedDevice<F> {
    /// Does something to the device: tells importers, waits until they and CPU accesses are out, does it, and lets them
    /// back in. Blocks for `patience` at most, and then for as long as the kernel takes.
    ///
    /// Importers' callbacks run on this thread and must not do anything to the device.
    ///
    /// # Errors
    /// [`DeedError::Busy`], [`Closed`](DeedError::Closed), [`Refused`](DeedError::Refused) and [`Late`](DeedError::Late):
    /// nothing was done. The others: the kernel refused, and importers may map again where the memory answers.
    pub fn perform(&self, deed: Deed<'_>, patience: Duration) -> Result<Outcome, DeedError> {
        self.quiet_within(deed, patience)?.act()
    }

    /// Announces a deed and waits, `patience` at most for both.
    pub(super) fn quiet_within<'d>(&'d self, deed: Deed<'d>, patience: Duration) -> Result<Quiet<'d, F>, DeedError> {
        let until = Instant::now().checked_add(patience);
        let announced = self.announce_within(deed, patience)?;
        announced.wait(until.map_or(patience, |until| until.saturating_duration_since(Instant::now())))
    }

    /// Tells importers what is to be done. Waits for nobody.
    ///
    /// # Errors
    /// [`DeedError::Busy`], [`DeedError::Closed`], [`DeedError::Refused`]: nothing is announced.
    pub fn announce<'d>(&'d self, deed: Deed<'d>) -> Result<Announced<'d, F>, DeedError> {
        self.announce_within(deed, Duration::ZERO)
    }

    fn announce_within<'d>(&'d self, deed: Deed<'d>, patience: Duration) -> Result<Announced<'d, F>, DeedError> {
        let device = self.address();
        let turn = self.0.turn.take(patience).ok_or(DeedError::Busy { device })?;
        let config = self.with(|function| match deed {
            Deed::Config(_) => Ok((Some(function.config_space()?), function.bars())),
            _ => Ok::<_, ConfigError>((None, function.bars())),
        });
        let (config, sizes) = config.ok_or(DeedError::Closed { device })??;
        let changes = match (deed, &config) {
            (Deed::Config(write), Some(config)) => {
                write.classify(&Target { config, is_virtual: self.0.is_virtual, bars: sizes.map(Some), rom: None })
            }
            _ => Vec::new(),
        };
        let mut disturbing = Vec::new();
        let mut shuts = false;
        for (what, bar) in disturbances(deed, &changes) {
            shuts |= what != Disturbance::BarMove;
            for (index, of) in self.0.bars.iter().enumerate() {
                if bar.is_none_or(|bar| usize::from(bar) == index) {
                    let begun = of.disturb(what);
                    disturbing.push(begun.map_err(|refused| DeedError::Refused {
                        device,
                        deed: deed.word(),
                        refused,
                    })?);
                }
            }
        }
        Ok(Announced { device: self, deed, changes, disturbing, shuts, _turn: turn })
    }

    /// Says that the device is gone: nobody asked. Importers are told, windows are shut for good, and whatever is under way
    /// ends as one of a closed device. Blocks while the kernel is at something with it, and for one CPU access at most.
    ///
    /// Returns who has not let go; whatever they do reads all ones or goes nowhere. Called again it asks them again.
    ///
    /// Not for importers' callbacks, nor inside [`with`](Self::with), which lends what is taken away here.
    pub fn removed(&self) -> Vec<Held> {
        let begun: Vec<_> = self.0.bars.iter().filter_map(|bar| bar.disturb(Disturbance::Removal).ok()).collect();
        // Accesses end by themselves; nobody waits for one here, and the mappings go when the last has ended.
        let _ = self.0.door.shut(Duration::ZERO);
        self.0.let_go_of_function();
        // Some let go only when they are asked to look.
        let late = begun.iter().filter(|disturbing| !disturbing.is_quiet());
        late.flat_map(Disturbing::held).collect()
    }

    /// Whether memory answers, as registers say now. One that sleeps is not asked, as that would wake it.
    fn answers(&self) -> Option<Result<Answers, ConfigError>> {
        if *lock(&self.0.asleep) {
            return self.with(|_| Ok(Answers { decoding: true, powered: false }));
        }
        self.with(|function| answers(function, self.0.is_virtual))
    }

    fn unrestored(&self) -> Vec<ImportReport> {
        let is_out = |report: &ImportReport| matches!(report.state, ImportState::Failed(_) | ImportState::Stuck(_));
        let mut out: Vec<ImportReport> = self.imports().into_iter().filter(is_out).collect();
        out.sort_by_key(|report| report.need);
        out
    }
}

impl Deed<'_> {
    const fn word(&self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::FunctionReset => "function-level reset",
            Self::HotReset(_) => "hot reset",
            Self::Config(_) => "write to config space",
            Self::LowPower(_) => "low power",
            Self::Wake => "waking",
            Self::BarMove { .. } => "move of a BAR",
            Self::Close => "closing",
        }
    }
}

/// What to announce, and of which BAR where it is about one.
///
/// What ends a state is announced as the state: importers have let go long since, and hear of the end.
fn disturbances(deed: Deed<'_>, changes: &[Change]) -> Vec<(Disturbance, Option<u8>)> {
    let whole = |what| vec![(what, None)];
    match deed {
        Deed::Reset => whole(Disturbance::Reset),
        Deed::FunctionReset => whole(Disturbance::FunctionReset),
        Deed::HotReset(_) => whole(Disturbance::HotReset),
        Deed::LowPower(_) | Deed::Wake => whole(Disturbance::PowerDown),
        Deed::BarMove { bar, .. } => vec![(Disturbance::BarMove, Some(bar.as_u8()))],
        Deed::Close => whole(Disturbance::Close),
        Deed::Config(_) => {
            let about = |change: &Change| {
                let what = change.begins().or_else(|| change.ends())?;
                match change {
                    Change::BarMove { register: Register::Bar(bar), .. }
                    | Change::Unknown(Unread::Address(Register::Bar(bar))) => Some((what, Some(*bar))),
                    // Nothing of the ROM is exported.
                    Change::BarMove { register: Register::Rom, .. } | Change::Unknown(Unread::Address(_)) => None,
                    _ => Some((what, None)),
                }
            };
            changes.iter().filter_map(about).collect()
        }
    }
}

impl<'d, F: Function> Announced<'d, F> {
    /// What a write to config space is about to do to memory.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether nobody has it mapped any more, so that [`wait`](Self::wait) waits for CPU accesses at most.
    pub fn is_quiet(&self) -> bool {
        self.disturbing.iter().all(Disturbing::is_quiet)
    }

    /// Calls `wake` whenever one of the buffers becomes quiet, for who waits for other things too; look with
    /// [`is_quiet`](Self::is_quiet). As [`Disturbing::wake`].
    pub fn wake(&self, wake: &Arc<dyn Wake>) {
        self.disturbing.iter().for_each(|disturbing| disturbing.wake(wake));
    }

    /// Who holds on.
    pub fn held(&self) -> Vec<Held> {
        self.disturbing.iter().flat_map(Disturbing::held).collect()
    }

    /// Blocks until nobody reaches the memory, for at most `patience`.
    ///
    /// # Errors
    /// [`DeedError::Late`], with who holds on; the deed is given up.
    pub fn wait(self, patience: Duration) -> Result<Quiet<'d, F>, DeedError> {
        let until = Instant::now().checked_add(patience);
        let left = || until.map_or(patience, |until| until.saturating_duration_since(Instant::now()));
        let address = self.device.address();
        let mut disturbed = Vec::new();
        for disturbing in self.disturbing {
            let quiet = disturbing.wait(left());
            let late = |late: peerdma::buffer::shared::Late| DeedError::Late {
                device: address,
                held: late.held,
                inside: Vec::new(),
            };
            disturbed.push(quiet.map_err(late)?);
        }
        let mut shut = Shut { device: self.device, reopens: false };
        if self.shuts {
            // As it was before, if this is given up.
            shut.reopens = matches!(self.device.answers(), Some(Ok(Answers::YES)));
            let shutting = self.device.0.door.shut(left());
            shutting.map_err(|inside| DeedError::Late { device: address, held: Vec::new(), inside })?;
        }
        Ok(Quiet { device: self.device, deed: self.deed, changes: self.changes, disturbed, shut, _turn: self._turn })
    }
}

impl<'d, F: Function> Quiet<'d, F> {
    /// Does it, reads the registers, and lets everybody back in whom they let.
    ///
    /// # Errors
    /// The kernel's refusal; what the registers say holds all the same.
    pub fn act(self) -> Result<Outcome, DeedError> {
        self.act_then(|_, _| ()).1
    }

    /// Does it, and what is given after it if it succeeds, before it lets anybody back in.
    pub(super) fn act_then<T>(self, then: impl FnOnce(&F, Deed<'_>) -> T) -> (Option<T>, Result<Outcome, DeedError>) {
        let device = self.device;
        match device.with(|function| act(function, self.deed).map(|()| then(function, self.deed))) {
            Some(Ok(then)) => (Some(then), self.end(Ok(()))),
            Some(Err(error)) => (None, self.end(Err(error))),
            None => (None, Err(DeedError::Closed { device: device.address() })),
        }
    }

    pub(super) fn device(&self) -> &'d SharedDevice<F> {
        self.device
    }

    pub(super) fn deed(&self) -> Deed<'d> {
        self.deed
    }

    /// Says that it has been done together with another device: a hot reset, which is asked of one and meant for all.
    ///
    /// Announce it to each of them, wait for each, let one [`act`](Self::act), and say this of the others.
    ///
    /// # Errors
    /// [`DeedError::Config`] where the registers do not answer.
    pub fn done_with_another(self) -> Result<Outcome, DeedError> {
        self.end(Ok(()))
    }

    fn end(mut self, done: Result<(), DeedError>) -> Result<Outcome, DeedError> {
        let device = self.device;
        match self.deed {
            Deed::LowPower(_) if done.is_ok() => *lock(&device.0.asleep) = true,
            Deed::Wake if done.is_ok() => *lock(&device.0.asleep) = false,
            Deed::Close => device.0.let_go_of_function(),
            _ => {}
        }
        let read = device.answers();
        let answers = match &read {
            Some(Ok(answers)) => Some(*answers),
            // Registers that are not read promise nothing.
            Some(Err(_)) => Some(Answers { decoding: false, powered: false }),
            None => None,
        };
        self.shut.reopens = answers == Some(Answers::YES);
        // Before importers come back, so that one of them may look.
        drop(self.shut);
        for disturbed in self.disturbed {
            match answers {
                Some(answers) => disturbed.done_answering(answers),
                None => disturbed.done(),
            }
        }
        done?;
        if let Some(Err(error)) = read {
            return Err(error.into());
        }
        Ok(Outcome { changes: self.changes, answers, unrestored: device.unrestored() })
    }
}

fn act<F: Function>(function: &F, deed: Deed<'_>) -> Result<(), DeedError> {
    match deed {
        Deed::Reset => function.reset()?,
        Deed::FunctionReset => function.function_reset()?,
        Deed::HotReset(groups) => function.hot_reset(groups)?,
        Deed::Config(write) => function.write_config(write.offset(), write.bytes())?,
        Deed::LowPower(wakeup) => function.enter_low_power(wakeup)?,
        Deed::Wake => function.exit_low_power()?,
        Deed::BarMove { .. } | Deed::Close => {}
    }
    Ok(())
}

impl<F: Function> fmt::Debug for Announced<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, announced", self.deed, self.device.address())
    }
}

impl<F: Function> fmt::Debug for Quiet<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, nobody in the way", self.deed, self.device.address())
    }
}
