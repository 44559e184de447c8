//! The first root of a guest: init, its tools, modules, and the job.

use super::{Job, User};
use crate::failure::Failure;
use crate::vm::cpio::Archive;
use crate::vm::kernel::Kernel;
use crate::vm::machine::Machine;
use crate::vm::{program, stock};
use std::path::Path;

/// What init runs before anything else, written for busybox.
const INIT: &str = include_str!("../../../../vm/init");

/// The archive that the kernel unpacks as its first root.
pub(super) fn archive(kernel: &Kernel, machine: &Machine, job: &Job) -> Result<Vec<u8>, Failure> {
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
    archive.file("job/limit", 0o644, format!("{}\n", job.limit.as_secs()).as_bytes());
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
    program::read(place).map_err(|failure| {
        Failure::Stopped(format!("{failure}; for busybox that is: sudo apt-get install busybox-static"))
    })
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
}
