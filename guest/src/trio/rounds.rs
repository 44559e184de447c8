//! Disturbances, drawn from a seed: each is announced, waited for, looked at, done, and looked at again.

use super::owner::{Owner, back_door, bytes, counter_and_mark};
use super::{LONG, Stop};
use crate::checks::{Via, equal};
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Answers, Disturbance, Phase};
use peerdma_linux::vfio::shared::{ImportState, Quiet, WindowError};
use peerdma_linux::vfio::{Deed, SharedDevice, VfioDevice};
use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

/// What is done in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Round {
    Reset,
    OffAndOn,
    /// To D3 by the power management capability at this place in config space, and back.
    Sleep(u16),
    Anew,
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    resets: u32,
    switchings: u32,
    closings: u32,
    seed: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resets, switchings, closings, seed } = self;
        write!(
            f,
            "{resets} resets, {switchings} times off and on, {closings} times closed and exported anew, seed {seed}"
        )
    }
}

/// SplitMix64, so that a seed means the same rounds everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn round(&mut self) -> Round {
        match self.next() % 5 {
            0 | 1 => Round::Reset,
            2 | 3 => Round::OffAndOn,
            _ => Round::Anew,
        }
    }
}

/// After how many rounds it is told how far they are; a thousand take minutes.
const TOLD: u32 = 50;

/// All rounds, or as many as end well.
pub(super) fn all<S: Via>(owner: &mut Owner<S>, rounds: u32, seed: u64) -> (Figures, Result<(), Stop>) {
    let (mut draw, mut figures) = (Draw(seed), Figures { seed, ..Figures::default() });
    for number in 0..rounds {
        let what = draw.round();
        if let Err(stop) = one(owner, what, draw.next() & 1 == 1) {
            let (Stop::Broken(why) | Stop::DoesNotApply(why)) = stop;
            return (figures, Err(Stop::Broken(format!("round {number}, {what:?}: {why}"))));
        }
        if (number + 1) % TOLD == 0 {
            // Nobody has to listen.
            let _ = writeln!(io::stderr(), "peerdma-guest: {} of {rounds} rounds", number + 1);
        }
        *match what {
            Round::Reset => &mut figures.resets,
            Round::OffAndOn | Round::Sleep(_) => &mut figures.switchings,
            Round::Anew => &mut figures.closings,
        } += 1;
    }
    (figures, Ok(()))
}

/// One round; `meanwhile`: the engine also writes while the memory does not answer.
pub(super) fn one<S: Via>(owner: &mut Owner<S>, what: Round, meanwhile: bool) -> Result<(), Stop> {
    let (deed, cause) = match what {
        Round::Reset => (Deed::Reset, Disturbance::Reset),
        Round::OffAndOn => (Deed::config(COMMAND, &OFF)?, Disturbance::DecodeOff),
        Round::Sleep(at) => (Deed::config(at + CONTROL, &D3)?, Disturbance::PowerDown),
        Round::Anew => (Deed::Close, Disturbance::Close),
    };
    owner.mark()?;
    let device = owner.now()?.device.clone();
    let quiet = quiet(owner, &device, deed, cause)?;
    let (held, counter) = nothing_lands(owner, &device)?;
    let outcome = quiet.act()?;
    match what {
        Round::Reset => equal("what answers after a reset", &Some(Answers::YES), &outcome.answers)?,
        Round::OffAndOn | Round::Sleep(_) => {
            out_of_reach(owner, &ImportState::Away(cause), |error| matches!(error, WindowError::Away { .. }))?;
            if meanwhile {
                owner.send()?;
            }
            let back = match what {
                Round::Sleep(at) => Deed::config(at + CONTROL, &D0)?,
                _ => Deed::config(COMMAND, &ON)?,
            };
            let on = device.announce(back)?;
            let quiet = owner.now()?.exporter.wait_deed(on, Instant::now() + LONG)?;
            let outcome = quiet.act()?;
            equal("what answers when it is on", &Some(Answers::YES), &outcome.answers)?;
        }
        Round::Anew => {
            closed(owner)?;
            drop(device);
            owner.close();
            let device = owner.device()?;
            if meanwhile {
                owner.send()?;
            }
            let door = back_door(&device, owner.target)?;
            equal("whether the memory opened again is as it was", &true, &(bytes(&door)? == held))?;
            drop(door);
            owner.share(device)?;
            owner.vmm.tell("attach")?;
        }
    }
    owner.serve_until("the virtual machine's process has mapped it anew", |open| open.mappings() == 1)?;
    owner.vmm.says("runs")?;
    owner.goes_on(counter)?;
    let mut seen = vec![0; owner.marked().len()];
    let mark_at = Bytes::new(held.len() as u64 - seen.len() as u64);
    owner.now()?.window.read(mark_at, &mut seen)?;
    equal("whether the memory holds what it was marked with", &true, &(seen == owner.marked()))?;
    owner.arrives()
}

