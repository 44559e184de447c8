//! Instructions of a whole process, counted by valgrind's callgrind.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether callgrind can be run here.
pub fn is_available() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Instructions that `program` executes with `arguments`, its output thrown away.
///
/// # Errors
/// If valgrind cannot be started, or prints no count (the program then failed to
/// start under it; run it by hand to see why).
pub fn instructions(program: &Path, arguments: &[&str]) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    // A program that ended early counts less, and would look the better for it.
    if !output.status.success() {
        return Err(io::Error::other(format!("under valgrind the program ended with {}:\n{report}", output.status)));
    }
    report
        .lines()
        .find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("valgrind printed no instruction count:\n{report}")))
}
