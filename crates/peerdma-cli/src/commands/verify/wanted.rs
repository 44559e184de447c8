//! What a fix wanted: JSON as `fix` writes it, or TOML with the same ports.
//!
//! The file comes from anywhere, so it is bounded before it is parsed.

use crate::args::bit;
use crate::document::fix::PortDocument;
use crate::exit::Failure;
use peerdma::pcie::PciAddr;
use peerdma::pcie::acs::AcsBits;
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of a file: thousands of ports.
const MAX_BYTES: u64 = 4 << 20;

/// Bits wanted at one port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) address: Option<PciAddr>,
    /// Its path, written as `fix` writes it.
    pub(super) path: Option<String>,
    pub(super) clear: AcsBits,
    pub(super) set: AcsBits,
}

impl Wanted {
    /// What the reader knows it by.
    pub(super) fn name(&self) -> String {
        match (&self.path, self.address) {
            (Some(path), _) => path.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        }
    }
}

#[derive(Deserialize)]
struct Document {
    schema: Option<u32>,
    /// Of `fix`.
    outcome: Option<String>,
    ports: Vec<PortDocument>,
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<Wanted>, Failure> {
    let failed = |source| Failure::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let limit = MAX_BYTES + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    let shown = path.display().to_string();
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::Input {
            what: format!("{shown} is longer than 4 MiB; no list of ports is"),
            source: None,
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| Failure::input(format!("{shown} is not text"), error))?;
    parse(&text, &shown)
}

fn parse(text: &str, shown: &str) -> Result<Vec<Wanted>, Failure> {
    let what = || format!("{shown} is neither the JSON of peerdma fix nor TOML with [[ports]]");
    let document: Document = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| Failure::input(what(), error))?
    } else {
        toml::from_str(text).map_err(|error| Failure::input(what(), error))?
    };
    let schema = crate::document::SCHEMA;
    if let Some(found) = document.schema.filter(|&found| found != schema) {
        let what =
            format!("{shown} is of schema {found}, this program reads schema {schema}; use the version that wrote it");
        return Err(Failure::Input { what, source: None });
    }
    if let Some(outcome) = document.outcome.filter(|outcome| !matches!(outcome.as_str(), "found" | "not_needed")) {
        let what = format!(
            "{shown} is of a peerdma fix that found no ports to change (outcome {outcome:?}), so there is nothing to verify"
        );
        return Err(Failure::Input { what, source: None });
    }
    let ports = document.ports.into_iter().enumerate();
    let wanted = ports.map(|(index, port)| {
        wanted(port).map_err(|why| Failure::Input { what: format!("{shown}: port {}: {why}", index + 1), source: None })
    });
    wanted.collect()
}

fn wanted(port: PortDocument) -> Result<Wanted, String> {
    let bits = |words: &[String]| {
        words.iter().try_fold(AcsBits::empty(), |bits, word| match bit(word) {
            Some(bit) => Ok(bits | bit),
            None => Err(format!("no ACS bit is called {word:?}; there are sv, tb, rr, cr, uf, ec, dt")),
        })
    };
    let (clear, set) = (bits(&port.clear)?, bits(&port.set)?);
    if clear.intersects(set) {
        return Err("the same bit is wanted both clear and set".into());
    }
    if (clear | set).is_empty() {
        return Err("it wants no bit clear and none set".into());
    }
    let address = port.bdf.map(|text| text.parse().map_err(|error| format!("{text:?}: {error}"))).transpose()?;
    let path = port.path.map(|text| normal(&text).ok_or(format!("{text:?} is not a path such as 0000:00:01.0/00.0")));
    let path = path.transpose()?;
    if address.is_none() && path.is_none() {
        return Err("it has neither a bdf nor a path".into());
    }
    Ok(Wanted { address, path, clear, set })
}

/// A path as `fix` writes it.
fn normal(text: &str) -> Option<String> {
    let (first, below) = text.split_once('/').map_or((text, None), |(first, below)| (first, Some(below)));
    let mut path = first.parse::<PciAddr>().ok()?.to_string();
    for step in below.into_iter().flat_map(|below| below.split('/')) {
        let step: PciAddr = format!("00:{step}").parse().ok()?;
        path.push_str(&format!("/{:02x}.{:x}", step.devfn().device(), step.devfn().function()));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_toml_mean_the_same() {
        let json =
            r#"{"schema":1,"ports":[{"bdf":"02:00.0","path":"0:00:01.0/0.0","clear":["rr","cr"],"set":["uf"]}]}"#;
        let toml =
            "[[ports]]\nbdf = \"0000:02:00.0\"\npath = \"00:01.0/00.0\"\nclear = [\"rr\", \"cr\"]\nset = [\"uf\"]\n";
        let read = parse(json, "x").ok().unwrap();
        assert_eq!(read, parse(toml, "x").ok().unwrap());
        assert_eq!(read[0].path.as_deref(), Some("0000:00:01.0/00.0"));
        assert_eq!(read[0].set, AcsBits::UF);
    }

    #[test]
    fn what_is_not_a_list_of_ports_is_refused_and_never_panics() {
        let deep = "{\"ports\":".to_string() + &"[".repeat(100_000);
        let tables = "a.".repeat(10_000) + "a = 1";
        let arrays = "ports = ".to_string() + &"[".repeat(100_000);
        let inline = "ports = ".to_string() + &"{a=".repeat(100_000);
        for text in [
            "",
            "{}",
            "{\"ports\":[{}]}",
            "{\"ports\":[{\"bdf\":\"99:99.9\"}]}",
            "{\"ports\":[{\"bdf\":\"00:01.0\",\"clear\":[\"xx\"]}]}",
            "{\"ports\":[{\"bdf\":\"00:01.0\",\"clear\":[\"rr\"],\"set\":[\"rr\"]}]}",
            "{\"ports\":[{\"path\":\"00:01.0/\"}]}",
            "{\"schema\":2,\"ports\":[]}",
            "ports = 3",
            &deep,
            &tables,
            &arrays,
            &inline,
        ] {
            assert!(parse(text, "x").is_err(), "{}", &text[..text.len().min(60)]);
        }
    }
}
