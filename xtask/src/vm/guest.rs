//! One boot: a job goes in, its output, files, exit code and kernel log come out.
//!
//! Everything the guest needs is in its first root, made in memory for each boot.
//! Results leave through virtio-serial ports whose other ends are plain files; the exit
//! code comes last, so a file without it means a guest that did not get that far.

mod folder;

use super::cpio::Archive;
use super::kernel::Kernel;
use super::machine::Machine;
use super::process::{bound, tail_of};
use super::stock;
use crate::failure::Failure;
use folder::RunFolder;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What init runs before anything else, written for busybox.
const INIT: &str = include_str!("../../../vm/init");

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
    pub(super) user: User,
    /// Modules to load, with parameters after the name.
    pub(super) modules: Vec<String>,
    /// PCI functions to give to vfio-pci.
    pub(super) vfio: Vec<String>,
    /// How long the kernel may take from switching on to its first process.
    pub(super) boot_limit: Duration,
    /// How long the guest may take from there to switching off.
    pub(super) limit: Duration,
}

impl Job {
    /// A job of root's that needs nothing else.
    pub(super) fn new(argv: Vec<String>) -> Self {
        let (boot_limit, limit) = (BOOT_LIMIT, Duration::from_secs(120));
        Self { argv, files: Vec::new(), user: User::Root, modules: Vec::new(), vfio: Vec::new(), boot_limit, limit }
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Exit code of the program.
    pub(super) exit: u8,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// What the job left in `/out`, by relative path.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) kernel_log: String,
    /// From switching on to switching off.
    pub(super) took: Duration,
}

/// What to do with the job's output while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// Passed on as it comes.
    Live,
    /// Kept for the caller.
    Quiet,
}

/// How often a boot is tried that ends before the guest's first process begins. Under load one boot
/// in some thirty was seen to abort, and a suite has dozens: two in a row are to be expected, three are not.
const ATTEMPTS: u32 = 3;

/// How long a kernel may take to its first process: some ten times what it takes beside other work.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// What [`INIT`] says first, on the console.
const BEGUN: &str = "init: begun";

/// Boots a machine with a job and waits for its end.
///
/// QEMU 10.0 aborts now and then in its emulation of translated memory (`iotlb_to_section`), and one
/// kernel in some hundreds hangs in it before its first process. Neither says anything about the job,
/// which has not begun in the second case and leaves no result in the first; such a boot is told and tried anew.
///
/// # Errors
///
/// A guest that hangs, crashes or never reaches its job, with the end of its console.
pub(super) fn run(top: &Path, kernel: &Kernel, machine: &Machine, job: &Job, echo: Echo) -> Result<Outcome, Failure> {
    let folder = RunFolder::create(top)?;
    let initrd = folder.path("initrd");
    fs::write(&initrd, first_root(kernel, machine, job)?).map_err(|error| Failure::io("write", &initrd, &error))?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let started = Instant::now();
        let child = start(&folder, kernel, machine)?;
        let end = wait(child, &folder, job, echo, started)?;
        if attempts < ATTEMPTS {
            match end {
                End::Aborted => {
                    say!("vm: QEMU aborted, once more: {}", tail_of(&folder.path("qemu"), 2));
                    continue;
                }
                End::NeverBegan => {
                    say!("vm: the kernel did not come to its first process, once more");
                    continue;
                }
                End::Exited | End::Killed(_) | End::TimedOut => {}
            }
        }
        return read_outcome(&folder, end, job, started.elapsed());
    }
}

