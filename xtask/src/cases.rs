//! Machines with known answers, checked through the command line as a user would.
//!
//! The repository does not hold such machines (dumps belong to those who posted
//! them); given a folder of them, this checks each that it knows by its path:
//! guests whose own kernel printed its decisions, dumps with reported results, and
//! trees whose 64 bytes of config space leave most of it unknown.

use crate::failure::Failure;
use crate::table;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the right answers are told.
enum Answers {
    /// A file of lines `provider client distance_many=… dist=N type=T`, every pair in it.
    Kernel(&'static str),
    /// A file of lines `provider client T N [ports]`, for some pairs.
    Pairs(&'static str),
    /// One pair, as in such a line.
    One(&'static str),
    /// So many pairs of each map type.
    Counts(&'static [(&'static str, usize)]),
}

struct Case {
    input: &'static str,
    arguments: &'static [&'static str],
    answers: Answers,
}

const CASES: &[Case] = &[
    Case {
        input: "q35-guest/epyc.sysfs.tar.gz",
        arguments: &[],
        answers: Answers::Kernel("q35-guest/oracle-epyc.txt"),
    },
    Case {
        input: "q35-guest/qemu64.sysfs.tar.gz",
        arguments: &[],
        answers: Answers::Kernel("q35-guest/oracle-qemu64.txt"),
    },
    Case {
        input: "q35-guest/lspci.xxxx",
        arguments: &["--cpu", "amd:23", "--kernel", "7.2"],
        answers: Answers::Kernel("q35-guest/oracle-epyc.txt"),
    },
    Case {
        input: "q35-guest/lspci.xxxx",
        arguments: &["--cpu", "amd:15", "--kernel", "7.2"],
        answers: Answers::Kernel("q35-guest/oracle-qemu64.txt"),
    },
    Case {
        input: "q35-guest/lspci.vvv",
        arguments: &["--cpu", "amd:23", "--kernel", "7.2"],
        answers: Answers::Kernel("q35-guest/oracle-epyc.txt"),
    },
    Case {
        input: "q35-guest/lspci.vvv",
        arguments: &["--cpu", "amd:15", "--kernel", "7.2"],
        answers: Answers::Kernel("q35-guest/oracle-qemu64.txt"),
    },
    Case {
        input: "rocket-lake-pex880xx/acs-on.lspci.txt",
        arguments: &["--cpu", "intel:6"],
        answers: Answers::One(
            "0000:0e:00.0 0000:12:00.0 NOT_SUPPORTED 8 [0000:0d:01.0,0000:0b:00.0,0000:11:01.0,0000:0b:10.0]",
        ),
    },
    Case {
        input: "rocket-lake-pex880xx/acs-on.lspci.txt",
        arguments: &[],
        answers: Answers::One(
            "0000:0e:00.0 0000:12:00.0 UNKNOWN 8 [0000:0d:01.0,0000:0b:00.0,0000:11:01.0,0000:0b:10.0]",
        ),
    },
    Case {
        input: "rocket-lake-pex880xx/acs-off.lspci.txt",
        arguments: &["--cpu", "intel:6"],
        answers: Answers::One("0000:0e:00.0 0000:12:00.0 BUS_ADDR 8 []"),
    },
    Case {
        input: "am5-two-rootports/lspci.txt",
        arguments: &["--cpu", "amd:0x1a"],
        answers: Answers::One("0000:03:00.0 0000:08:00.0 THRU_HOST_BRIDGE 8 []"),
    },
    Case {
        input: "am5-two-rootports/lspci.txt",
        arguments: &[],
        answers: Answers::One("0000:03:00.0 0000:08:00.0 UNKNOWN 8 []"),
    },
    Case {
        input: "xe9680-8xh100/lspci-vvv.txt",
        arguments: &[],
        answers: Answers::Pairs("xe9680-8xh100/pairs.expected.txt"),
    },
    Case {
        input: "hwloc/2pa-pcidomain32bits.tar.bz2",
        arguments: &[],
        answers: Answers::Counts(&[("BUS_ADDR", 5), ("UNKNOWN", 76)]),
    },
    Case {
        input: "hwloc/32intel64-2p8co2t+8ve.tar.bz2",
        arguments: &[],
        answers: Answers::Counts(&[("UNKNOWN", 144)]),
    },
    Case {
        input: "hwloc/32intel64-2p8co2t+8ve.tar.bz2",
        arguments: &["--kernel", "7.2"],
        answers: Answers::Counts(&[("THRU_HOST_BRIDGE", 50), ("UNKNOWN", 94)]),
    },
];

