//! A machine's file, changed if need be, and the program run on it.

use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A file of `machines/`, as it is or changed.
pub(crate) struct Case(String);

impl Case {
    /// The file as it stands.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/field/machines").join(name);
        Self(std::fs::read_to_string(path).unwrap())
    }

    /// The same machine with one piece of the file's text replaced.
    pub(crate) fn with(self, from: &str, to: &str) -> Self {
        assert_eq!(self.0.matches(from).count(), 1, "{from:?} stands once in the file");
        Self(self.0.replace(from, to))
    }

    /// The same machine with another ACS control word in every port that has one.
    pub(crate) fn acs_everywhere(self, control: u16) -> Self {
        let mut pieces = self.0.split("ctl = 0x");
        let mut text = pieces.next().unwrap().to_string();
        for piece in pieces {
            text.push_str(&format!("ctl = {control:#04x}{}", &piece[2..]));
        }
        Self(text)
    }

    /// The same machine with another ACS control word in the port at this address.
    pub(crate) fn acs(self, port: &str, control: u16) -> Self {
        let from_port = self.0.find(&format!("bdf = \"{port}\"")).unwrap();
        let word = from_port + self.0[from_port..].find("ctl = 0x").unwrap() + "ctl = 0x".len();
        let (before, after) = self.0.split_at(word);
        Self(format!("{before}{control:02x}{}", &after[2..]))
    }

    /// The same machine, given as lspci text, with no port redirecting.
    pub(crate) fn with_redirects_off(self) -> Self {
        Self(self.0.replace("SrcValid- TransBlk- ReqRedir+ CmpltRedir+", "SrcValid- TransBlk- ReqRedir- CmpltRedir-"))
    }

    /// The same machine with drivers that can form any address.
    pub(crate) fn without_masks(self) -> Self {
        Self(self.0.replace("mask_bits = 44\n", ""))
    }

    /// Standard output of a command on this machine, with the wanted exit code.
    pub(crate) fn text(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}\n{errors}");
        text
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerdma"));
        command.args(arguments).args(["--from", "-"]).env("NO_COLOR", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.0.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The JSON of a command on this machine, with the wanted exit code.
    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat(), code)).unwrap()
    }

    /// `route` from one function to another: the pair there, without the way back.
    pub(crate) fn pair(&self, from: &str, to: &str, code: i32) -> Value {
        self.json(&["route", from, to], code)["pairs"][0].take()
    }

    /// What `route` tells of others' findings about a pair, whatever its verdict.
    pub(crate) fn known(&self, from: &str, to: &str) -> String {
        let output = self.run(&["route", from, to, "--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["pairs"][0]["known"].to_string()
    }

    /// What `route` prints about the pair there, without the way back.
    pub(crate) fn explained(&self, from: &str, to: &str, code: i32) -> String {
        let text = self.text(&["route", from, to], code);
        text.split("\n\n").next().unwrap().to_string()
    }
}

/// The reasons of one gate.
pub(crate) fn reasons<'v>(pair: &'v Value, gate: &str) -> Vec<&'v Value> {
    pair["reasons"].as_array().unwrap().iter().filter(|reason| reason["gate"] == gate).collect()
}

/// Asserts that a text contains every one of some words.
pub(crate) fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
}
