//! Programs this task runs, which end when it ends.
//!
//! Ctrl-C reaches a whole process group, but a signal sent to this process alone
//! would leave QEMU or a kernel build behind. `setpriv` (util-linux, essential in
//! Debian) asks the kernel to end the program with its parent; the same from within
//! would take `unsafe` (`pre_exec`).

use crate::failure::Failure;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command that is ended when this process ends.
pub(super) fn bound(program: &str) -> Command {
    let mut command = if found("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    if let Ok(path) = std::env::join_paths(search_path()) {
        command.env("PATH", path);
    }
    command
}

/// Whether a program is on the search path.
pub(super) fn found(program: &str) -> bool {
    search_path().iter().any(|folder| folder.join(program).is_file())
}

/// The caller's search path, and the folders where Debian keeps depmod and modprobe, which
/// are not in the path of its users and serve them as well.
fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    for folder in ["/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Runs a program to its end with its output kept; anything but success is a failure that quotes its last lines.
pub(super) fn output(mut command: Command, doing: &str) -> Result<String, Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Stopped(format!("cannot {doing}: {}: {error}", shown(&command))))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::Stopped(format!(
        "cannot {doing}: `{}` ended with {}: {}",
        shown(&command),
        output.status,
        last_words(&output)
    )))
}

/// Runs a program whose output goes to a log; a failure quotes the log's last lines.
pub(super) fn logged(mut command: Command, log: &Path, doing: &str) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| Failure::io("write", log, &error))?;
    let errors = file.try_clone().map_err(|error| Failure::io("write", log, &error))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .status()
        .map_err(|error| Failure::Stopped(format!("cannot {doing}: {}: {error}", shown(&command))))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Stopped(format!(
        "cannot {doing}: `{}` ended with {status}; the end of {}:\n{}",
        shown(&command),
        log.display(),
        tail_of(log, 15)
    )))
}

/// The last lines of a text file, whatever bytes it holds.
pub(super) fn tail_of(path: &Path, lines: usize) -> String {
    tail(&text_of(path), lines)
}

/// What a file says; nothing where it cannot be read.
pub(super) fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// The last lines of a text, without the empty ones.
pub(super) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    let text = words.join(" ");
    text.strip_prefix("setpriv --pdeathsig TERM -- ").map_or_else(|| text.clone(), Into::into)
}

fn last_words(output: &Output) -> String {
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    // A download that came in half is ten lines of apt's, and the first says what happened.
    tail(&String::from_utf8_lossy(said), 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut command = bound("sh");
        command.args(["-c", "echo first; echo no such package >&2; exit 3"]);
        let said = output(command, "look").unwrap_err().to_string();
        assert!(said.contains("cannot look") && said.contains("no such package"), "{said}");
        assert!(!said.contains("setpriv"), "{said}");
    }

    #[test]
    fn the_tail_of_a_text_is_its_last_lines_with_words() {
        assert_eq!(tail("a\n\nb\r\nc\n\n", 2), "b\nc");
        assert_eq!(tail("", 3), "");
    }
}