/// What is compared of one pair: map type, distance and, where told, redirecting ports.
#[derive(PartialEq, Eq)]
struct Answer {
    map_type: String,
    distance: u64,
    redirects: Option<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let [folder] = arguments else {
        return Err(Failure::Usage("`cases` takes one folder of machines with known answers".into()));
    };
    let folder = Path::new(folder);
    let program = build()?;
    let mut rows = Vec::new();
    let mut failed = 0;
    for case in CASES {
        let input = folder.join(case.input);
        let result = if input.is_file() { check(&program, folder, &input, case)? } else { "not in the folder".into() };
        failed += usize::from(result.starts_with("WRONG"));
        rows.push(vec![format!("{} {}", case.input, case.arguments.join(" ")), result]);
    }
    say!("{}", table::lay_out(&["case", "result"], &rows).trim_end());
    if rows.iter().all(|row| row[1] == "not in the folder") {
        return Err(Failure::Stopped(format!(
            "{} holds none of the known cases; give the folder above them",
            folder.display()
        )));
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Found(format!("{failed} cases have wrong answers"))) }
}

fn build() -> Result<PathBuf, Failure> {
    let root = crate::repo::root()?;
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--package", "peerdma-cli"])
        .current_dir(&root)
        .status()
        .map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}; install Rust")))?;
    if !status.success() {
        return Err(Failure::Stopped("peerdma-cli does not build; the errors are above".into()));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/peerdma"))
}

fn check(program: &Path, folder: &Path, input: &Path, case: &Case) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(["matrix", "--all", "--json", "--from"])
        .arg(input)
        .args(case.arguments)
        .output()
        .map_err(|error| Failure::io("run", program, &error))?;
    if !output.status.success() {
        return Ok(format!("WRONG: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let document: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::Stopped(format!("the output for {} is no JSON: {error}", input.display())))?;
    let got = answers_of(&document);
    let lines = |file: &str| {
        let path = folder.join(file);
        fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))
    };
    Ok(match case.answers {
        Answers::Kernel(file) => {
            let expected: Vec<_> = lines(file)?.lines().filter_map(kernel_line).collect();
            if expected.len() == got.len() { compare(&expected, &got) } else { format!("WRONG: {} pairs", got.len()) }
        }
        Answers::Pairs(file) => compare(&lines(file)?.lines().filter_map(pair_line).collect::<Vec<_>>(), &got),
        Answers::One(line) => compare(&pair_line(line).into_iter().collect::<Vec<_>>(), &got),
        Answers::Counts(expected) => {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for answer in got.values() {
                *counts.entry(answer.map_type.as_str()).or_default() += 1;
            }
            let counts: Vec<(&str, usize)> = counts.into_iter().collect();
            if counts == expected { format!("right: {counts:?}") } else { format!("WRONG: {counts:?}") }
        }
    })
}

type Pair = (String, String);

fn answers_of(document: &Value) -> BTreeMap<Pair, Answer> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let pairs = document["pairs"].as_array().map_or(&[][..], Vec::as_slice);
    pairs
        .iter()
        .map(|pair| {
            let kernel = &pair["kernel"];
            let ports: Vec<String> = kernel["acs_redirects"].as_array().into_iter().flatten().map(text).collect();
            let answer = Answer {
                map_type: text(&kernel["map_type"]),
                distance: kernel["distance"].as_u64().unwrap_or(u64::MAX),
                redirects: Some(format!("[{}]", ports.join(","))),
            };
            // The kernel's provider is the target, its client the initiator.
            ((text(&pair["target"]), text(&pair["initiator"])), answer)
        })
        .collect()
}

fn kernel_line(line: &str) -> Option<(Pair, Answer)> {
    let mut words = line.split_whitespace();
    let pair = (words.next()?.to_string(), words.next()?.to_string());
    let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
    let distance = field("dist=")?.parse().ok()?;
    Some((pair, Answer { map_type: field("type=")?.to_string(), distance, redirects: None }))
}

fn pair_line(line: &str) -> Option<(Pair, Answer)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [provider, client, map_type, distance, redirects] = words.as_slice() else { return None };
    let answer = Answer {
        map_type: map_type.to_string(),
        distance: distance.parse().ok()?,
        redirects: Some(redirects.to_string()),
    };
    Some(((provider.to_string(), client.to_string()), answer))
}

fn compare(expected: &[(Pair, Answer)], got: &BTreeMap<Pair, Answer>) -> String {
    let agrees = |answer: &Answer, got: &Answer| {
        answer.map_type == got.map_type
            && answer.distance == got.distance
            && answer.redirects.as_ref().is_none_or(|redirects| Some(redirects) == got.redirects.as_ref())
    };
    let wrong: Vec<&Pair> = expected
        .iter()
        .filter(|(pair, answer)| !got.get(pair).is_some_and(|got| agrees(answer, got)))
        .map(|(pair, _)| pair)
        .collect();
    match wrong.first() {
        None if expected.is_empty() => "WRONG: no answer to compare with".into(),
        None => format!("right: {} pairs", expected.len()),
        Some((provider, client)) => format!("WRONG: {} of {}, first {provider} {client}", wrong.len(), expected.len()),
    }
}
