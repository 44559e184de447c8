//! Debian's own kernel of a newer release, unpacked and never installed.
//!
//! `linux-image-amd64` names the release's kernel; image, modules and configuration lie in
//! packages of their own, whose split changed between 7.2 and 7.3. So every package of
//! that kernel is fetched and the files are found in what comes out.

use super::apt::{self, Mirror, NotOffered, Package, Suite};
use super::cache;
use super::kernel::{Kernel, series};
use super::process::{bound, output};
use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// Releases to look in, in this order: the first kernel that is new enough is taken.
pub(super) const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

/// VFIO exports BARs as dma-bufs from this series on.
pub(super) const OLDEST: (u16, u16) = (6, 19);

/// Under which the unpacked kernel is remembered.
const REMEMBERED: &str = "stock";

/// The kernel that is offered.
pub(super) enum Offer {
    /// Its packages, image package first.
    Found { suite: Suite, release: String, packages: Vec<Package> },
    /// No release has one that is new enough; why, one for each.
    None(Vec<String>),
}

/// The unpacked kernel; `Ok(Err(reasons))` if nothing new enough is offered.
///
/// What was found once is used until `target/vm` is removed, without asking the mirror again.
pub(super) fn kernel(top: &Path) -> Result<Result<Kernel, Vec<String>>, Failure> {
    if let Some(kernel) = cache::remembered(top, REMEMBERED).and_then(|folder| unpacked(&folder)) {
        return Ok(Ok(kernel));
    }
    let (suite, release, packages) = match offer(top)? {
        Offer::Found { suite, release, packages } => (suite, release, packages),
        Offer::None(reasons) => return Ok(Err(reasons)),
    };
    say!("vm: unpacking Linux {release} of {}", suite.name);
    let digests: Vec<&[u8]> = packages.iter().map(|package| package.sha256.as_bytes()).collect();
    let name = format!("stock-{}", cache::digest(&digests));
    let folder = cache::folder(top, &name, |at| unpack(&suite, &release, &packages, at))?;
    cache::remember(top, REMEMBERED, &folder)?;
    let kernel = unpacked(&folder).ok_or_else(|| {
        Failure::Stopped(format!("{} holds no kernel image any more; remove it and try again", folder.display()))
    })?;
    Ok(Ok(kernel))
}

/// Finds the first release with a kernel that is new enough.
pub(super) fn offer(top: &Path) -> Result<Offer, Failure> {
    let Some(mirror) = apt::mirror(top)? else {
        return Ok(Offer::None(vec!["apt's configuration names no Debian archive".into()]));
    };
    let mut reasons = Vec::new();
    for name in SUITES {
        match newest(top, &mirror, name)? {
            Ok((suite, release, packages)) => return Ok(Offer::Found { suite, release, packages }),
            Err(reason) => reasons.push(reason),
        }
    }
    Ok(Offer::None(reasons))
}

type Newest = (Suite, String, Vec<Package>);

fn newest(top: &Path, mirror: &Mirror, name: &str) -> Result<Result<Newest, String>, Failure> {
    let suite = match Suite::fetch(top, mirror, &[name]) {
        Ok(suite) => suite,
        Err(NotOffered::Absent(reason)) => return Ok(Err(reason)),
        Err(NotOffered::Failed(failure)) => return Err(failure),
    };
    let Some(image) = suite.package("linux-image-amd64")? else {
        return Ok(Err(format!("{name} has no linux-image-amd64")));
    };
    if series(&image.version).is_none_or(|series| series < OLDEST) {
        return Ok(Err(format!("{name} has Linux {}, older than {}.{}", image.version, OLDEST.0, OLDEST.1)));
    }
    let Some(release) = release_of(&image) else {
        return Err(Failure::Stopped(format!("linux-image-amd64 {} of {name} depends on no kernel", image.version)));
    };
    let parts = ["image", "binary", "modules", "base"];
    let mut packages = Vec::new();
    for part in parts {
        packages.extend(suite.package(&format!("linux-{part}-{release}"))?);
    }
    Ok(Ok((suite, release, packages)))
}

/// The kernel release that the package of all kernels stands for.
fn release_of(image: &Package) -> Option<String> {
    let mut names = image.depends.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    names.find(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).map(Into::into)
}

/// The package with the source of the kernel that is offered.
pub(super) fn source_package(suite: &Suite, release: &str) -> Result<Package, Failure> {
    let (major, minor) = series(release)
        .ok_or_else(|| Failure::Stopped(format!("the kernel release {release} does not start with two numbers")))?;
    let name = format!("linux-source-{major}.{minor}");
    suite.package(&name)?.ok_or_else(|| Failure::Stopped(format!("{} has no {name}", suite.name)))
}

