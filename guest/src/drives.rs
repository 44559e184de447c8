//! NVMe drives, and the patience to wait for their driver.
//!
//! The driver probes in its own time, after whatever loaded it has returned, and an
//! emulated machine under load has little of it.

use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// NVMe controllers (PCI Code and ID Assignment 1.15 §1.2).
const CLASS: &str = "0x010802";
/// How long a drive may take; some seconds were seen with five guests on two cores, and a completion whose interrupt is lost is
/// looked for after 30 s, one of the drive's setup after 60 s (`nvme_timeout`).
const PATIENCE: Duration = Duration::from_secs(150);

/// Folders of all physical NVMe functions in sysfs, in order of addresses.
///
/// # Errors
/// Sysfs cannot be read.
pub(crate) fn functions() -> Result<Vec<PathBuf>, Failure> {
    let devices = Path::new("/sys/bus/pci/devices");
    let mut found = Vec::new();
    for entry in fs::read_dir(devices).map_err(Failure::file("list", devices))? {
        let device = entry.map_err(Failure::file("list", devices))?.path();
        let class = device.join("class");
        let class = fs::read_to_string(&class).map_err(Failure::file("read", &class))?;
        if class.trim() == CLASS && !device.join("physfn").exists() {
            found.push(device);
        }
    }
    found.sort();
    Ok(found)
}

/// Waits until a function satisfies `ready`; blocks for [`PATIENCE`] at most.
///
/// # Errors
/// It does not, with `what` it was to have.
pub(crate) fn wait(device: &Path, what: &'static str, ready: impl Fn(&Path) -> bool) -> Result<(), Failure> {
    let started = Instant::now();
    while !ready(device) {
        if started.elapsed() > PATIENCE {
            return Err(Failure::NotReady { device: device.to_path_buf(), what, waited: PATIENCE });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The folder of a function's controller below `nvme`, once the driver runs it.
pub(crate) fn live_controller(device: &Path) -> Option<PathBuf> {
    let entry = fs::read_dir(device.join("nvme")).ok()?.next()?.ok()?.path();
    let state = fs::read_to_string(entry.join("state")).ok()?;
    (state.trim() == "live").then_some(entry)
}
