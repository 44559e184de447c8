//! One boot: a job goes in, its output, files, exit code and kernel log come out.
//!
//! Everything the guest needs is in its first root, made in memory for each boot.
//! Results leave through virtio-serial ports whose other ends are plain files; the exit
//! code comes last, so a file without it means a guest that did not get that far.

mod again;
mod first_root;
mod folder;
mod outcome;

pub(super) use again::unwell;
pub(super) use outcome::Outcome;

use super::graphics;
use super::kernel::Kernel;
use super::machine::Machine;
use super::process::{bound, text_of};
use crate::failure::Failure;
use folder::RunFolder;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Modules that a guest loads, each before those that bring it along without its parameters, where its kernel does not have them built in: programs ask for these devices.
///
/// QEMU's virtio IOMMU reports no interrupt remapping, without which VFIO wants to be told that it is
/// meant. Multipath would give disks other names than their controllers have.
pub(super) const USUAL_MODULES: [&str; 4] =
    ["vfio_iommu_type1 allow_unsafe_interrupts=1", "vfio-pci", "nvme_core multipath=N", "nvme"];

/// Who runs the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    Root,
    Nobody,
}

/// A file of this machine behind a device, made anew for each attempt: its length in bytes, and what it begins with.
#[derive(Clone, Debug)]
pub(super) struct HostFile {
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pub(super) head: Vec<u8>,
}

impl HostFile {
    fn make(&self) -> Result<(), Failure> {
        let made = fs::write(&self.path, &self.head)
            .and_then(|()| File::options().write(true).open(&self.path)?.set_len(self.length));
        made.map_err(|error| Failure::io("write", &self.path, &error))
    }
}

/// A file that the guest finds.
#[derive(Clone, Debug)]
pub(super) struct GuestFile {
    /// Path without the leading slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

/// What a guest is to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Program and arguments; a name without a slash is looked for in `/job/bin` and among busybox's own.
    pub(super) argv: Vec<String>,
    pub(super) files: Vec<GuestFile>,
    /// What the machine's devices keep on this one.
    pub(super) behind: Vec<HostFile>,
    pub(super) user: User,
    /// Modules to load, with parameters after the name.
    pub(super) modules: Vec<String>,
    /// PCI functions to give to vfio-pci.
    pub(super) vfio: Vec<String>,
    /// How long the kernel may take from switching on to its first process.
    pub(super) boot_limit: Duration,
    /// How long the job may take from there; whole seconds, counted by the guest, which then says what it waits for.
    pub(super) limit: Duration,
    /// How long the guest may take beyond that to switch off, before it counts as one that hangs as a whole.
    pub(super) grace: Duration,
}

impl Job {
    /// A job of root's that needs nothing else.
    pub(super) fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            files: Vec::new(),
            behind: Vec::new(),
            user: User::Root,
            modules: Vec::new(),
            vfio: Vec::new(),
            boot_limit: BOOT_LIMIT,
            limit: LIMIT,
            grace: GRACE,
        }
    }
}

/// What to do with the job's output while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// Passed on as it comes.
    Live,
    /// Kept for the caller.
    Quiet,
}

/// How often a boot is tried that ends before the job begins. Under load one boot
/// in some thirty was seen to abort, and a suite has dozens: two in a row are to be expected, three are not.
const ATTEMPTS: u32 = 3;

/// How long a guest may take to its job: some twenty times what it takes by itself; beside much other work it took over sixty seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long a job may take: some ten times what the longest of most takes by itself.
const LIMIT: Duration = Duration::from_secs(300);

/// How long a guest may take to tell what a job that was given up waits for, and to switch off.
const GRACE: Duration = Duration::from_secs(60);

/// How long a guest that has told all may take to be off.
const SWITCHING_OFF: Duration = Duration::from_secs(20);

/// What the first process, `vm/init`, says on the console before the job.
const BEGUN: &str = "init: begun";

/// Boots a machine with a job and waits for its end.
///
/// An end that says nothing about the job is told, and the machine booted anew.
///
/// # Errors
///
/// A guest that hangs, crashes or never reaches its job, with the end of its console.
pub(super) fn run(top: &Path, kernel: &Kernel, machine: &Machine, job: &Job, echo: Echo) -> Result<Outcome, Failure> {
    let folder = RunFolder::create(top)?;
    let initrd = folder.path("initrd");
    fs::write(&initrd, first_root::archive(kernel, machine, job)?)
        .map_err(|error| Failure::io("write", &initrd, &error))?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let started = Instant::now();
        job.behind.iter().try_for_each(HostFile::make)?;
        let child = start(top, &folder, kernel, machine)?;
        let end = wait(child, &folder, job, echo, started)?;
        if attempts < ATTEMPTS
            && let Some(why) = again::reason(&end, &folder)
        {
            say!("vm: once more: {why}");
            continue;
        }
        return Outcome::read(&folder, &end, attempts, job, started.elapsed());
    }
}

/// Names of the ports through which results leave.
const PORTS: [&str; 5] = ["stdout", "stderr", "log", "files", "status"];

