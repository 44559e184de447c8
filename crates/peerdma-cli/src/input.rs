//! Whatever the user points at becomes a topology.
//!
//! Inputs are told apart by what they hold, not by their names: a folder is a copy
//! of sysfs; below any gzip or bzip2, a tar header is an archive of one; JSON of the
//! right kind is a capture; a TOML table header of a platform file is one; the rest
//! is tried as lspci text.

use crate::args::InputArguments;
use crate::exit::Failure;
use crate::progress::Progress;
use peerdma::topology::{Builder, Origin, Topology};
use peerdma_emu::platform::Platform;
use peerdma_linux::archive;
use peerdma_linux::capture::Capture;
use peerdma_linux::lspci;
use peerdma_linux::pci_names::PciNames;
use peerdma_linux::snapshot::Snapshot;
use peerdma_linux::tree::Tree;
use peerdma_linux::{assemble, sysfs};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

/// Most contradictions that are told one by one.
const MAX_CONTRADICTIONS: usize = 12;

/// Which kind of input it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Live,
    Sysfs,
    Archive,
    Capture,
    Lspci,
    Platform,
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Sysfs => "sysfs",
            Self::Archive => "archive",
            Self::Capture => "capture",
            Self::Lspci => "lspci",
            Self::Platform => "platform",
        }
    }
}

/// A topology and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) topology: Topology,
    pub(crate) kind: Kind,
    /// Path or platform name; `None` for this machine.
    pub(crate) path: Option<String>,
    /// Whether the input was taken with the privilege to read all of config space.
    pub(crate) privileged: Option<bool>,
    /// What the reader of the input should know.
    pub(crate) notes: Vec<String>,
    /// The described machine, with what a topology does not hold.
    pub(crate) platform: Option<Platform>,
}

/// Loads what the arguments name, with what they add.
pub(crate) fn load(arguments: &InputArguments) -> Result<Loaded, Failure> {
    let _progress = Progress::start("reading the input");
    let names = names(arguments.pci_ids.as_deref())?;
    let mut loaded = match (&arguments.from, &arguments.sysfs_root, &arguments.platform) {
        (Some(path), _, _) => from_path(path, &names)?,
        // An archive of a copied tree serves as well as the tree.
        (None, Some(path), _) if path.is_file() => from_path(path, &names)?,
        (None, Some(path), _) => from_directory(path, &names)?,
        (None, None, Some(name)) => match from_platform(name, &names)? {
            loaded if loaded.kind == Kind::Platform => loaded,
            loaded => {
                let word = loaded.kind.word();
                return Err(Failure::usage(format!(
                    "{name} is no platform file but {word}; read it with --from {name}"
                )));
            }
        },
        (None, None, None) => from_snapshot(&sysfs::read(&Tree::live()), Kind::Live, None, Origin::Sysfs, &names)?,
    };
    let mut machine = loaded.topology.machine().clone();
    machine.cpu = arguments.cpu.clone().or(machine.cpu);
    machine.kernel = arguments.kernel.or(machine.kernel);
    machine.iommu = arguments.iommu.map(Into::into).or(machine.iommu);
    loaded.topology = loaded.topology.with_machine(machine);
    let contradictions = loaded.topology.contradictions();
    let told = contradictions.iter().take(MAX_CONTRADICTIONS);
    loaded.notes.extend(
        told.map(|contradiction| format!("the input contradicts itself: {contradiction}; what hangs on it is unknown")),
    );
    if let Some(more) = contradictions.len().checked_sub(MAX_CONTRADICTIONS).filter(|&more| more > 0) {
        loaded.notes.push(format!("the input contradicts itself in {more} more places"));
    }
    Ok(loaded)
}

/// Loads a described machine that is to run, for commands that take nothing else.
pub(crate) fn machine(name: &str) -> Result<(Loaded, Platform), Failure> {
    let _progress = Progress::start("reading the platform");
    let mut loaded = from_platform(name, &PciNames::system())?;
    match loaded.platform.take() {
        Some(platform) => Ok((loaded, platform)),
        None => Err(Failure::usage(format!(
            "{name} is no platform file but {}, and only a described machine can run; {}",
            loaded.kind.word(),
            platform_list()
        ))),
    }
}

/// The tree of files that `capture` reads.
pub(crate) fn tree(from: Option<&Path>, sysfs_root: Option<&Path>) -> Result<Tree, Failure> {
    match (from, sysfs_root) {
        (None, Some(path)) if !path.is_file() => directory(path),
        (Some(path), _) if path.is_dir() => directory(path),
        (Some(path), _) | (None, Some(path)) => {
            let shown = path.display();
            let bytes = archive::decompress(read(path)?)
                .map_err(|error| Failure::input(format!("cannot read {shown}"), error))?;
            if !archive::is_tar(&bytes) {
                let is = if Capture::recognises(&bytes) { "is a capture already" } else { "is no copy of sysfs" };
                let what =
                    format!("{shown} {is}; a capture is taken of this machine, a copied sysfs folder or its .tar");
                return Err(Failure::Input { what, source: None });
            }
            Tree::from_archive(&bytes).map_err(|error| Failure::input(format!("cannot read {shown}"), error))
        }
        (None, None) => Ok(Tree::live()),
    }
}

