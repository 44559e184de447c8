//! Makes virtual functions appear, as an administrator does: a number into `sriov_numvfs`.

use crate::drives;
use crate::failure::Failure;
use std::fs;

/// Makes `count` virtual functions of each NVMe drive that can have them, or as many as it
/// can have; the number of drives.
///
/// Drives are what QEMU has with SR-IOV and every kernel of the suite with a driver. Virtual
/// functions get no driver: they are there to be asked about, and probing them takes time.
/// Blocks until every such drive has its own driver.
///
/// # Errors
/// A drive that gets no driver, or whose driver refuses; what was made before stays.
pub(crate) fn make(count: u16) -> Result<usize, Failure> {
    let mut drives_asked = 0;
    for device in drives::functions()? {
        // Absent where the function has no SR-IOV.
        let most = fs::read_to_string(device.join("sriov_totalvfs")).unwrap_or_default();
        let Some(most) = most.trim().parse().ok().filter(|&most: &u16| most > 0) else { continue };
        drives::wait(&device, "driver", |device| device.join("driver").exists())?;
        let write = |file: &str, text: &str| {
            let path = device.join(file);
            fs::write(&path, text).map_err(Failure::file("write", &path))
        };
        write("sriov_drivers_autoprobe", "0")?;
        write("sriov_numvfs", &count.min(most).to_string())?;
        drives_asked += 1;
    }
    Ok(drives_asked)
}