/// The Command register without and with memory space.
pub(super) const OFF: [u8; 2] = 0x0_u16.to_le_bytes();
const ON: [u8; 2] = 0x2_u16.to_le_bytes();

/// Where the Command register is, and where a power management capability has its state (PCI PM 1.2 §3.2.4), with two states.
pub(super) const COMMAND: u16 = 0x04;
const CONTROL: u16 = 4;
const D0: [u8; 1] = [0];
const D3: [u8; 1] = [3];

/// Announces a deed, and waits until nobody reaches the memory: the guest has met that, and so do the engine and the CPU.
pub(super) fn quiet<'d, S: Via>(
    owner: &mut Owner<S>,
    device: &'d SharedDevice,
    deed: Deed<'d>,
    cause: Disturbance,
) -> Result<Quiet<'d, VfioDevice>, Stop> {
    let announced = device.announce(deed)?;
    let quiet = owner.now()?.exporter.wait_deed(announced, Instant::now() + LONG)?;
    owner.vmm.says("stopped")?;
    // What is to be closed and reached by nobody is gone already.
    let state = if cause == Disturbance::Close { ImportState::Gone } else { ImportState::Away(cause) };
    out_of_reach(owner, &state, |error| matches!(error, WindowError::Away { .. }))?;
    Ok(quiet)
}

fn out_of_reach<S: Via>(
    owner: &mut Owner<S>,
    state: &ImportState,
    is_so: impl Fn(&WindowError) -> bool,
) -> Result<(), Stop> {
    let open = owner.now()?;
    equal("the engine's import", state, &open.import.state())?;
    match open.window.load_u32(Bytes::ZERO) {
        Err(error) if is_so(&error) => Ok(()),
        other => Err(Stop::broken(format!("the CPU's access ended with {other:?}"))),
    }
}

/// The memory still answers and nobody may reach it: while the engine writes, not a byte of it changes. What it holds, and the
/// guest's counter in it.
fn nothing_lands<S: Via>(owner: &mut Owner<S>, device: &SharedDevice) -> Result<(Vec<u8>, u32), Stop> {
    let door = back_door(device, owner.target)?;
    let held = bytes(&door)?;
    owner.send()?;
    equal("whether the memory is as it was, after the engine wrote", &true, &(bytes(&door)? == held))?;
    let (counter, mark) = counter_and_mark(&held)?;
    equal("whether it holds what it was marked with", &true, &(mark == owner.marked()))?;
    Ok((held, counter))
}

/// After a close: everybody has been told that it is for good, and has gone.
fn closed<S: Via>(owner: &mut Owner<S>) -> Result<(), Stop> {
    out_of_reach(owner, &ImportState::Gone, |error| matches!(error, WindowError::Closed { .. }))?;
    equal("the buffer", &Phase::Dead, &owner.now()?.exporter.buffer().phase())?;
    owner.serve_until("the virtual machine's process has gone", |open| open.exporter.importers().next().is_none())?;
    owner.vmm.says("gone")
}

/// Closes for good, and leaves what the memory held to the host under a name; it has the file behind the memory.
pub(super) fn last<S: Via>(mut owner: Owner<S>, name: &str) -> Result<(), Stop> {
    owner.mark()?;
    let device = owner.now()?.device.clone();
    let quiet = quiet(&mut owner, &device, Deed::Close, Disturbance::Close)?;
    let (held, _) = nothing_lands(&mut owner, &device)?;
    quiet.act()?;
    closed(&mut owner)?;
    owner.send()?;
    Ok(std::fs::write(format!("/out/{name}"), held)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_all_kinds_of_rounds_and_the_same_each_time() {
        let drawn = |seed| {
            let mut draw = Draw(seed);
            (0..50).map(|_| draw.round()).collect::<Vec<_>>()
        };
        for seed in 0..20 {
            let rounds = drawn(seed);
            assert_eq!(rounds, drawn(seed));
            for what in [Round::Reset, Round::OffAndOn, Round::Anew] {
                assert!(rounds.iter().filter(|round| **round == what).count() >= 3, "seed {seed}: {rounds:?}");
            }
        }
        assert_ne!(drawn(1), drawn(2));
    }
}
