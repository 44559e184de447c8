//! `cargo xtask vm run`: one boot, one program.

use super::apt;
use super::guest::{self, Echo, GuestFile, Job, Outcome, User};
use super::kernel::Kernel;
use super::machine::{Iommu, Machine, Memory};
use super::program::{self, Own};
use super::topology::{self, Exported};
use super::{small, stock};
use crate::failure::Failure;
use peerdma::pcie::PciAddr;
use peerdma_emu::platform::Platform;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is asked for.
#[derive(Debug)]
struct Asked {
    platform: Option<String>,
    topology: String,
    user: User,
    kernel: String,
    cpu: Option<String>,
    iommu: Option<Iommu>,
    cmdline: Vec<String>,
    modules: Vec<String>,
    vfio: Vec<String>,
    with: Vec<String>,
    out: Option<PathBuf>,
    limit: Duration,
    memory: Memory,
    program: Vec<String>,
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut asked = Self {
            platform: None,
            topology: "default".into(),
            user: User::Root,
            kernel: "stock".into(),
            cpu: None,
            iommu: None,
            cmdline: Vec::new(),
            modules: Vec::new(),
            vfio: Vec::new(),
            with: Vec::new(),
            out: None,
            limit: Duration::from_secs(120),
            memory: Memory::Usual,
            program: Vec::new(),
        };
        let mut topology_given = false;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || {
                rest.next()
                    .map(String::as_str)
                    .ok_or_else(|| Failure::Usage(format!("{argument} takes a value, as in `vm run {argument} VALUE`")))
            };
            match argument.as_str() {
                "--" => {
                    asked.program = rest.cloned().collect();
                    break;
                }
                "--platform" => asked.platform = Some(value()?.into()),
                "--topology" => {
                    asked.topology = value()?.into();
                    topology_given = true;
                }
                "--user" => asked.user = User::Nobody,
                "--kernel" => asked.kernel = value()?.into(),
                "--cpu" => asked.cpu = Some(value()?.into()),
                "--iommu" => asked.iommu = Some(Iommu::parse(value()?)?),
                "--cmdline" => asked.cmdline.extend(value()?.split_whitespace().map(Into::into)),
                "--module" => asked.modules.push(value()?.into()),
                "--vfio" => {
                    for word in value()?.split(',') {
                        asked.vfio.push(full_address(word)?);
                    }
                }
                "--nodes" => asked.memory = Memory::parse_nodes(value()?)?,
                "--with" => asked.with.push(value()?.into()),
                "--out" => asked.out = Some(value()?.into()),
                "--limit" => {
                    let word = value()?;
                    let seconds = word.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
                    let seconds = seconds.ok_or_else(|| {
                        Failure::Usage(format!("--limit takes seconds from 1 to 86400, not `{word}`"))
                    })?;
                    asked.limit = Duration::from_secs(seconds);
                }
                other => {
                    return Err(Failure::Usage(format!(
                        "`vm run` has no `{other}`; the guest's program comes after `--`, as in `vm run -- peerdma topo`"
                    )));
                }
            }
        }
        if asked.program.is_empty() {
            return Err(Failure::Usage("say what to run in the guest, after `--`: `vm run -- peerdma topo`".into()));
        }
        if topology_given && asked.platform.is_some() {
            return Err(Failure::Usage("--platform and --topology both describe the machine; give one".into()));
        }
        Ok(asked)
    }
}

/// PCI addresses may leave out their domain, as everywhere in peerdma.
fn full_address(word: &str) -> Result<String, Failure> {
    let address: PciAddr =
        word.parse().map_err(|error| Failure::Usage(format!("--vfio takes PCI addresses, not `{word}`: {error}")))?;
    Ok(address.to_string())
}

pub(super) fn run(root: &Path, top: &Path, arguments: &[String]) -> Result<(), Failure> {
    let asked = Asked::parse(arguments)?;
    apt::need(top, apt::GUEST_NEEDS)?;
    apt::need_qemu(top)?;
    let kernel = kernel(root, top, &asked.kernel)?;
    let machine = machine(&asked)?;
    let job = job(root, top, &asked, &kernel)?;
    let outcome = guest::run(top, &kernel, &machine, &job, Echo::Live)?;
    keep(top, asked.out.as_deref(), &outcome)?;
    if outcome.exit == 0 { Ok(()) } else { Err(Failure::Exited(outcome.exit)) }
}

fn kernel(root: &Path, top: &Path, name: &str) -> Result<Kernel, Failure> {
    let offered = match name {
        "stock" => stock::kernel(top)?,
        "iommufd" => small::kernel(root, top)?,
        path if path.contains('/') || Path::new(path).is_file() => {
            let path = Path::new(path);
            fs::File::open(path).map_err(|error| Failure::io("read", path, &error))?;
            return Ok(Kernel::file(path));
        }
        other => {
            return Err(Failure::Usage(format!("no kernel is called `{other}`; there are stock, iommufd and paths")));
        }
    };
    offered.map_err(|reasons| {
        let (major, minor) = stock::OLDEST;
        Failure::Stopped(format!("no kernel of {major}.{minor} or newer offered: {}", reasons.join("; ")))
    })
}

