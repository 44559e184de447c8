//! Roles that this program plays when a test starts it as another process, mostly without root's capabilities: as root
//! nothing is charged, and every limit test would pass empty.

use super::skip;
use crate::pin::Limit;
use peerdma::addr::Bytes;
use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

const ROLE: &str = "PEERDMA_PINS_ROLE";
/// What it limits itself to before anything else; a parent may not where it has no CAP_SYS_RESOURCE.
const MEMLOCK: &str = "PEERDMA_PINS_MEMLOCK";
/// Before every line that is meant for the test, as the test runner prints lines too.
const MARK: &str = "role: ";

/// A user that nobody else is, as far as anybody knows: limits are counted per user.
#[derive(Clone, Copy)]
pub(super) struct User(u32);

impl User {
    /// One of this test's own; `None`, and said so, where this process cannot become somebody else.
    pub(super) fn unused(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        // The root of a container without privilege has few users to choose from.
        let has_all = map.is_empty() || map.split_whitespace().nth(2) == Some("4294967295");
        if !rustix::process::geteuid().is_root() || !has_all {
            skip(test, "only root starts processes of another user");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 256;
        Some(Self(0x1000_0000 + (std::process::id() % (1 << 22)) * 256 + number))
    }
}

/// What a process may lock and pin.
#[derive(Clone, Copy)]
pub(super) enum Memlock {
    AsItIs,
    Of(Bytes),
}

/// Another process that plays a role; killed when dropped.
pub(super) struct Other {
    process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

/// This program, where users without any right to the build folder can start it.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let here = std::env::current_exe().unwrap();
        let open_to_all = here.ancestors().all(|folder| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 1 != 0)
        });
        if open_to_all {
            return here;
        }
        let copy = std::env::temp_dir().join(format!("peerdma-pins-program-{}", std::process::id()));
        std::fs::copy(&here, &copy).unwrap();
        copy
    })
}

impl Other {
    /// Starts a role as a user of its own, or as the caller's.
    pub(super) fn start(role: &str, user: Option<User>, memlock: Memlock) -> Self {
        let mut command = Command::new(program());
        command.args(["--exact", "pin::tests::child::plays_the_role_that_its_parent_gave_it"]);
        command.args(["--nocapture", "--test-threads=1"]).env(ROLE, role).current_dir("/");
        match memlock {
            Memlock::AsItIs => command.env_remove(MEMLOCK),
            Memlock::Of(limit) => command.env(MEMLOCK, limit.as_u64().to_string()),
        };
        if let Some(User(user)) = user {
            command.uid(user).gid(user);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Kills it, and waits until it has ended.
    pub(super) fn kill(&mut self) {
        rustix::process::kill_process(self.pid(), Signal::KILL).unwrap();
        self.process.wait().unwrap();
    }

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// The next line that it says.
    pub(super) fn says(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Waits until it has ended by itself.
    pub(super) fn ends(&mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{MARK}{line}");
    let _ = out.flush();
}

/// The next line that the parent tells; nothing once it is gone.
pub(super) fn hear() -> Option<String> {
    std::io::stdin().lines().next()?.ok()
}

/// Fails the role where limits would not apply to it.
pub(super) fn is_limited() {
    assert!(matches!(Limit::of_this_thread(), Limit::Memlock(_)), "CAP_IPC_LOCK is still there, or there is no limit");
}

#[test]
fn plays_the_role_that_its_parent_gave_it() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if let Ok(limit) = std::env::var(MEMLOCK) {
        let limit = limit.parse().ok();
        setrlimit(Resource::Memlock, Rlimit { current: limit, maximum: limit }).unwrap();
    }
    let mut words = role.split(' ');
    let (name, words) = (words.next().unwrap(), words.collect::<Vec<_>>());
    super::charges::play(name, &words);
    super::limits::play(name, &words);
    super::life::play(name, &words);
    super::withheld::play(name, &words);
}
