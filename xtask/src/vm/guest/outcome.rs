//! What came out of a boot, read from the ends of its ports.

use super::again::{GIVING_UP, NO_TIMER};
use super::folder::RunFolder;
use super::{End, Job};
use crate::failure::Failure;
use crate::vm::process::{tail, tail_of, text_of};
use crate::vm::stock;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Component, Path};
use std::time::Duration;

/// How much of a console is shown: a panic's first line stands before all of its traces.
const CONSOLE_LINES: usize = 80;

/// How much of what a guest tells of a job that it gave up: its kernel's last words, and every process.
const LOG_LINES: usize = 200;

/// The status of a job that the guest gave up, as `vm/init` writes it.
pub(super) const GIVEN_UP: &str = "hung";

/// What came out.
#[derive(Clone, Debug)]
pub(in crate::vm) struct Outcome {
    /// Exit code of the program.
    pub(in crate::vm) exit: u8,
    pub(in crate::vm) stdout: Vec<u8>,
    pub(in crate::vm) stderr: Vec<u8>,
    /// What the job left in `/out`, by relative path.
    pub(in crate::vm) files: BTreeMap<String, Vec<u8>>,
    pub(in crate::vm) kernel_log: String,
    /// From switching on to switching off.
    pub(in crate::vm) took: Duration,
}

impl Outcome {
    /// Reads what the last of so many attempts left in its folder.
    pub(super) fn read(
        folder: &RunFolder,
        end: &End,
        attempts: u32,
        job: &Job,
        took: Duration,
    ) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = folder.path(name);
            fs::read(&path).map_err(|error| Failure::io("read", &path, &error))
        };
        let status = String::from_utf8_lossy(&read("status")?).trim().to_string();
        let Ok(exit) = status.parse::<u8>() else {
            let log = String::from_utf8_lossy(&read("log")?).into_owned();
            let complaints = tail_of(&folder.path("qemu"), 10);
            let all_console = text_of(&folder.path("console"));
            let console = tail(&all_console, CONSOLE_LINES);
            let times = if attempts > 1 { format!(" (attempt {attempts})") } else { String::new() };
            let what = match end {
                _ if status == GIVEN_UP => given_up(&log, &times, job),
                End::Silent if all_console.contains(GIVING_UP) || all_console.contains(NO_TIMER) => {
                    format!("{}, and the guest could not say why", given_up(&all_console, &times, job))
                }
                End::Silent => format!("all of the guest hangs{times}"),
                End::NeverBegan => format!("the guest did not come to its job{times}"),
                End::Exited if console.is_empty() && !complaints.is_empty() => "QEMU refused the machine".into(),
                End::Aborted => format!("QEMU aborted{times}"),
                End::Killed(signal) => format!("QEMU was ended by signal {signal}"),
                End::Exited => "the guest ended before its job did".into(),
            };
            let said = String::from_utf8_lossy(&read("stderr")?).into_owned();
            return Err(Failure::Stopped(format!(
                "{what}{}{}{}{}{}{}",
                // A port whose file cannot grow blocks the guest and says nothing.
                stock::need_space(&folder.path(""), 1 << 20).err().map(|full| format!("; {full}")).unwrap_or_default(),
                part("QEMU said", &complaints),
                part("the job said", &tail(&said, 10)),
                part("its output ends with", &tail(&String::from_utf8_lossy(&read("stdout")?), 10)),
                // The table of the suite keeps the end: what the guest tells of a job that hangs, or its console with a panic.
                part("the end of its console", &console),
                part("the guest said", &tail(&log, LOG_LINES))
            )));
        };
        Ok(Self {
            exit,
            stdout: read("stdout")?,
            stderr: read("stderr")?,
            files: unpack(&read("files")?)?,
            kernel_log: String::from_utf8_lossy(&read("log")?).into_owned(),
            took,
        })
    }
}

/// Why a guest gave its job up, which is its limit where no line of its kernel says anything else.
fn given_up(log: &str, times: &str, job: &Job) -> String {
    match log.lines().find(|line| line.contains(NO_TIMER)) {
        Some(line) => format!("the job was given up{times}: {line}"),
        None => format!("the job did not end within {} s{times}", job.limit.as_secs()),
    }
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
