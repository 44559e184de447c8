//! Clients: processes that have memory and a context of somebody else's accelerator.

use super::{BASE, BELL, FROM, KEPT, LIST, LONG, PRIVATE, RESULT, RINGS, SIZE, TO, at, soon};
use crate::device::open;
use peerdma::addr::{AddrRange, BusAddr, Bytes, ProcVa};
use peerdma_emu::device::Mmio;
use peerdma_emu::device::accel::{Driver, Operation, Status};
use peerdma_emu::device::channel::CallError;
use peerdma_emu::memory::{Gone, ProcessMemory};
use peerdma_linux::share::{Exporter, Happened, Listener, Memory, Shared};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const ROLE: &str = "PEERDMA_ACCEL_ROLE";
const NUMBER: &str = "PEERDMA_ACCEL_NUMBER";
const SOCKET: &str = "PEERDMA_ACCEL_SOCKET";
/// Before every line that is meant for the test, as the test runner prints lines too.
const MARK: &str = "role: ";
const ELEMENTS: u64 = 200;

/// A client as its parent has it; killed when dropped.
pub(super) struct Other {
    process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Other {
    pub(super) fn start(role: &str, number: usize, path: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "sharing::client::plays_the_role_that_its_parent_gave_it";
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(NUMBER, number.to_string()).env(SOCKET, path);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK) {
                    let _ = say.send(line.to_string());
                }
            }
        });
        Self { process, stdin, said }
    }

    pub(super) fn says(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    pub(super) fn said_already(&self) -> Option<String> {
        self.said.try_recv().ok()
    }

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// This process's memory, at the addresses that it tells its accelerator.
#[derive(Clone, Debug)]
struct Mine(Arc<Mutex<Exporter>>);

impl Mine {
    fn read_at(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.lock().unwrap().memory().read(Bytes::new(offset), &mut bytes).unwrap();
        bytes
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().unwrap().memory().write(Bytes::new(offset), bytes).unwrap();
    }
}

impl ProcessMemory for Mine {
    fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
        let (offset, len) = (Bytes::new(at.as_u64().wrapping_sub(BASE)), Bytes::new(into.len() as u64));
        self.0.lock().unwrap().memory().read(offset, into).map_err(|_| Gone { at, len })
    }

    fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
        let (offset, len) = (Bytes::new(at.as_u64().wrapping_sub(BASE)), Bytes::new(from.len() as u64));
        self.0.lock().unwrap().memory().write(offset, from).map_err(|_| Gone { at, len })
    }
}

/// The part of the registers that a process is handed: a doorbell, which is a word in its memory. The rest was set up for it, and
/// answers as if it had been done now.
struct Doorbell {
    memory: Mine,
    control: Cell<u64>,
    until: Cell<Instant>,
}

impl Mmio for Doorbell {
    fn load(&self, _bar: u8, offset: Bytes, _len: u8) -> u64 {
        // Contexts that there are, or the state that was asked for last.
        if offset == Bytes::ZERO { 32 } else { self.control.get() }
    }

    fn store(&self, _bar: u8, offset: Bytes, value: u64, _len: u8) {
        match offset.as_u64() {
            0x1000.. => self.memory.write_at(BELL, &(value | 1 << 63).to_le_bytes()),
            block if (block - 0x100) % 0x40 == 0x28 => self.control.set(value),
            _ => {}
        }
    }

    fn pause(&self) -> bool {
        thread::sleep(Duration::from_micros(50));
        Instant::now() < self.until.get()
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{MARK}{line}");
    let _ = out.flush();
}

/// The next line from the parent.
fn told() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_string()
}

fn bus(offset: u64) -> BusAddr {
    BusAddr::new(at(offset).as_u64())
}

#[test]
fn plays_the_role_that_its_parent_gave_it() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(SOCKET)) else { return };
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    let memory = Memory::create("client", Bytes::new(SIZE)).unwrap();
    let mut exporter =
        Exporter::new(Listener::bind(Path::new(&path)).unwrap(), memory, Shared::named("client")).unwrap();
    say("listening");
    while !matches!(exporter.serve(soon()).unwrap(), Some(Happened::Mapped { .. })) {}
    assert_eq!(told(), format!("open {number}"));
    let memory = Mine(Arc::new(Mutex::new(exporter)));
    memory.write_at(KEPT, &[0x5a; 0x1000]);
    memory.write_at(RESULT, &[0x10 + number as u8; 0x1000]);
    let (control, until) = (Cell::new(0), Cell::new(soon()));
    let calls = Doorbell { memory: memory.clone(), control, until };
    let rings = AddrRange::new(at(RINGS), Bytes::new(0x1000)).unwrap();
    let mut driver = open(&calls, number as u16, 1, Arc::new(memory.clone()), rings);
    match role.as_str() {
        "summer" => summer(&memory, &mut driver, number),
        "hostile" => hostile(&memory, &mut driver, number),
        "copier" => copier(&memory, &mut driver),
        role => unreachable!("no role {role}"),
    }
}