/// Starts QEMU with empty files at the other ends of its ports.
fn start(folder: &RunFolder, kernel: &Kernel, machine: &Machine) -> Result<Child, Failure> {
    let mut command = bound("qemu-system-x86_64");
    command.args(machine.arguments());
    for port in PORTS {
        let file = folder.path(port);
        File::create(&file).map_err(|error| Failure::io("create", &file, &error))?;
        command.arg("-chardev").arg(format!("file,id={port},path={}", option_value(&file)));
        command.arg("-device").arg(format!("virtserialport,chardev={port},name=peerdma.{port}"));
    }
    // As a device of its own: `-serial file:` takes a comma in a path for itself, with no way to say otherwise.
    command.arg("-chardev").arg(format!("file,id=console,path={}", option_value(&folder.path("console"))));
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

/// How much of a console is shown: a panic's first line stands before all of its traces.
const CONSOLE_LINES: usize = 80;

const PORTS: [&str; 5] = ["stdout", "stderr", "log", "files", "status"];

fn first_root(kernel: &Kernel, machine: &Machine, job: &Job) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    let busybox = busybox()?;
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("bin/busybox", 0o755, &busybox);
    archive.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    for folder in ["proc", "sys", "dev", "tmp", "out", "root", "run", "job/bin"] {
        archive.folder(folder);
    }
    // Init has nowhere to write until devtmpfs is mounted, which the kernel does not do in a first root.
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);

    let wanted: Vec<String> =
        machine.iommu.modules().iter().map(|&name| name.to_string()).chain(job.modules.iter().cloned()).collect();
    let mut load = String::new();
    for words in &wanted {
        let (name, parameters) = words.split_once(' ').unwrap_or((words, ""));
        for path in stock::closure(kernel, &[name.to_string()])? {
            let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let file = format!("job/modules.d/{}", file.trim_end_matches(".xz"));
            if load.lines().any(|line| line.split(' ').next() == Some(&format!("/{file}"))) {
                continue;
            }
            archive.file(&file, 0o644, &stock::module_bytes(&path)?);
            // Names of modules and of their files differ in `-` and `_`.
            let plain = |name: &str| name.replace('-', "_");
            let own = plain(&file).ends_with(&format!("/{}.ko", plain(name)));
            load.push_str(&format!("/{file}{}\n", if own { format!(" {parameters}") } else { String::new() }));
        }
    }
    archive.file("job/modules", 0o644, load.as_bytes());
    archive.file("job/bind", 0o644, lines(&job.vfio).as_bytes());
    archive.file("job/user", 0o644, if job.user == User::Root { b"root\n" } else { b"nobody\n" });
    archive.file("job/command", 0o755, command_script(&job.argv).as_bytes());
    for file in &job.files {
        archive.file(&file.path, file.mode, &file.bytes);
    }
    Ok(archive.finish())
}

fn lines(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\n")).collect()
}

/// A script that becomes the program, whatever characters its arguments hold.
fn command_script(argv: &[String]) -> String {
    let quoted: Vec<String> = argv.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    format!("exec {}\n", quoted.join(" "))
}

fn busybox() -> Result<Vec<u8>, Failure> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let place = places
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::Stopped("there is no busybox; type: sudo apt-get install busybox-static".into()))?;
    super::program::read(place).map_err(|failure| {
        Failure::Stopped(format!("{failure}; for busybox that is: sudo apt-get install busybox-static"))
    })
}

/// How a run of QEMU ended.
enum End {
    /// By itself.
    Exited,
    /// By a signal of its own, SIGABRT.
    Aborted,
    /// By a signal from elsewhere, such as SIGKILL where memory is short.
    Killed(i32),
    /// We ended it, after its time.
    TimedOut,
    /// We ended it, since its kernel hung before the first process.
    NeverBegan,
}

