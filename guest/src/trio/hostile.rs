//! A process that holds on, and a device that goes, wherever its memory is in its life.

use super::child::Other;
use super::owner::Owner;
use super::rounds::{COMMAND, OFF, Round, one, quiet};
use super::{LONG, Stop};
use crate::checks::{Via, equal};
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Disturbance, Phase};
use peerdma::buffer::shared::Held;
use peerdma_linux::share::WaitDeedError;
use peerdma_linux::vfio::shared::{Announced, DeedError, ImportState, WindowError};
use peerdma_linux::vfio::{Deed, InterruptEvent, InterruptKind, SharedDevice, VfioDevice};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A process that maps the memory and does not let go.
pub(super) fn holds_on<S: Via>(owner: &mut Owner<S>) -> Result<(), Stop> {
    let mut hog = Other::start("hog", owner.socket())?;
    owner.serve_until("the other process has mapped it too", |open| open.mappings_of("hog") == 1)?;
    hog.says("holds")?;
    let device = owner.now()?.device.clone();
    let announced = device.announce(Deed::Reset)?;
    owner.serve_until("the virtual machine's process has let go", |open| open.mappings_of("vmm") == 0)?;
    owner.vmm.says("stopped")?;
    hog.says("stays")?;
    // One line for each thing that is outstanding: its note, its mapping.
    let held = announced.held().into_iter().filter_map(|held| held.holder);
    let names: BTreeSet<String> = held.map(|holder| holder.name).collect();
    equal("who holds on", &BTreeSet::from(["hog".to_string()]), &names)?;
    match owner.now()?.exporter.wait_deed(announced, Instant::now()) {
        Err(WaitDeedError::Deed(error @ DeedError::Late { .. })) => {
            equal("whether it is named", &true, &error.to_string().contains("hog"))?;
        }
        other => return Err(Stop::broken(format!("expected a deadline, seen {other:?}"))),
    }
    // Nothing was done, and who had let go comes back.
    owner.serve_until("the virtual machine's process has mapped it anew", |open| open.mappings_of("vmm") == 1)?;
    owner.vmm.says("runs")?;
    hog.end()?;
    owner.serve_until("the other process has gone", |open| open.exporter.importers().count() == 1)?;
    one(owner, Round::Reset, false)
}

/// Where in the life of its memory a device goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    /// A reset is announced, and the virtual machine's process, which is stopped, does not answer.
    Announced,
    /// Everybody has it mapped; the guest stores and the engine writes.
    InUse,
    /// Memory space is off.
    Off,
    /// The kernel has it asleep.
    Asleep,
    /// It was reset, the engine has mapped it anew, and the virtual machine's process, which is stopped, has not.
    ComingBack,
}

impl When {
    pub(super) const ALL: [Self; 5] = [Self::Announced, Self::InUse, Self::Off, Self::Asleep, Self::ComingBack];

    /// What is claimed of it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Announced => "in the middle of a reset",
            Self::InUse => "under a guest's stores and an engine's writes",
            Self::Off => "while its memory is off",
            Self::Asleep => "in its sleep",
            Self::ComingBack => "while its memory comes back from a reset",
        }
    }

    /// Whether the virtual machine's process does not answer meanwhile.
    fn is_deaf(self) -> bool {
        matches!(self, Self::Announced | Self::ComingBack)
    }
}