/// Starts QEMU with empty files at the other ends of its ports.
fn start(top: &Path, folder: &RunFolder, kernel: &Kernel, machine: &Machine) -> Result<Child, Failure> {
    let mut command = bound("qemu-system-x86_64");
    command.args(machine.arguments());
    if let Some(preloaded) = graphics::needs(top, machine)? {
        command.env("LD_PRELOAD", preloaded);
    }
    for port in PORTS {
        let file = folder.path(port);
        File::create(&file).map_err(|error| Failure::io("create", &file, &error))?;
        command.arg("-chardev").arg(format!("file,id={port},path={}", option_value(&file)));
        command.arg("-device").arg(format!("virtserialport,chardev={port},name=peerdma.{port}"));
    }
    // As a device of its own: `-serial file:` takes a comma in a path for itself, with no way to say otherwise.
    let console = folder.path("console");
    // Here and not by QEMU a moment later: until then what an attempt before this one said would count as said now.
    File::create(&console).map_err(|error| Failure::io("create", &console, &error))?;
    command.arg("-chardev").arg(format!("file,id=console,path={}", option_value(&console)));
    command.arg("-serial").arg("chardev:console");
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(folder.path("initrd"));
    command.arg("-append").arg(machine.cmdline());
    let complaints = folder.path("qemu");
    let complaints_file = File::create(&complaints).map_err(|error| Failure::io("create", &complaints, &error))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints_file)
        .spawn()
        .map_err(|error| Failure::Stopped(format!("cannot run qemu-system-x86_64: {error}; install it")))
}

/// A path within a QEMU option, where a comma would end it.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Signals of a program's own making.
const OWN: [Signal; 5] = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE];

/// How a run of QEMU ended.
enum End {
    /// By itself, or by us once it had told all and did not switch off.
    Exited,
    /// By a signal that a program sends itself, SIGABRT or one of those for what it may not do.
    Aborted,
    /// By a signal from elsewhere, such as SIGKILL where memory is short.
    Killed(i32),
    /// We ended it, since it neither ended nor gave its job up.
    Silent,
    /// We ended it, since it hung before the job.
    NeverBegan,
}

fn wait(mut child: Child, folder: &RunFolder, job: &Job, echo: Echo, started: Instant) -> Result<End, Failure> {
    let mut tails = match echo {
        Echo::Live => vec![Tail::open(&folder.path("stdout"))?, Tail::open(&folder.path("stderr"))?],
        Echo::Quiet => Vec::new(),
    };
    let (mut begun, mut given_up, mut told) = (None, None, None);
    loop {
        let ended = child.try_wait().map_err(|error| Failure::Stopped(format!("cannot wait for QEMU: {error}")))?;
        if let Some(tail) = tails.first_mut() {
            tail.pass_on(&mut std::io::stdout());
        }
        if let Some(tail) = tails.get_mut(1) {
            tail.pass_on(&mut std::io::stderr());
        }
        if let Some(status) = ended {
            return Ok(match status.signal() {
                None => End::Exited,
                Some(signal) if OWN.iter().any(|own| own.as_raw() == signal) => End::Aborted,
                Some(signal) => End::Killed(signal),
            });
        }
        if begun.is_none() && has_said(folder, &[BEGUN]) {
            begun = Some(Instant::now());
        }
        // The line after that of the timer may stay in the guest, whose console waits for interrupts like everything else.
        if given_up.is_none() && begun.is_some() && has_said(folder, &[again::GIVING_UP, again::NO_TIMER]) {
            given_up = Some(Instant::now());
        }
        if told.is_none() && has_told_all(folder) {
            told = Some(Instant::now());
        }
        let overdue = match (told, given_up, begun) {
            (Some(told), ..) => (told.elapsed() > SWITCHING_OFF).then_some(End::Exited),
            (None, Some(given_up), _) => (given_up.elapsed() > job.grace).then_some(End::Silent),
            (None, None, Some(begun)) => (begun.elapsed() > job.limit + job.grace).then_some(End::Silent),
            (None, None, None) => (started.elapsed() > job.boot_limit).then_some(End::NeverBegan),
        };
        if let Some(end) = overdue {
            // It may have ended this moment; either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
            if told.is_some() {
                say!("vm: a guest that had told all did not switch off, and was ended");
            }
            return Ok(end);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the guest has said any of this on its console.
fn has_said(folder: &RunFolder, any: &[&str]) -> bool {
    let console = text_of(&folder.path("console"));
    any.iter().any(|words| console.contains(words))
}

/// Whether the status is there, which comes after everything else.
fn has_told_all(folder: &RunFolder) -> bool {
    fs::read(folder.path("status")).is_ok_and(|status| status.ends_with(b"\n"))
}

/// Passes on what is appended to a file.
struct Tail {
    file: File,
}

impl Tail {
    fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { file: File::open(path).map_err(|error| Failure::io("read", path, &error))? })
    }

    fn pass_on(&mut self, out: &mut impl Write) {
        let mut bytes = Vec::new();
        // The file is read again as a whole at the end, so a failure here loses nothing.
        if self.file.read_to_end(&mut bytes).is_ok() && !bytes.is_empty() {
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
    }
}
