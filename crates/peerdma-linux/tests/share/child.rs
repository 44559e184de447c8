//! Roles that this program plays when a test starts it as another process.

use super::{cooperative, exporter, frames, raw, soon};
use peerdma::addr::Bytes;
use peerdma::buffer::wire::{Features, Heard, Hello, Map, Message, Noted, RequestId, Unmapped};
use peerdma_linux::share::{Importer, Mapped};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const ROLE: &str = "PEERDMA_SHARE_ROLE";
const SOCKET: &str = "PEERDMA_SHARE_SOCKET";
/// Before every line that is meant for the test, as the test runner prints lines too.
const MARK: &str = "role: ";

fn command(role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::plays_the_role_that_its_parent_gave_it", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(SOCKET, path);
    command
}

/// Another process that plays a role; killed when dropped.
pub(crate) struct Other {
    process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Other {
    pub(crate) fn start(role: &str, path: &Path) -> Self {
        let mut process = command(role, path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test runner's own line may stand before it.
                if let Some((_, line)) = line.split_once(MARK) {
                    let _ = say.send(line.to_string());
                }
            }
        });
        Self { process, stdin, said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        send_signal(self.pid(), signal);
    }

    /// Kills it, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// The next line that it says.
    pub(crate) fn says(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn send_signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{MARK}{line}");
    let _ = out.flush();
}

#[test]
fn plays_the_role_that_its_parent_gave_it() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(SOCKET)) else { return };
    let path = Path::new(&path);
    match role.as_str() {
        "obedient" => obedient(path),
        "liar" => liar(path),
        "scribbler" => scribbler(path),
        "flooder" => flooder(path),
        "exporter" => serves(path),
        "passes-on" => passes_on(path),
        "holder" => holder(),
        "breaks-and-passes-on" => breaks_and_passes_on(path),
        "of-another-version" => of_another_version(path),
        "sleeper" => thread::sleep(Duration::from_secs(60)),
        role => unreachable!("no role {role}"),
    }
}

/// Maps, lets go when told, and maps again when it may.
fn obedient(path: &Path) {
    let mut importer = Importer::attach(path, cooperative("obedient"), soon()).unwrap();
    let mut held: Option<Mapped> = Some(importer.map(soon()).unwrap());
    say("mapped");
    while let Ok(Some(heard)) = importer.next(soon()) {
        match heard {
            Heard::LetGo { notice, .. } => {
                importer.note(notice).unwrap();
                if let Some(mapped) = held.take() {
                    importer.unmap(mapped).unwrap();
                }
                say("let go");
            }
            Heard::MayMap { notice, .. } => {
                importer.note(notice).unwrap();
                held = importer.map(soon()).ok();
                say("mapped again");
            }
            _ => {}
        }
    }
}

/// Says hello as a program would that is years older or younger.
fn of_another_version(path: &Path) {
    let socket = raw::connection(path);
    let hello = Message::Hello(Hello { lowest: 7, highest: 9, features: Features::NONE });
    raw::send(socket.as_fd(), &hello.encode(), &[]).unwrap();
    let Some(Message::Refusal(refusal)) = raw::receive(socket.as_fd()) else { unreachable!("a refusal") };
    say(refusal.why.as_str());
    assert_eq!(raw::receive(socket.as_fd()), None);
    say("hung up");
}

/// Writes all the time that it may, and what it has begun, it finishes.
fn scribbler(path: &Path) {
    let mut importer = Importer::attach(path, cooperative("scribbler"), soon()).unwrap();
    let (mut held, mut count) = (importer.map(soon()).ok(), 0_u64);
    let mut scribble = |mapped: &Mapped| {
        count += 1;
        let at = count.wrapping_mul(0x9e37_79b9) % (mapped.len().as_u64() - 64);
        mapped.write(Bytes::new(at), &[0xff; 64]).unwrap();
    };
    // Waits only while it has nothing to write to.
    while let Ok(heard) = importer.next(if held.is_some() { Instant::now() } else { soon() }) {
        match heard {
            Some(Heard::LetGo { notice, .. }) => {
                importer.note(notice).unwrap();
                if let Some(mapped) = held.take() {
                    (0..200).for_each(|_| scribble(&mapped));
                    importer.unmap(mapped).unwrap();
                }
            }
            Some(Heard::MayMap { notice, .. }) => {
                importer.note(notice).unwrap();
                // Denied where it has been taken away again meanwhile.
                held = held.or_else(|| importer.map(soon()).ok());
            }
            _ => {}
        }
        if let Some(mapped) = &held {
            scribble(mapped);
        }
    }
}

/// Says that it has let go, and has not.
fn liar(path: &Path) {
    let mut importer = Importer::attach(path, cooperative("liar"), soon()).unwrap();
    let kept = importer.map(soon()).unwrap();
    while let Ok(Some(heard)) = importer.next(soon()) {
        if let Heard::LetGo { notice, .. } = heard {
            importer.note(notice).unwrap();
            importer.gave_back(soon()).unwrap();
            break;
        }
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let mut bytes = [0; 5];
    kept.read(Bytes::ZERO, &mut bytes).unwrap();
    say(std::str::from_utf8(&bytes).unwrap());
}

/// Maps once, then asks without end and reads no answer.
fn flooder(path: &Path) {
    let control = raw::attach(path);
    raw::flood(control.as_fd());
    say("cut off");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn serves(path: &Path) {
    let mut exporter = exporter(path, frames());
    say("listening");
    while exporter.serve(soon()).is_ok() {}
}

/// Maps, and passes its control descriptor to a third process.
#[expect(clippy::zombie_processes, reason = "the third process outlives this one, and nobody waits for it")]
fn passes_on(path: &Path) {
    let mut importer = Importer::attach(path, cooperative("passes-on"), soon()).unwrap();
    let _mapped = importer.map(soon()).unwrap();
    let control = importer.as_fd().try_clone_to_owned().unwrap();
    let third = command("holder", path).stdin(control).spawn().unwrap();
    say(&format!("third {}", third.id()));
    thread::sleep(Duration::from_secs(60));
}

/// Passes its control descriptor to a third process, then breaks the protocol with a mapping in its hands.
#[expect(clippy::zombie_processes, reason = "the third process outlives this one, and nobody waits for it")]
fn breaks_and_passes_on(path: &Path) {
    let control = raw::attach(path);
    raw::send(control.as_fd(), &Message::Map(Map { request: RequestId::new(1) }).encode(), &[]).unwrap();
    assert!(matches!(raw::receive(control.as_fd()), Some(Message::Granted(_))));
    let third = command("sleeper", path).stdin(control.try_clone().unwrap()).spawn().unwrap();
    say(&format!("third {}", third.id()));
    raw::send(control.as_fd(), b"what?", &[]).unwrap();
    assert!(matches!(raw::receive(control.as_fd()), Some(Message::Goodbye(_))));
    assert_eq!(raw::send(control.as_fd(), b"what?", &[]), Err(rustix::io::Errno::PIPE));
    say("told");
    thread::sleep(Duration::from_secs(60));
}

/// Holds a control descriptor as its standard input, and answers there.
fn holder() {
    let stdin = std::io::stdin();
    let control = stdin.as_fd();
    say("holding");
    loop {
        let Message::LetGo(let_go) = raw::receive(control).unwrap() else { continue };
        raw::send(control, &Message::Noted(Noted { notice: let_go.notice }).encode(), &[]).unwrap();
        raw::send(control, &Message::Unmapped(Unmapped { count: 1 }).encode(), &[]).unwrap();
        return;
    }
}
