//! What a guest with a graphics device asks of this machine.

use super::cache;
use super::machine::Machine;
use super::process::{bound, output};
use crate::failure::Failure;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

const SOURCE: &str = include_str!("../../../vm/udmabuf.c");

/// Opened by QEMU for a virtio-gpu that takes the guest's own memory.
const UDMABUF: &str = "/dev/udmabuf";

/// A library to preload into QEMU for this machine, built once; `None` where it is not needed.
///
/// # Errors
/// There is no C compiler, which Rust needs too.
pub(super) fn needs(top: &Path, machine: &Machine) -> Result<Option<PathBuf>, Failure> {
    let takes_guest_memory = machine.devices.iter().any(|device| device.contains("blob=on"));
    if !takes_guest_memory || OpenOptions::new().read(true).write(true).open(UDMABUF).is_ok() {
        return Ok(None);
    }
    let name = format!("udmabuf-{}", cache::digest(&[SOURCE.as_bytes()]));
    let folder = cache::folder(top, &name, |at| {
        let source = at.join("udmabuf.c");
        fs::write(&source, SOURCE).map_err(|error| Failure::io("write", &source, &error))?;
        let mut compiler = bound("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(at.join("udmabuf.so")).arg(&source);
        output(compiler, "build what QEMU takes for /dev/udmabuf").map(drop)
    })?;
    Ok(Some(folder.join("udmabuf.so")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::machine::{Iommu, Memory};

    #[test]
    fn a_machine_without_a_graphics_device_gets_nothing_preloaded() {
        let devices = vec!["-device".into(), "edu".into()];
        let (cmdline, memory) = (Vec::new(), Memory::Usual);
        let machine = Machine { cpu: "qemu64".into(), iommu: Iommu::Intel, devices, cmdline, memory };
        assert_eq!(needs(Path::new("/nonexistent"), &machine).unwrap(), None);
    }
}
