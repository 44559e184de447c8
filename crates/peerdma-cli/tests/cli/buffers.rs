//! `demo --serve` and `buffers`: what one tells, the other shows; and nothing is left behind.

use crate::machine::{peerdma, stdout_of};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A demo that serves, and its first line.
struct Served {
    child: Child,
    path: PathBuf,
    first: String,
}

fn serve(name: &str) -> std::io::Result<Served> {
    let path = std::env::temp_dir().join(format!("peerdma-serve-{name}-{}", std::process::id()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_peerdma"))
        .args(["demo", "--for", "120", "--serve"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = String::new();
    if let Some(out) = child.stdout.take() {
        let mut out = BufReader::new(out);
        out.read_line(&mut first)?;
        // Read on, so that it never has to wait for this test.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    }
    Ok(Served { child, path, first })
}

#[test]
fn buffers_shows_what_a_machine_s_buffers_are_at_and_ctrl_c_leaves_no_socket() {
    let mut served = serve("shows").unwrap();
    let path = served.path.to_str().unwrap();
    assert!(served.first.contains(&format!("peerdma buffers --socket {path}")), "{}", served.first);
    let (mut phases, mut waits) = (std::collections::BTreeSet::new(), 0);
    for _ in 0..200 {
        let output = peerdma(&["buffers", "--socket", path, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["pid"], served.child.id());
        let buffer = &document["buffers"][0];
        let holders: Vec<_> = buffer["attachments"].as_array().unwrap().iter().map(|it| &it["holder"]).collect();
        assert!(holders.iter().all(|holder| *holder == "nvme0" || *holder == "nic0"), "{holders:?}");
        phases.insert(buffer["phase"].as_str().unwrap().to_string());
        waits += buffer["waits_for"].as_array().unwrap().len();
        if waits > 0 && phases.contains("live") {
            break;
        }
    }
    assert!(waits > 0, "nobody was ever waited for: {phases:?}");
    let text = stdout_of(&["buffers", "--socket", path], 0);
    let words = ["two-socket, round ", "buffer 1: 128 KiB, rw in ", "phase ", "attached ", "fences ", "waits for "];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&served.child), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    assert!(!served.path.exists());
}

#[test]
fn who_does_not_answer_or_not_as_peerdma_does_is_named() {
    let path = std::env::temp_dir().join(format!("peerdma-serve-none-{}", std::process::id()));
    let path = path.to_str().unwrap();
    let output = peerdma(&["buffers", "--socket", path]);
    assert_eq!(output.status.code(), Some(4));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("nobody answers at") && errors.contains(path), "{errors}");
    // Somebody else's socket, who says other things.
    for answer in ["", "hello", "{\"schema\":1}"] {
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let told = std::thread::spawn(move || {
            use std::io::Write;
            listener.accept().unwrap().0.write_all(answer.as_bytes()).unwrap();
        });
        let output = peerdma(&["buffers", "--socket", path]);
        assert_eq!(output.status.code(), Some(4), "{answer:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer as peerdma does"), "{answer:?}");
        told.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_machine_s_own_buffers_are_listed_and_what_could_not_be_seen_is_said() {
    let output = peerdma(&["buffers", "--machine", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let complete = document["complete"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if complete { 0 } else { 3 }));
    assert_eq!(complete, document["unseen"].as_array().unwrap().is_empty());
    let schema = crate::machine::json_of(&["buffers", "--machine", "--schema"], 0);
    crate::commands::conforms(&schema, &schema, &document, "buffers --machine");
    let text = String::from_utf8_lossy(&peerdma(&["buffers", "--machine"]).stdout).into_owned();
    assert!(text.contains("dma-bufs") || text.contains("EXPORTER"), "{text}");
    assert_eq!(peerdma(&["buffers", "--machine", "--socket", "/x"]).status.code(), Some(2));
}
