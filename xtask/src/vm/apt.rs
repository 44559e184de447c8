//! Debian packages: installing what the tests need, and fetching kernels of newer
//! releases without installing anything of them.
//!
//! The mirror is the one that the machine's own apt configuration names, so no host is
//! named here. A newer release gets lists of its own in a private folder; the machine's
//! package state never learns of it. Packages are checked by apt against the signed
//! lists.

use super::cache;
use super::process::{bound, found, output};
use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The archive that the machine itself uses, and which Debian release it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    /// Base of the archive, as it stands in a list of sources.
    pub(super) uri: String,
    /// Code name of the machine's release.
    pub(super) codename: String,
}

/// Finds Debian's main archive in apt's configuration; `None` if it has none.
///
/// Only its lists tell an archive's origin and code name, and images of containers come
/// without lists. They are then fetched into a folder of ours, which takes no privilege:
/// a machine that was never asked must not pass for one that offers nothing.
///
/// # Errors
///
/// The lists are not here and cannot be fetched.
pub(super) fn mirror(top: &Path) -> Result<Option<Mirror>, Failure> {
    if !found("apt-get") {
        return Ok(None);
    }
    if let Some(mirror) = known_mirror(&[])? {
        return Ok(Some(mirror));
    }
    let folder = top.join("apt/own");
    fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    let _lock = cache::lock(&top.join("apt/own.lock"))?;
    let private = private_state(&folder)?;
    let mut update = bound("apt-get");
    update.args(&private).args(["-q", "update"]).env("LC_ALL", "C");
    let updated = output(update, "read the package lists of this machine's sources");
    match known_mirror(&private)? {
        Some(mirror) => Ok(Some(mirror)),
        // Some source of another project may be out of order; it counts only if Debian's is not there.
        None => updated.map(|_| None),
    }
}

fn known_mirror(options: &[String]) -> Result<Option<Mirror>, Failure> {
    let mut command = bound("apt-get");
    command.args(options);
    command.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"]);
    command.args(["Origin: Debian", "Label: Debian"]);
    Ok(first_mirror(&output(command, "read apt's sources")?))
}

/// Options for apt to keep its lists and caches in `folder`, which get their places there.
fn private_state(folder: &Path) -> Result<Vec<String>, Failure> {
    for inner in ["lists/partial", "cache/archives/partial"] {
        let at = folder.join(inner);
        fs::create_dir_all(&at).map_err(|error| Failure::io("create", &at, &error))?;
    }
    let at = |inner: &str| folder.join(inner).display().to_string();
    let options = [
        format!("Dir::State::lists={}", at("lists")),
        format!("Dir::Cache={}", at("cache")),
        // apt's own user cannot write below a folder of root's.
        "APT::Sandbox::User=root".into(),
    ];
    Ok(options.into_iter().flat_map(|option| ["-o".into(), option]).collect())
}

fn first_mirror(targets: &str) -> Option<Mirror> {
    let (uri, codename) = targets.lines().find_map(|line| line.trim().split_once(' '))?;
    // bookworm-updates has the same archive and is no release of its own.
    let codename = codename.split('-').next()?;
    (!codename.is_empty()).then(|| Mirror { uri: uri.into(), codename: codename.into() })
}

/// The lists of one or two releases in a folder of their own.
pub(super) struct Suite {
    /// Makes apt see these lists and no others.
    options: Vec<String>,
    /// Its name, such as `trixie-backports`.
    pub(super) name: String,
}

/// Why a release cannot be used.
pub(super) enum NotOffered {
    /// The mirror does not have it.
    Absent(String),
    /// It could not be asked.
    Failed(Failure),
}

impl Suite {
    /// Reads the lists of `names` into `top/apt/LAST NAME`.
    pub(super) fn fetch(top: &Path, mirror: &Mirror, names: &[&str]) -> Result<Self, NotOffered> {
        let name = names.last().copied().unwrap_or_default().to_string();
        let folder = top.join("apt").join(&name);
        let options = Self::prepare(&folder, mirror, names).map_err(NotOffered::Failed)?;
        // apt does not wait for another that reads the same lists, such as the one of a kernel's build.
        let _lock = cache::lock(&top.join("apt").join(format!("{name}.lock"))).map_err(NotOffered::Failed)?;
        let suite = Self { options, name };
        let mut update = suite.apt("apt-get");
        // Without it apt calls a list that it could not fetch a success.
        update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        match output(update, &format!("read the package lists of {}", suite.name)) {
            Ok(_) => Ok(suite),
            Err(failure) => {
                let said = failure.to_string();
                // Said of an archive that answers and has no such release, and of no other trouble.
                if said.contains("does not have a Release file") {
                    Err(NotOffered::Absent(format!("the mirror has no {}", suite.name)))
                } else {
                    Err(NotOffered::Failed(failure))
                }
            }
        }
    }