/// Sums lists until it is told to end, and looks then whether anything else has changed.
fn summer(memory: &Mine, driver: &mut Driver<'_>, number: usize) {
    let (end, ended) = mpsc::channel();
    thread::spawn(move || end.send(told()));
    let mut random = fastrand::Rng::with_seed(number as u64);
    while ended.try_recv().is_err() {
        let mut expected = 0_u64;
        for n in 0..ELEMENTS {
            let next = if n + 1 == ELEMENTS { 0 } else { at(LIST).as_u64() + 16 * (n + 1) };
            let value = random.u64(..);
            expected = expected.wrapping_add(value);
            memory.write_at(LIST + 16 * n, &[next.to_le_bytes(), value.to_le_bytes()].concat());
        }
        assert_eq!(driver.sum(bus(LIST), 2 * ELEMENTS), Ok(expected));
        say("summed");
    }
    assert_eq!(memory.read_at(KEPT, 0x1000), [0x5a; 0x1000]);
    assert_eq!(memory.read_at(RESULT, 0x1000), [0x10 + number as u8; 0x1000]);
    say("as it was");
}

/// Asks for what is the other's by every command there is, uses the other's addresses, and then talks nonsense.
fn hostile(memory: &Mine, driver: &mut Driver<'_>, number: usize) {
    let foreign = BusAddr::new(PRIVATE[1 - number]);
    let refused = |answer| matches!(answer, Err(CallError::Failed { status: Status::Fault, .. }));
    assert!(refused(driver.run(Operation::Copy { from: foreign, to: bus(TO), len: Bytes::new(64) })));
    assert!(refused(driver.run(Operation::Copy { from: bus(FROM), to: foreign, len: Bytes::new(64) })));
    assert!(refused(driver.run(Operation::Store { to: foreign, value: !0 })));
    assert!(refused(driver.sum(foreign, 1)));
    memory.write_at(FROM, &foreign.as_u64().to_le_bytes());
    let gather = Operation::Gather { pointers: bus(FROM), count: 1, each: Bytes::new(64), to: bus(TO) };
    assert!(refused(driver.run(gather)));
    assert_eq!(memory.read_at(TO, 64), [0; 64], "nothing came");
    say("refused what is the other's");
    // Its own page is at its own private address, and what has the other's address is its own.
    assert_eq!(driver.run(Operation::Store { to: BusAddr::new(PRIVATE[number]), value: 1 }), Ok(0));
    assert_eq!(memory.read_at(RESULT, 8), 1_u64.to_le_bytes());
    for offset in [KEPT, RESULT + 8, LIST] {
        assert_eq!(driver.run(Operation::Store { to: bus(offset), value: 0x6666 }), Ok(0));
        assert_eq!(memory.read_at(offset, 8), 0x6666_u64.to_le_bytes());
    }
    say("wrote to its own");
    let mut random = fastrand::Rng::with_seed(99);
    for round in 0..200 {
        let mut rings: Vec<u8> = (0..1024).map(|_| random.u8(..)).collect();
        // Half of the commands are some, with addresses of everybody's.
        for slot in (0..1024).step_by(128) {
            rings[slot..slot + 4].copy_from_slice(&random.u32(1..5).to_le_bytes());
            for field in [16, 24] {
                let to = if random.bool() { foreign.as_u64() } else { BASE + random.u64(..SIZE) };
                rings[slot + field..slot + field + 8].copy_from_slice(&to.to_le_bytes());
            }
        }
        memory.write_at(RINGS, &rings);
        let tail = if round % 3 == 0 { random.u64(..) } else { round };
        memory.write_at(BELL, &(tail | 1 << 63).to_le_bytes());
        thread::sleep(Duration::from_millis(1));
    }
    say("said nonsense");
    thread::sleep(Duration::from_secs(60));
}

/// Copies without end, something else each time.
fn copier(memory: &Mine, driver: &mut Driver<'_>) {
    let mut round = 0_u8;
    loop {
        round = round.wrapping_add(1).max(1);
        memory.write_at(FROM, &vec![round; LONG as usize]);
        let copy = Operation::Copy { from: bus(FROM), to: bus(TO), len: Bytes::new(LONG) };
        let Ok(ticket) = driver.submit(copy) else { break };
        if round == 1 {
            say("copying");
        }
        if driver.wait(ticket).is_err() {
            break;
        }
    }
    // Unbound: nothing is done for it any more.
    thread::sleep(Duration::from_secs(60));
}