/// The device goes, and comes back as another one.
///
/// The kernel's way to take a device from VFIO: it asks for it, and waits until it is closed (Linux 7.2
/// `vfio_unregister_group_dev`). What is left behind it is as after a card that was pulled.
pub(super) fn removed<S: Via>(mut owner: Owner<S>, when: When) -> Result<Owner<S>, Stop> {
    let function = owner.target.function.to_string();
    let asked = InterruptEvent::new()?;
    let device = owner.now()?.device.clone();
    let enabled = device.with(|device| device.enable_interrupts(InterruptKind::Release, 0, &[Some(asked.as_fd())]));
    enabled.ok_or_else(|| Stop::broken("the device is closed"))??;
    let announced = comes_to(&mut owner, &device, when)?;
    let goes = || taken(&device, &function, &asked);
    let (removing, held) = if when == When::InUse { owner.sending_meanwhile(goes)?? } else { goes()? };
    let is_named = held.into_iter().filter_map(|held| held.holder).any(|holder| holder.name == "vmm");
    equal("whether who cannot have let go is named", &true, &(is_named || !when.is_deaf()))?;
    drop(announced);
    let open = owner.now()?;
    let access = open.window.load_u32(Bytes::ZERO);
    equal("whether the CPU's access is an error", &true, &matches!(access, Err(WindowError::Closed { .. })))?;
    owner.send()?;
    if when.is_deaf() {
        owner.vmm.go_on()?;
    }
    owner.serve_until("the virtual machine's process has gone", |open| open.exporter.importers().next().is_none())?;
    owner.vmm.says_at_last("gone")?;
    let open = owner.now()?;
    equal("the buffer", &Phase::Dead, &open.exporter.buffer().phase())?;
    equal("the engine's import", &ImportState::Gone, &open.import.state())?;
    let late = device.perform(Deed::Reset, LONG);
    equal("whether a later reset is refused", &true, &matches!(late, Err(DeedError::Closed { .. })))?;
    drop(device);
    owner.close();
    match removing.join() {
        Ok(written) => written?,
        Err(_) => return Err(Stop::broken("the thread that removes panicked")),
    }
    equal("whether it is there", &false, &Path::new("/sys/bus/pci/devices").join(&function).exists())?;
    let (edu, target) = (owner.edu, owner.target);
    // Address space and processes too: an old space knows the group of a device that has gone.
    drop(owner);
    comes_back(&function)?;
    let mut owner = Owner::open(edu, target)?;
    owner.joined()?;
    Ok(owner)
}

/// Brings everything to where the device is to go. What is announced then, if anything.
fn comes_to<'d, S: Via>(
    owner: &mut Owner<S>,
    device: &'d SharedDevice,
    when: When,
) -> Result<Option<Announced<'d, VfioDevice>>, Stop> {
    match when {
        When::InUse => {}
        When::Announced => {
            owner.vmm.pause()?;
            return Ok(Some(device.announce(Deed::Reset)?));
        }
        When::Off => drop(quiet(owner, device, Deed::config(COMMAND, &OFF)?, Disturbance::DecodeOff)?.act()?),
        When::Asleep => drop(quiet(owner, device, Deed::LowPower(None), Disturbance::PowerDown)?.act()?),
        When::ComingBack => {
            let quiet = quiet(owner, device, Deed::Reset, Disturbance::Reset)?;
            owner.vmm.pause()?;
            drop(quiet.act()?);
            let state = owner.now()?.import.state();
            equal("whether the engine has it mapped anew", &true, &matches!(state, ImportState::Mapped(_)))?;
        }
    }
    Ok(None)
}

/// Has the kernel remove it, and gives it back when it is asked for. The thread in which it is removed, and who had not let go.
fn taken(
    device: &SharedDevice,
    function: &str,
    asked: &InterruptEvent,
) -> Result<(thread::JoinHandle<io::Result<()>>, Vec<Held>), Stop> {
    let path = format!("/sys/bus/pci/devices/{function}/remove");
    let removing = thread::spawn(move || fs::write(path, "1"));
    equal("whether the kernel asks for it", &true, &asked.wait(LONG)?.is_some())?;
    Ok((removing, device.removed()))
}

/// Finds the device again, and gives it to vfio-pci.
fn comes_back(function: &str) -> Result<(), Stop> {
    fs::write("/sys/bus/pci/rescan", "1")?;
    let folder = Path::new("/sys/bus/pci/devices").join(function);
    let until = Instant::now() + LONG;
    while !folder.join("driver_override").exists() {
        if Instant::now() > until {
            return Err(Stop::broken("it is not found again"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    fs::write(folder.join("driver_override"), "vfio-pci")?;
    Ok(fs::write("/sys/bus/pci/drivers_probe", function)?)
}
