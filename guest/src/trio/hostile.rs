//! A process that holds on, and a device that goes in the middle of a deed.

use super::child::Other;
use super::owner::Owner;
use super::rounds::{Round, one};
use super::{LONG, Stop};
use crate::checks::{Via, equal};
use peerdma::addr::Bytes;
use peerdma::buffer::life::Phase;
use peerdma_linux::share::WaitDeedError;
use peerdma_linux::vfio::shared::{DeedError, ImportState, WindowError};
use peerdma_linux::vfio::{Deed, InterruptEvent, InterruptKind};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
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

/// The device goes while a reset is announced, and the virtual machine's process, which is stopped, does not answer.
///
/// The kernel's way to take a device from VFIO: it asks for it, and waits until it is closed (Linux 7.2
/// `vfio_unregister_group_dev`). What is left behind it is as after a card that was pulled.
pub(super) fn removed<S: Via>(mut owner: Owner<S>) -> Result<Owner<S>, Stop> {
    let function = owner.target.function.to_string();
    let asked = InterruptEvent::new()?;
    let device = owner.now()?.device.clone();
    let enabled = device.with(|device| device.enable_interrupts(InterruptKind::Release, 0, &[Some(asked.as_fd())]));
    enabled.ok_or_else(|| Stop::broken("the device is closed"))??;
    owner.vmm.signal(Signal::STOP)?;
    let announced = device.announce(Deed::Reset)?;
    let removing = {
        let path = format!("/sys/bus/pci/devices/{function}/remove");
        thread::spawn(move || fs::write(path, "1"))
    };
    equal("whether the kernel asks for it", &true, &asked.wait(LONG)?.is_some())?;
    let held = device.removed();
    let names: Vec<_> = held.into_iter().filter_map(|held| held.holder.map(|holder| holder.name)).collect();
    equal("whether who has not let go is named", &true, &names.iter().any(|name| name == "vmm"))?;
    drop(announced);
    let open = owner.now()?;
    let access = open.window.load_u32(Bytes::ZERO);
    equal("whether the CPU's access is an error", &true, &matches!(access, Err(WindowError::Closed { .. })))?;
    owner.send()?;
    owner.vmm.signal(Signal::CONT)?;
    owner.serve_until("the virtual machine's process has gone", |open| open.exporter.importers().next().is_none())?;
    owner.vmm.says_at_last("gone")?;
    let open = owner.now()?;
    equal("the buffer", &Phase::Dead, &open.exporter.buffer().phase())?;
    equal("the engine's import", &ImportState::Gone, &open.import.state())?;
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
    one(&mut owner, Round::OffAndOn, true)?;
    Ok(owner)
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