    fn prepare(folder: &Path, mirror: &Mirror, names: &[&str]) -> Result<Vec<String>, Failure> {
        let mut options = private_state(folder)?;
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed = if Path::new(keyring).is_file() { format!("[signed-by={keyring}] ") } else { String::new() };
        let sources: String = names.iter().map(|name| format!("deb {signed}{} {name} main\n", mirror.uri)).collect();
        let at = folder.join("sources.list");
        fs::write(&at, sources).map_err(|error| Failure::io("write", &at, &error))?;
        let list = format!("Dir::Etc::sourcelist={}", at.display());
        options.extend(["-o".into(), list, "-o".into(), "Dir::Etc::sourceparts=/dev/null".into()]);
        Ok(options)
    }

    /// An apt program that sees these lists and no others.
    fn apt(&self, program: &str) -> Command {
        let mut command = bound(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    /// What the lists say of the newest version of a package; `None` if they do not have it.
    pub(super) fn package(&self, name: &str) -> Result<Option<Package>, Failure> {
        let mut show = self.apt("apt-cache");
        show.args(["show", "--no-all-versions", name]);
        match output(show, &format!("look up {name} in {}", self.name)) {
            Ok(shown) => Ok(Package::parse(&shown)),
            // A list that cannot be read must not pass for one without the package.
            Err(failure) if failure.to_string().contains("No packages found") => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Downloads packages into a folder.
    pub(super) fn download(&self, packages: &[&Package], into: &Path) -> Result<Vec<PathBuf>, Failure> {
        let mut command = self.apt("apt-get");
        command.current_dir(into).args(["-q", "download"]);
        command.args(packages.iter().map(|package| format!("{}={}", package.name, package.version)));
        output(command, &format!("download packages of {}", self.name))?;
        packages
            .iter()
            .map(|package| {
                let start = format!("{}_", package.name);
                let files = fs::read_dir(into).map_err(|error| Failure::io("read", into, &error))?;
                let mut files = files.flatten().map(|file| file.path());
                files
                    .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
                    .ok_or_else(|| {
                        Failure::Stopped(format!("apt-get left no file of {} in {}", package.name, into.display()))
                    })
            })
            .collect()
    }

    /// Installs packages of these lists.
    fn install(&self, packages: &[&str]) -> Result<(), Failure> {
        let mut command = self.apt("apt-get");
        command.args(["install", "-y", "--no-install-recommends", "-o", LOCK, "-t", &self.name]).args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        output(command, &format!("install {} of {}", packages.join(", "), self.name)).map(|_| ())
    }
}

/// Another task may be installing at the same time.
const LOCK: &str = "DPkg::Lock::Timeout=600";

/// One package, as a list describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) depends: Vec<String>,
    /// The digest that apt checks, so it names the contents.
    pub(super) sha256: String,
}

impl Package {
    fn parse(shown: &str) -> Option<Self> {
        let mut package = Self::default();
        for line in shown.lines().take_while(|line| !line.is_empty()) {
            let Some((field, value)) = line.split_once(": ") else { continue };
            match field {
                "Package" => package.name = value.into(),
                "Version" => package.version = value.into(),
                "SHA256" => package.sha256 = value.into(),
                "Depends" => {
                    let names = value.split([',', '|']).filter_map(|part| part.split_whitespace().next());
                    package.depends = names.map(Into::into).collect();
                }
                _ => {}
            }
        }
        (!package.name.is_empty() && !package.version.is_empty() && !package.sha256.is_empty()).then_some(package)
    }
}

/// A program that is needed, and the package that has it.
pub(super) type Need = (&'static str, &'static str);

/// What a virtual machine takes besides QEMU.
pub(super) const GUEST_NEEDS: &[Need] = &[("busybox", "busybox-static"), ("depmod", "kmod"), ("xz", "xz-utils")];
/// What building a kernel takes.
pub(super) const KERNEL_NEEDS: &[Need] = &[
    ("gcc", "gcc"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
    ("/usr/include/libelf.h", "libelf-dev"),
];
/// The oldest QEMU that these tests were run with.
const QEMU_VERSION: u32 = 10;

/// Installs the packages whose programs are missing; without privilege says the line to type.
pub(super) fn need(top: &Path, needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<&str> =
        needs.iter().filter(|(program, _)| !is_there(program)).map(|&(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    privileged(&format!("apt-get install {}", missing.join(" ")), &format!("{} not installed", said(&missing)))?;
    say!("vm: installing {}", missing.join(", "));
    let _lock = installing(top)?;
    refresh()?;
    install(&missing)
}

/// Makes sure of a QEMU that is new enough.
pub(super) fn need_qemu(top: &Path) -> Result<(), Failure> {
    match qemu_version() {
        Some(version) if version >= QEMU_VERSION => return Ok(()),
        _ => {}
    }
    let package = "qemu-system-x86";
    let Some(mirror) = mirror(top)? else {
        return Err(Failure::Stopped(format!(
            "QEMU {QEMU_VERSION} or newer is not here, and apt's configuration names no Debian archive; install it"
        )));
    };
    let backports = format!("{}-backports", mirror.codename);
    privileged(
        &format!("apt-get install -t {backports} {package}"),
        &format!("QEMU {QEMU_VERSION} or newer is not installed"),
    )?;
    say!("vm: installing {package}");
    let _lock = installing(top)?;
    refresh()?;
    if candidate(package).is_some_and(|version| major(&version).is_some_and(|major| major >= QEMU_VERSION)) {
        return install(&[package]);
    }
    match Suite::fetch(top, &mirror, &[&mirror.codename, &backports]) {
        Ok(suite) => suite.install(&[package])?,
        Err(NotOffered::Absent(reason)) => {
            return Err(Failure::Stopped(format!(
                "no QEMU {QEMU_VERSION} or newer is offered: {reason}; install one by hand"
            )));
        }
        Err(NotOffered::Failed(failure)) => return Err(failure),
    }
    match qemu_version() {
        Some(version) if version >= QEMU_VERSION => Ok(()),
        other => Err(Failure::Stopped(format!(
            "{backports} installed QEMU {}, and these tests take {QEMU_VERSION} or newer; install it by hand",
            other.map_or("of no version".into(), |version| version.to_string())
        ))),
    }
}

fn is_there(program: &str) -> bool {
    if program.starts_with('/') { Path::new(program).exists() } else { found(program) }
}

fn said(packages: &[&str]) -> String {
    let verb = if packages.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", packages.join(", "))
}

fn qemu_version() -> Option<u32> {
    let mut command = Command::new("qemu-system-x86_64");
    command.arg("--version");
    let shown = output(command, "ask QEMU").ok()?;
    major(shown.split("version ").nth(1)?)
}

/// The first number of a version, after Debian's epoch.
fn major(version: &str) -> Option<u32> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn candidate(package: &str) -> Option<String> {
    let mut command = Command::new("apt-cache");
    command.args(["policy", package]).env("LC_ALL", "C");
    let shown = output(command, "ask apt").ok()?;
    shown.lines().find_map(|line| line.trim().strip_prefix("Candidate: ").map(Into::into))
}

/// Keeps tasks of ours from one another: apt does not wait for an apt that reads lists.
fn installing(top: &Path) -> Result<fs::File, Failure> {
    let folder = top.join("apt");
    fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    cache::lock(&folder.join("install.lock"))
}

fn refresh() -> Result<(), Failure> {
    let mut command = bound("apt-get");
    command.args(["update", "-q"]);
    output(command, "read the package lists").map(|_| ())
}

fn install(packages: &[&str]) -> Result<(), Failure> {
    let mut command = bound("apt-get");
    command.args(["install", "-y", "--no-install-recommends", "-o", LOCK]).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    output(command, &format!("install {}", packages.join(", "))).map(|_| ())
}

/// Fails with the line to type where this process may not install packages.
fn privileged(line: &str, why: &str) -> Result<(), Failure> {
    if !found("apt-get") {
        return Err(Failure::Stopped(format!(
            "{why}, and there is no apt-get; install it with this system's own tools"
        )));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Stopped(format!("{why}; type: sudo {line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_machines_own_release() {
        let targets = "http://mirror.test/debian/ bookworm-updates\nhttp://mirror.test/debian/ bookworm\n";
        let expected = Mirror { uri: "http://mirror.test/debian/".into(), codename: "bookworm".into() };
        assert_eq!(first_mirror(targets), Some(expected));
        assert_eq!(first_mirror(""), None);
    }

    #[test]
    fn a_package_is_read_from_its_first_paragraph() {
        let shown = "Package: linux-image-amd64\nVersion: 7.3.4-1~bpo13+1\nDepends: linux-base-amd64 (= 7.3.4-1~bpo13+1), \
                     linux-image-7.3.4+deb13-amd64 | other\nSHA256: 00ff\n\nPackage: linux-image-amd64\nVersion: 1\n";
        let package = Package::parse(shown).unwrap();
        assert_eq!(package.version, "7.3.4-1~bpo13+1");
        assert_eq!(package.depends, ["linux-base-amd64", "linux-image-7.3.4+deb13-amd64", "other"]);
        assert_eq!(Package::parse("Package: half\n"), None);
    }

    #[test]
    fn a_version_counts_without_its_epoch() {
        assert_eq!(major("1:10.0.2+ds-2"), Some(10));
        assert_eq!(major("7.2.0 (Debian)"), Some(7));
        assert_eq!(major("(none)"), None);
    }
}