/// The machine that is asked for: options win over what a platform file says.
fn machine(asked: &Asked) -> Result<Machine, Failure> {
    let plain = || Machine {
        cpu: "qemu64".into(),
        iommu: Iommu::Intel,
        devices: Vec::new(),
        cmdline: Vec::new(),
        memory: asked.memory,
    };
    let mut machine = match &asked.platform {
        Some(name) => {
            let exported = exported(name)?;
            for warning in &exported.warnings {
                say!("vm: {name}: {warning}");
            }
            let devices = exported.model.arguments();
            Machine { cpu: exported.cpu, iommu: exported.iommu, devices, cmdline: exported.cmdline, ..plain() }
        }
        None => {
            let model = topology::named(&asked.topology).ok_or_else(|| {
                let names = topology::NAMES.join(", ");
                Failure::Usage(format!("no topology is called `{}`; there are {names}", asked.topology))
            })?;
            Machine { devices: model.arguments(), ..plain() }
        }
    };
    if let Some(cpu) = &asked.cpu {
        machine.cpu = cpu.clone();
    }
    machine.iommu = asked.iommu.unwrap_or(machine.iommu);
    machine.cmdline.extend(asked.cmdline.iter().cloned());
    Ok(machine)
}

/// A built-in platform or a platform file, as a guest.
fn exported(name: &str) -> Result<Exported, Failure> {
    let platform = match Platform::built_in(name) {
        Some(platform) => platform,
        None => {
            let path = Path::new(name);
            let text = fs::read_to_string(path).map_err(|error| {
                let names: Vec<&str> = Platform::built_in_names().map(|(name, _)| name).collect();
                Failure::Stopped(format!(
                    "no built-in platform is called {name} (there are {}), and it cannot be read as a file: {error}",
                    names.join(", ")
                ))
            })?;
            Platform::parse(&text, name).map_err(|error| Failure::Stopped(error.to_string()))?
        }
    };
    topology::from_platform(&platform)
        .map_err(|refusals| Failure::Stopped(format!("QEMU cannot be {name}:\n{refusals}")))
}

fn job(root: &Path, top: &Path, asked: &Asked, kernel: &Kernel) -> Result<Job, Failure> {
    let mut argv = asked.program.clone();
    let mut files = Vec::new();
    if let Some(name) = bring(root, top, &argv[0], &mut files)? {
        argv[0] = format!("/job/bin/{name}");
    }
    for program in &asked.with {
        if bring(root, top, program, &mut files)?.is_none() {
            return Err(Failure::Usage(format!(
                "--with {program}: bring peerdma, peerdma-guest or a path; what busybox has is there"
            )));
        }
    }
    let mut modules = asked.modules.clone();
    if kernel.modules.is_none() && !modules.is_empty() {
        return Err(Failure::Usage("--module is for the stock kernel; the others have no modules to load".into()));
    }
    if kernel.modules.is_some() {
        modules.extend(guest::USUAL_MODULES.map(Into::into));
    }
    let (user, vfio, limit) = (asked.user, asked.vfio.clone(), asked.limit);
    Ok(Job { files, user, modules, vfio, limit, ..Job::new(argv) })
}

/// Puts a program into the guest and returns its name there; `None` for one that is looked for in the guest.
fn bring(root: &Path, top: &Path, program: &str, files: &mut Vec<GuestFile>) -> Result<Option<String>, Failure> {
    let path = match Own::by_name(program) {
        Some(own) => program::build(root, top, &[own])?.remove(0),
        None if program.contains('/') => PathBuf::from(program),
        None => return Ok(None),
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    files.push(GuestFile { path: format!("job/bin/{name}"), mode: 0o755, bytes: program::read(&path)? });
    Ok(Some(name))
}

/// Writes what came back to a folder, replacing what an earlier run left there.
fn keep(top: &Path, out: Option<&Path>, outcome: &Outcome) -> Result<(), Failure> {
    let folder = out.map_or_else(|| top.join("out"), Into::into);
    if out.is_none() && folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| Failure::io("remove", &folder, &error))?;
    }
    fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    let log = ("kernel.log".to_string(), outcome.kernel_log.clone().into_bytes());
    for (path, bytes) in outcome.files.iter().chain([(&log.0, &log.1)]) {
        let at = folder.join(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).map_err(|error| Failure::io("create", parent, &error))?;
        }
        fs::write(&at, bytes).map_err(|error| Failure::io("write", &at, &error))?;
    }
    say!(
        "vm: exit code {} after {:.1} s; {} and kernel.log are in {}",
        outcome.exit,
        outcome.took.as_secs_f64(),
        match outcome.files.len() {
            1 => "1 file".into(),
            n => format!("{n} files"),
        },
        folder.display()
    );
    Ok(())
}