fn names(pci_ids: Option<&Path>) -> Result<PciNames, Failure> {
    match pci_ids {
        None => Ok(PciNames::system()),
        Some(path) => Ok(PciNames::from_pci_ids(text(read(path)?))),
    }
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::Read { path: path.to_path_buf(), source };
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
        return Ok(bytes);
    }
    fs::read(path).map_err(failed)
}

fn from_path(path: &Path, names: &PciNames) -> Result<Loaded, Failure> {
    if path.is_dir() {
        return from_directory(path, names);
    }
    let shown = path.display().to_string();
    let bytes =
        archive::decompress(read(path)?).map_err(|error| Failure::input(format!("cannot read {shown}"), error))?;
    if archive::is_tar(&bytes) {
        let tree = Tree::from_archive(&bytes).map_err(|error| Failure::input(format!("cannot read {shown}"), error))?;
        return from_snapshot(&sysfs::read(&tree), Kind::Archive, Some(shown), Origin::Sysfs, names);
    }
    if Capture::recognises(&bytes) {
        let capture = Capture::read(&bytes).map_err(|error| Failure::input(format!("cannot read {shown}"), error))?;
        return from_snapshot(&capture.snapshot, Kind::Capture, Some(shown), Origin::Capture, names);
    }
    let text = text(bytes);
    if is_platform(path, &text) {
        let platform =
            Platform::parse(&text, &shown).map_err(|error| Failure::Input { what: error.to_string(), source: None })?;
        return Ok(described(platform, shown));
    }
    let dump = lspci::read(&text, names).map_err(|error| {
        Failure::input(
            format!(
                "cannot tell what {shown} is: not a copied sysfs, a peerdma capture, a platform file or lspci output"
            ),
            error,
        )
    })?;
    Ok(Loaded {
        topology: dump.builder.build(),
        kind: Kind::Lspci,
        path: Some(shown),
        privileged: dump.privileged,
        notes: dump.notes,
        platform: None,
    })
}

/// Bytes as text, what is no UTF-8 replaced. Valid text, the common case, is only
/// checked and not walked a second time.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A platform file by its name's ending, or by a line that only TOML has: the number
/// of its schema or a table's head. No line of lspci starts so.
fn is_platform(path: &Path, text: &str) -> bool {
    let by_name = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    let is_head = |line: &str| {
        line.starts_with("[[") || ["[cpu]", "[kernel]", "[iommu]"].iter().any(|head| line.starts_with(head))
    };
    let is_schema = |line: &str| line.strip_prefix("schema").is_some_and(|rest| rest.trim_start().starts_with('='));
    by_name || text.lines().map(str::trim_start).any(|line| is_head(line) || is_schema(line))
}

fn directory(path: &Path) -> Result<Tree, Failure> {
    if let Err(source) = fs::metadata(path) {
        return Err(Failure::Read { path: path.to_path_buf(), source });
    }
    if !path.is_dir() {
        let source = std::io::Error::new(std::io::ErrorKind::NotADirectory, "not a folder");
        return Err(Failure::Read { path: path.to_path_buf(), source });
    }
    Tree::from_directory(path).map_err(|error| Failure::Input { what: error.to_string(), source: None })
}

fn from_directory(path: &Path, names: &PciNames) -> Result<Loaded, Failure> {
    let tree = directory(path)?;
    let kind = if tree.is_live() { Kind::Live } else { Kind::Sysfs };
    from_snapshot(&sysfs::read(&tree), kind, Some(path.display().to_string()), Origin::Sysfs, names)
}

fn from_snapshot(
    snapshot: &Snapshot,
    kind: Kind,
    path: Option<String>,
    origin: Origin,
    names: &PciNames,
) -> Result<Loaded, Failure> {
    let builder: Builder = assemble::builder(snapshot, origin, names)
        .map_err(|error| Failure::input(format!("cannot read {}", path.as_deref().unwrap_or("sysfs")), error))?;
    Ok(Loaded {
        topology: builder.build(),
        kind,
        path,
        privileged: snapshot.machine.privileged,
        notes: Vec::new(),
        platform: None,
    })
}

/// The built-in platform of a name, or else whatever kind of input the file of that name is.
fn from_platform(name: &str, names: &PciNames) -> Result<Loaded, Failure> {
    match Platform::built_in(name) {
        Some(platform) => Ok(described(platform, name.to_string())),
        None if Path::new(name).is_file() => from_path(Path::new(name), names),
        None => {
            let none = "is neither a built-in platform nor a file";
            Err(Failure::usage(format!("--platform {name} {none}; {}", platform_list())))
        }
    }
}

/// What `--platform` takes, as advice.
fn platform_list() -> String {
    let names: Vec<&str> = Platform::built_in_names().map(|(name, _)| name).collect();
    format!("--platform takes {} or the path of a platform file", names.join(", "))
}

/// Answers `--platform help`; true if that was asked.
pub(crate) fn platform_help(arguments: &InputArguments) -> Result<bool, Failure> {
    if arguments.platform.as_deref() != Some("help") {
        return Ok(false);
    }
    print_platforms()?;
    Ok(true)
}

/// Lists the built-in platforms.
pub(crate) fn print_platforms() -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    for (name, description) in Platform::built_in_names() {
        writeln!(out, "{name:<12} {description}")?;
    }
    Ok(())
}

fn described(platform: Platform, path: String) -> Loaded {
    Loaded {
        topology: platform.topology(),
        kind: Kind::Platform,
        path: Some(path),
        privileged: Some(true),
        notes: Vec::new(),
        platform: Some(platform),
    }
}
