//! `share` and `attach`: two processes, what one tells the other, and what is left when either ends.

use crate::machine::{Folder, json_of, peerdma};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// A command that runs beside the test; killed when dropped.
struct Running {
    process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerdma"));
        command.args(arguments).env("NO_COLOR", "1");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, stdin, said }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The rest of the next line that tells of this; what comes before it is passed over.
    fn tells(&self, what: &str) -> String {
        let mut before = Vec::new();
        loop {
            let Ok(line) = self.said.recv_timeout(Duration::from_secs(60)) else {
                unreachable!("nothing of {what:?} after {before:#?}")
            };
            let mut words = line.split_whitespace();
            if words.nth(1) == Some(what) {
                return words.collect::<Vec<_>>().join(" ");
            }
            before.push(line);
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Kills it, and waits until it has ended.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for its end: exit code, standard output that nobody has asked for, standard error.
    fn ends(mut self) -> (Option<i32>, String, String) {
        let mut errors = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let code = self.process.wait().unwrap().code();
        let rest: Vec<String> = self.said.iter().collect();
        (code, rest.join("\n"), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn share(folder: &Folder, more: &[&str]) -> Running {
    let socket = folder.join("socket");
    let patience: &[&str] = if more.contains(&"--patience") { &[] } else { &["--patience", "60"] };
    let share = Running::start(&[&["share", "memfd", "--socket", &socket], patience, more].concat());
    if !more.contains(&"--json") {
        share.tells("sharing");
    }
    share
}

fn attach(folder: &Folder, more: &[&str]) -> Running {
    Running::start(&[&["attach", &folder.join("socket"), "--patience", "60"], more].concat())
}

fn is_there(folder: &Folder) -> bool {
    Path::new(&folder.join("socket")).exists()
}

#[test]
fn memory_is_taken_away_moved_and_given_back_and_holds_what_it_should_each_time() {
    let folder = Folder::new();
    let mut share = share(&folder, &["--seed", "5"]);
    let attach = attach(&folder, &["--write", "--seed", "5"]);
    assert!(attach.tells("attached").contains("movable, rw by cpu, enforcement cooperative"));
    assert!(share.tells("attached").contains(&format!("by process {} (peerdma)", attach.pid())));
    assert!(attach.tells("mapped").ends_with("it holds pattern 0, every byte compared"));
    attach.tells("wrote");
    share.type_line("revoke");
    assert!(attach.tells("let-go").starts_with("reset, who waits "));
    attach.tells("unmapped");
    assert_eq!(share.tells("revoked"), "nobody has it mapped");
    share.type_line("restore");
    assert!(attach.tells("mapped").ends_with("generation 1; it holds pattern 1, every byte compared"));
    attach.tells("wrote");
    share.type_line("move");
    assert!(attach.tells("let-go").starts_with("move"));
    share.tells("moved");
    assert_eq!(attach.tells("moved"), "its bytes lie in ram now");
    assert!(attach.tells("mapped").ends_with("generation 2; it holds pattern 1, every byte compared"));
    attach.tells("wrote");
    share.type_line("status");
    assert_eq!(share.tells("status"), "the buffer is live");
    assert!(share.tells("status").contains("(peerdma, running), 1 mapped, cooperative"));
    assert_eq!(share.tells("status"), "it holds pattern 1");
    share.type_line("fetch");
    assert!(share.tells("usage").contains("\"fetch\" is no command"));
    share.type_line("quit");
    attach.tells("gone");
    let (attach, share) = (attach.ends(), share.ends());
    assert_eq!((attach.0, attach.2.as_str()), (Some(0), ""));
    assert_eq!((share.0, share.2.as_str(), is_there(&folder)), (Some(0), "", false));
}

#[test]
fn whoever_does_not_let_go_is_named_when_the_wait_ends() {
    let folder = Folder::new();
    let mut share = share(&folder, &["--patience", "0.3"]);
    let keeps = attach(&folder, &["--keep"]);
    keeps.tells("mapped");
    share.tells("mapped");
    share.type_line("revoke");
    assert_eq!(keeps.tells("let-go"), "reset; kept, as --keep says");
    let held = share.tells("held");
    assert!(held.contains(&format!("peerdma attach in process {} (peerdma) has 1 mapping", keeps.pid())), "{held}");
    assert_eq!(share.tells("gave-up"), "reset does not happen; importers may map on");
    share.type_line("quit");
    let (code, _, _) = share.ends();
    assert_eq!((code, is_there(&folder)), (Some(1), false));
    // Nobody took the memory from it, and nobody told it that it was over.
    assert!(keeps.tells("kept").ends_with("holds pattern 0, every byte compared"));
    let (code, _, errors) = keeps.ends();
    assert!(code == Some(4) && errors.contains("the exporter is gone without a word"), "{errors}");
}

#[test]
fn a_signal_leaves_nothing_behind_at_either_side() {
    let folder = Folder::new();
    let share = share(&folder, &[]);
    let first = attach(&folder, &[]);
    first.tells("mapped");
    first.terminate();
    assert_eq!(first.tells("detached"), "nothing is mapped");
    assert_eq!(first.ends().0, Some(0));
    share.tells("detached");
    let second = attach(&folder, &[]);
    second.tells("mapped");
    share.terminate();
    second.tells("gone");
    assert_eq!(second.ends().0, Some(0));
    assert_eq!((share.ends().0, is_there(&folder)), (Some(0), false));
}

#[test]
fn an_exporter_that_is_killed_leaves_its_path_and_the_next_takes_it() {
    let folder = Folder::new();
    let mut killed = share(&folder, &[]);
    let orphan = attach(&folder, &[]);
    orphan.tells("mapped");
    killed.kill();
    assert!(orphan.tells("kept").ends_with("holds pattern 0, every byte compared"));
    assert_eq!(orphan.ends().0, Some(4));
    assert!(is_there(&folder));
    let nobody = peerdma(&["attach", &folder.join("socket")]);
    assert_eq!(nobody.status.code(), Some(4));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("share it first"));
    let next = share(&folder, &["--for", "0.1"]);
    assert_eq!((next.ends().0, is_there(&folder)), (Some(0), false));
}

#[test]
fn what_can_never_work_is_refused_with_its_rule_before_anything_is_handed_out() {
    let folder = Folder::new();
    let socket = folder.join("socket");
    let strict = share(&folder, &["--floor", "kernel"]);
    assert!(strict.tells("note").starts_with("nobody will attach"));
    let refused = json_of(&["attach", &socket, "--json"], 1);
    assert_eq!((&refused["rule"], &refused["terms"]), (&"unenforced".into(), &Value::Null));
    let refused = json_of(&["attach", &socket, "--enforcement", "kernel", "--json"], 1);
    assert_eq!(refused["rule"], "overstated");
    assert!(strict.tells("refused").contains("(unenforced)"));
    drop(strict);
    let read_only = share(&folder, &["--read-only"]);
    assert_eq!(json_of(&["attach", &socket, "--write", "--json"], 1)["rule"], "prot_not_offered");
    let done = json_of(&["attach", &socket, "--once", "--json"], 0);
    assert_eq!((&done["terms"]["prot"], &done["terms"]["bytes"]), (&"r".into(), &(1 << 20).into()));
    let events: Vec<&str> =
        done["events"].as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(events, ["offered", "attached", "mapped", "detached"]);
    let other = peerdma(&["attach", &socket, "--once", "--seed", "1"]);
    assert_eq!(other.status.code(), Some(4), "the memory holds the pattern of another seed");
    drop(read_only);
}

#[test]
fn times_on_the_command_line_play_the_same_life_into_a_document() {
    let folder = Folder::new();
    let share = share(&folder, &["--json", "--revoke-after", "0.1", "--restore-after", "0.1", "--for", "20"]);
    while !is_there(&folder) {
        thread::sleep(Duration::from_millis(5));
    }
    let attach = attach(&folder, &[]);
    assert!(attach.tells("mapped").contains("generation 0"));
    assert!(attach.tells("mapped").contains("generation 1; it holds pattern 1"));
    attach.terminate();
    assert_eq!(attach.ends().0, Some(0));
    share.terminate();
    let (code, json, errors) = share.ends();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&document["bytes"], &document["events_left_out"]), (&(1 << 20).into(), &0.into()));
    let events: Vec<&str> =
        document["events"].as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    let places = ["sharing", "attached", "mapped", "announced", "unmapped", "revoked", "restored", "detached", "done"]
        .map(|what| events.iter().position(|event| *event == what));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{events:?}");
}

#[test]
fn what_cannot_be_shared_is_told_by_name() {
    let folder = Folder::new();
    let file = folder.join("file");
    std::fs::write(&file, "dear").unwrap();
    let socket = folder.join("socket");
    for (arguments, said) in [
        (&["share", "memfd", "--socket", &file][..], "is no socket"),
        (&["share", "memfd", "--socket", &socket, "--size", "5"], "whole pages"),
        (&["share", "ffff:1f.7/bar0", "--socket", &socket], "ffff:1f.7"),
        (&["share", "memfd"], "--socket"),
        (&["attach"], "PATH"),
        (&["attach", &socket, "--once", "--keep"], "--keep"),
    ] {
        let output = peerdma(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && errors.contains(said), "{arguments:?}: {errors}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"dear");
    for (arguments, said) in [
        (&["share", "ffff:1f.7/bar0", "--socket", &socket, "--size", "4096"][..], "--size is of a memfd"),
        (&["share", "ffff:1f.7/bar0", "--socket", &socket, "--read-only"], "--read-only is of a memfd"),
    ] {
        let output = peerdma(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && errors.contains(said), "{arguments:?}: {errors}");
    }
    // A function of this machine, if it has any: the BAR has to be named.
    let functions = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    if let Some(function) = functions.map(|function| function.file_name().into_string().unwrap()).next() {
        let output = peerdma(&["share", &function, "--socket", &socket]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && errors.contains("name the BAR to share"), "{errors}");
    }
    assert!(!is_there(&folder));
}

#[test]
fn schemas_name_what_documents_hold() {
    for (command, parts) in [
        ("share", &["name", "bytes", "socket", "refused", "events", "events_left_out"][..]),
        ("attach", &["socket", "terms", "rule", "refused", "events", "events_left_out"]),
    ] {
        let schema = json_of(&[command, "--schema"], 0);
        for part in parts {
            assert!(schema["properties"][part].is_object(), "{command}: {part}");
        }
    }
}
