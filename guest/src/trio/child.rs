//! Another process of this program, and what it says.

use super::LONG;
use crate::checks::Stop;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// Says a line to whoever started this process.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever does not listen any more has ended, and ends this process by the end of its input.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A process in a role; killed when dropped.
pub(super) struct Other {
    role: &'static str,
    process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Other {
    pub(super) fn start(role: &'static str, socket: &Path) -> Result<Self, Stop> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["trio", role]).arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Stop::broken("a process without pipes"));
        };
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { role, process, stdin, said })
    }

    pub(super) fn tell(&mut self, line: &str) -> Result<(), Stop> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// Expects this line next.
    pub(super) fn says(&self, expected: &str) -> Result<(), Stop> {
        match self.said.recv_timeout(LONG) {
            Ok(line) if line == expected => Ok(()),
            Ok(line) => Err(Stop::broken(format!("{} says `{line}` where `{expected}` is expected", self.role))),
            Err(_) => Err(Stop::broken(format!("{} does not say `{expected}`", self.role))),
        }
    }

    /// Passes over everything that it says before this line.
    pub(super) fn says_at_last(&self, expected: &str) -> Result<(), Stop> {
        loop {
            match self.said.recv_timeout(LONG) {
                Ok(line) if line == expected => return Ok(()),
                Ok(line) if line.starts_with("failed") => return Err(Stop::broken(format!("{}: {line}", self.role))),
                Ok(_) => {}
                Err(_) => return Err(Stop::broken(format!("{} does not say `{expected}`", self.role))),
            }
        }
    }

    /// What it said that nobody asked for, and what each of its threads waits for: the kernel's function, the system call and the stack, as
    /// far as they can be read.
    pub(super) fn does(&self) -> String {
        let said: Vec<String> = self.said.try_iter().collect();
        let mut does = format!("{} said {said:?}", self.role);
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).into_iter().flatten().flatten();
        for thread in threads.map(|thread| thread.path()) {
            let of = |name: &str| std::fs::read_to_string(thread.join(name)).unwrap_or_default();
            let words = [of("wchan"), of("syscall"), of("stack")].map(|text| text.trim().replace('\n', ", "));
            does.push_str(&format!("; its thread {} waits at {}", thread.display(), words.join(" ")));
        }
        does
    }

    /// Stops it, every thread of it, and waits until it has stopped: it hears nothing from here on.
    pub(super) fn pause(&self) -> Result<(), Stop> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::STOP)?;
        match waitpid(Some(pid), WaitOptions::UNTRACED)? {
            Some((_, status)) if status.stopped() => Ok(()),
            other => Err(Stop::broken(format!("{} did not stop: {other:?}", self.role))),
        }
    }

    /// Has it go on.
    pub(super) fn go_on(&self) -> Result<(), Stop> {
        Ok(kill_process(Pid::from_child(&self.process), Signal::CONT)?)
    }

    /// Kills it and waits for its end.
    pub(super) fn end(&mut self) -> Result<(), Stop> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