fn wait(mut child: Child, folder: &RunFolder, job: &Job, echo: Echo, started: Instant) -> Result<End, Failure> {
    let mut tails = match echo {
        Echo::Live => vec![Tail::open(&folder.path("stdout"))?, Tail::open(&folder.path("stderr"))?],
        Echo::Quiet => Vec::new(),
    };
    let mut begun = None;
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
                Some(signal) if signal == rustix::process::Signal::ABORT.as_raw() => End::Aborted,
                Some(signal) => End::Killed(signal),
            });
        }
        if begun.is_none() && has_begun(folder) {
            begun = Some(Instant::now());
        }
        let overdue = match begun {
            Some(begun) => (begun.elapsed() > job.limit).then_some(End::TimedOut),
            None => (started.elapsed() > job.boot_limit).then_some(End::NeverBegan),
        };
        if let Some(end) = overdue {
            // It may have ended this moment; either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(end);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the guest's first process has said so; a console that cannot be read has not.
fn has_begun(folder: &RunFolder) -> bool {
    fs::read(folder.path("console")).is_ok_and(|console| String::from_utf8_lossy(&console).contains(BEGUN))
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

fn read_outcome(folder: &RunFolder, end: End, job: &Job, took: Duration) -> Result<Outcome, Failure> {
    let read = |name: &str| {
        let path = folder.path(name);
        fs::read(&path).map_err(|error| Failure::io("read", &path, &error))
    };
    let status = String::from_utf8_lossy(&read("status")?).trim().parse::<u8>();
    let Ok(exit) = status else {
        let complaints = tail_of(&folder.path("qemu"), 10);
        let console = tail_of(&folder.path("console"), CONSOLE_LINES);
        let what = match end {
            End::TimedOut => format!("the guest did not end within {} s", job.limit.as_secs()),
            End::NeverBegan => format!("the kernel did not come to its first process, {ATTEMPTS} times"),
            End::Exited if console.is_empty() && !complaints.is_empty() => "QEMU refused the machine".into(),
            End::Aborted => format!("QEMU aborted, {ATTEMPTS} times"),
            End::Killed(signal) => format!("QEMU was ended by signal {signal}"),
            End::Exited => "the guest ended before its job did".into(),
        };
        let said = String::from_utf8_lossy(&read("stderr")?).into_owned();
        return Err(Failure::Stopped(format!(
            "{what}{}{}{}{}",
            // A port whose file cannot grow blocks the guest and says nothing.
            stock::need_space(&folder.path(""), 1 << 20).err().map(|full| format!("; {full}")).unwrap_or_default(),
            part("QEMU said", &complaints),
            part("the job said", &super::process::tail(&said, 10)),
            part("the end of its console", &console)
        )));
    };
    Ok(Outcome {
        exit,
        stdout: read("stdout")?,
        stderr: read("stderr")?,
        files: unpack(&read("files")?)?,
        kernel_log: String::from_utf8_lossy(&read("log")?).into_owned(),
        took,
    })
}

fn part(head: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\n{head}:\n{text}") }
}

fn unpack(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let damaged = |error: std::io::Error| Failure::Stopped(format!("the guest's files came back damaged: {error}"));
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(damaged)?.to_string_lossy().trim_start_matches("./").to_string();
        // The archive is the guest's word, and it is written below a folder of the host's.
        if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Failure::Stopped(format!("the guest's files came back with one outside of its /out: {path}")));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(damaged)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_guest_whatever_they_hold() {
        let argv = ["echo", "it's", "two words", "$HOME"].map(String::from);
        let script = command_script(&argv);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's two words $HOME\n");
    }

    #[test]
    fn a_file_that_would_leave_its_folder_is_refused() {
        for name in ["../a", "sub/../../a", "/etc/a"] {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(0);
            header.set_cksum();
            let mut builder = tar::Builder::new(Vec::new());
            builder.append(&header, std::io::empty()).unwrap();
            let said = unpack(&builder.into_inner().unwrap()).unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
    }

    #[test]
    fn files_of_a_guest_that_was_cut_off_are_an_error() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2000);
        header.set_cksum();
        builder.append_data(&mut header, "./sub/a", &[7u8; 2000][..]).unwrap();
        let whole = builder.into_inner().unwrap();
        assert_eq!(unpack(&whole).unwrap()["sub/a"], [7u8; 2000]);
        assert!(unpack(&whole[..1000]).is_err());
    }
}
