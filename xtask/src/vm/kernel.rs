//! A kernel to boot, wherever it came from.

use std::path::{Path, PathBuf};

/// A kernel image and the modules that fit it.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// What `uname -r` says in the guest, as far as it is known before the boot.
    pub(super) release: String,
    /// The bootable image.
    pub(super) image: PathBuf,
    /// The folder that holds `lib/modules/RELEASE`, with `modules.dep`; none where everything is built in.
    pub(super) modules: Option<PathBuf>,
    /// The test module that prints the kernel's own answers, where it was built for this kernel.
    pub(super) oracle: Option<PathBuf>,
}

impl Kernel {
    /// A kernel that somebody names by its file.
    pub(super) fn file(image: &Path) -> Self {
        Self { release: image.display().to_string(), image: image.into(), modules: None, oracle: None }
    }

    /// Major and minor number of the release; `None` if it does not start with them.
    pub(super) fn series(&self) -> Option<(u16, u16)> {
        series(&self.release)
    }
}

/// The first two numbers of a version, such as 7 and 3 of `7.3.4-1~bpo13+1`.
pub(super) fn series(version: &str) -> Option<(u16, u16)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_the_first_two_numbers() {
        assert_eq!(series("7.3.4+deb13-amd64"), Some((7, 3)));
        assert_eq!(series("6.19~rc2-1"), Some((6, 19)));
        assert_eq!(series("vmlinuz"), None);
    }
}
