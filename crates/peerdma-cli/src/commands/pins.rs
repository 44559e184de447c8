//! `peerdma pins`: who holds how much pinned and locked memory on this machine.

use crate::args::PinsArguments;
use crate::document::pins::{PinsDocument, share, user_share};
use crate::exit::{Exit, Failure};
use crate::output::{self, columns, printable};
use crate::progress::Progress;
use peerdma::addr::Bytes;
use peerdma_linux::held::{Held, MemLimit, Process, User};
use std::io::Write;

pub(crate) fn run(arguments: &PinsArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<PinsDocument>()?;
        return Ok(Exit::Done);
    }
    let progress = Progress::start("reading processes");
    let read = Held::read(&arguments.proc);
    drop(progress);
    let held = read.map_err(|source| Failure::Read { path: arguments.proc.clone(), source })?;
    let asked = |uid: u32| arguments.user.is_none_or(|user| user == uid);
    let holds = |process: &&Process| {
        let buffers = process.registered.is_some_and(|registered| registered.buffers > 0);
        arguments.all || process.locked > Bytes::ZERO || process.pinned > Bytes::ZERO || buffers
    };
    let processes: Vec<&Process> = held.processes.iter().filter(|it| asked(it.uid)).filter(holds).collect();
    let mut users: Vec<User> = held.users();
    users.retain(|user| asked(user.uid) && (arguments.all || processes.iter().any(|it| it.uid == user.uid)));
    let exit = if held.is_complete() { Exit::Done } else { Exit::Unknown };
    let printed = if arguments.output.json {
        output::json(&PinsDocument::new(&held, &processes, &users))
    } else {
        print(&held, &processes, &users)
    };
    output::concluded(exit, printed)
}

fn print(held: &Held, processes: &[&Process], users: &[User]) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    if processes.is_empty() {
        writeln!(out, "no process holds any locked or pinned memory, of those that could be read")?;
    } else {
        let heads = ["PID", "USER", "COMMAND", "LOCKED", "PINNED", "BUFFERS", "LIMIT", "SHARE"];
        columns(&mut out, &heads, &processes.iter().map(|it| row(it).to_vec()).collect::<Vec<_>>())?;
        let heads = ["USER", "PROCESSES", "LOCKED", "PINNED", "COUNTED", "LIMIT", "SHARE"];
        writeln!(out)?;
        columns(&mut out, &heads, &users.iter().map(|it| user_row(it).to_vec()).collect::<Vec<_>>())?;
    }
    output::notes(&notes(held, processes))
}

fn row(it: &Process) -> [String; 8] {
    let registered = it.registered.map_or("?".into(), |it| match it.buffers {
        0 => "-".into(),
        buffers => format!("{buffers} ({})", it.bytes),
    });
    let limit = match it.bypass {
        Some(true) => "not held to one".into(),
        _ => limit(it.limit),
    };
    let (pid, uid, command) = (it.pid.to_string(), it.uid.to_string(), printable(&it.command));
    [pid, uid, command, amount(it.locked), amount(it.pinned), registered, limit, percent(share(it))]
}

fn user_row(it: &User) -> [String; 7] {
    let counted = if it.charged == Bytes::ZERO { "-".into() } else { format!("about {}", it.charged) };
    let limit = it.limit.map_or("not held to one".into(), |it| limit(Some(it)));
    let (locked, pinned) = (amount(it.locked), amount(it.pinned));
    [it.uid.to_string(), it.processes.to_string(), locked, pinned, counted, limit, percent(user_share(it))]
}

fn amount(bytes: Bytes) -> String {
    if bytes == Bytes::ZERO { "-".into() } else { bytes.to_string() }
}

fn limit(limit: Option<MemLimit>) -> String {
    limit.map_or("?".into(), |limit| limit.to_string())
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share))
}

fn notes(held: &Held, processes: &[&Process]) -> Vec<String> {
    let mut notes = Vec::new();
    if held.hidden {
        notes
            .push("/proc is mounted with hidepid: processes of others do not appear, and sums are lower bounds".into());
    }
    if !held.unread.is_empty() {
        let count = held.unread.len();
        notes.push(format!("{count} processes may not be read and may hold any amount: sums are lower bounds"));
    }
    if processes.iter().any(|it| it.registered.is_none()) {
        notes.push("registered buffers of other users' processes can be seen by root alone (?)".into());
    }
    notes
}
