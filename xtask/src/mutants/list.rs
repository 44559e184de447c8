//! The list of breaks, `xtask/mutants.toml`.

use crate::failure::Failure;
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Where the list is.
pub(super) const PATH: &str = "xtask/mutants.toml";

/// One break and the test that must notice it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    /// The file to break, from the top folder.
    pub(super) file: String,
    /// What stands there, exactly once.
    pub(super) from: String,
    /// What is put in its place.
    pub(super) to: String,
    /// Arguments of `cargo test` that select the test.
    pub(super) test: String,
    /// What the break does, for people.
    pub(super) why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// Reads the list.
pub(super) fn read(root: &Path) -> Result<Vec<Mutant>, Failure> {
    let path = root.join(PATH);
    let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Mutant>, Failure> {
    let list: List = toml::from_str(text).map_err(|error| Failure::Stopped(format!("{PATH}: {error}")))?;
    Ok(list.mutant)
}

impl Mutant {
    /// Whether a word that chooses among mutants occurs in this one.
    pub(super) fn mentions(&self, word: &str) -> bool {
        [&self.file, &self.test, &self.why].iter().any(|text| text.contains(word))
    }

    /// The file's name without the folders that all share.
    pub(super) fn place(&self) -> String {
        self.file.trim_start_matches("crates/").replacen("/src/", ":", 1)
    }

    /// The package whose tests are run.
    pub(super) fn package(&self) -> &str {
        let mut words = self.test.split_whitespace();
        words.find(|word| *word == "-p").and_then(|_| words.next()).unwrap_or("")
    }

    /// The name that selects the test, without the package it is in.
    pub(super) fn test_name(&self) -> &str {
        self.test.rsplit(' ').next().unwrap_or(&self.test)
    }

    /// The broken text, or why the break cannot be made.
    pub(super) fn apply(&self, text: &str) -> Result<String, String> {
        if self.from == self.to {
            return Err("from and to are the same, so nothing breaks".into());
        }
        match text.matches(&self.from).count() {
            1 => Ok(text.replacen(&self.from, &self.to, 1)),
            0 => Err(format!("`{}` does not occur in {}; the code moved on", self.from, self.file)),
            times => Err(format!("`{}` occurs {times} times in {}; quote more of the line", self.from, self.file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(from: &str, to: &str) -> Mutant {
        let [file, test, why] = ["crates/a/src/b.rs", "-p a c", "d"].map(str::to_string);
        Mutant { file, from: from.into(), to: to.into(), test, why }
    }

    #[test]
    fn a_break_applies_where_its_text_stands_exactly_once() {
        assert_eq!(mutant("x < y", "x > y").apply("if x < y {}").as_deref(), Ok("if x > y {}"));
        assert!(mutant("z", "q").apply("if x < y {}").is_err_and(|why| why.contains("does not occur")));
        assert!(mutant("x", "q").apply("x x").is_err_and(|why| why.contains("2 times")));
        assert!(mutant("x", "x").apply("x").is_err());
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let entry = "[[mutant]]\nfile = 'f'\nfrom = 'a'\nto = 'b'\ntest = 't'\nwhy = 'w'\n";
        assert_eq!(parse(entry).map(|list| list.len()).ok(), Some(1));
        assert!(parse(&entry.replace("why", "because")).is_err());
    }

    #[test]
    fn every_break_of_the_list_applies_to_the_code_beside_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mutants = read(&root).unwrap();
        for mutant in &mutants {
            let text = fs::read_to_string(root.join(&mutant.file)).unwrap();
            assert_eq!(mutant.apply(&text).err(), None);
        }
    }
}