fn unpack(suite: &Suite, release: &str, packages: &[Package], at: &Path) -> Result<(), Failure> {
    need_space(at, 2 << 30)?;
    let downloads = at.join("packages");
    fs::create_dir(&downloads).map_err(|error| Failure::io("create", &downloads, &error))?;
    let wanted: Vec<&Package> = packages.iter().collect();
    for package in suite.download(&wanted, &downloads)? {
        extract(&package, at)?;
    }
    fs::remove_dir_all(&downloads).map_err(|error| Failure::io("remove", &downloads, &error))?;
    // Debian puts modules below /usr; kmod looks below /lib, as on a machine with merged folders.
    let lib = at.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).map_err(|error| Failure::io("link", &lib, &error))?;
    }
    let mut depmod = bound("depmod");
    depmod.arg("-b").arg(at).arg(release);
    output(depmod, "list the modules' dependencies")?;
    let mark = at.join("release");
    fs::write(&mark, release).map_err(|error| Failure::io("write", &mark, &error))?;
    if unpacked(at).is_none() {
        return Err(Failure::Stopped(format!(
            "no vmlinuz in the packages of Linux {release}: their layout has changed; `find_image` in \
             xtask/src/vm/stock.rs lists the places that are known"
        )));
    }
    Ok(())
}

/// Unpacks one package into a folder.
pub(super) fn extract(package: &Path, into: &Path) -> Result<(), Failure> {
    let mut command = bound("dpkg-deb");
    command.arg("-x").arg(package).arg(into);
    output(command, &format!("unpack {}", package.display())).map(|_| ())
}

/// Fails before the work, and not in its middle, where the disk is too small for it.
pub(super) fn need_space(at: &Path, bytes: u64) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(at).map_err(|error| Failure::io("measure the disk of", at, &error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    Err(Failure::Stopped(format!(
        "{} has {} MiB free and this takes {} MiB; make room, or set CARGO_TARGET_DIR to a larger disk",
        at.display(),
        free >> 20,
        bytes >> 20
    )))
}

fn unpacked(folder: &Path) -> Option<Kernel> {
    let release = fs::read_to_string(folder.join("release")).ok()?.trim().to_string();
    let image = find_image(folder, &release)?;
    Some(Kernel { release, image, modules: Some(folder.into()), oracle: None })
}

fn find_image(folder: &Path, release: &str) -> Option<PathBuf> {
    // Until 7.2 in /boot, from 7.3 beside the modules.
    let places = [format!("usr/lib/modules/{release}/vmlinuz"), format!("boot/vmlinuz-{release}")];
    places.iter().map(|place| folder.join(place)).find(|path| path.is_file())
}

/// Paths of the modules that must be loaded for `wanted`, dependencies first.
///
/// A module that is built into this kernel needs no file and is left out.
pub(super) fn closure(kernel: &Kernel, wanted: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let Some(folder) = &kernel.modules else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = Vec::new();
    for module in wanted {
        let mut command = bound("modprobe");
        command.arg("-d").arg(folder).args(["-S", &kernel.release, "--show-depends", module]);
        let shown = output(command, &format!("find the module {module} of Linux {}", kernel.release))?;
        for line in shown.lines() {
            if let Some(path) = line.strip_prefix("insmod ").map(module_path)
                && !paths.contains(&path)
            {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// The path in front of a module's parameters; folders above it may have spaces in their names.
fn module_path(words: &str) -> PathBuf {
    let end = words.rfind(".ko").and_then(|at| words[at..].find(' ').map(|length| at + length));
    words[..end.unwrap_or(words.len())].trim_end().into()
}

/// The bytes of a module, decompressed.
pub(super) fn module_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).map_err(|error| Failure::io("read", path, &error));
    }
    let decompressed =
        bound("xz").args(["-dc", "--"]).arg(path).output().map_err(|error| Failure::io("decompress", path, &error))?;
    if decompressed.status.success() {
        return Ok(decompressed.stdout);
    }
    Err(Failure::Stopped(format!("{} is damaged; remove the folder it is in and try again", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_named_by_what_the_package_of_all_kernels_depends_on() {
        let depends = ["linux-base-amd64", "linux-image-7.3.4+deb13-amd64"].map(Into::into).into();
        let mut image = Package { depends, ..Package::default() };
        assert_eq!(release_of(&image).as_deref(), Some("7.3.4+deb13-amd64"));
        image.depends.truncate(1);
        assert_eq!(release_of(&image), None);
    }

    #[test]
    fn a_module_is_found_in_a_folder_whose_name_has_spaces() {
        assert_eq!(module_path("/a b/nvme.ko.xz "), Path::new("/a b/nvme.ko.xz"));
        assert_eq!(module_path("/a b/nvme-core.ko multipath=N"), Path::new("/a b/nvme-core.ko"));
    }

    #[test]
    fn a_disk_that_is_too_small_is_said_before_the_work() {
        let at = std::env::temp_dir();
        assert!(need_space(&at, 1).is_ok());
        let said = need_space(&at, u64::MAX).unwrap_err().to_string();
        assert!(said.contains("make room"), "{said}");
    }
}
