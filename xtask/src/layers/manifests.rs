//! `Cargo.toml` files against the arrows between crates.

use super::Violation;
use super::arrows::CRATES;
use super::modules::may_use;
use crate::repo::TextFile;
use toml::{Table, Value};

const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(file: &TextFile, violations: &mut Vec<Violation>) {
    let mut report = |line: usize, what: String| {
        violations.push(Violation { path: file.path.clone(), line, what });
    };
    let manifest: Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return report(1, format!("not TOML: {error}")),
    };
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str) else {
        // The workspace's own file.
        return;
    };
    let Some(own) = CRATES.iter().find(|row| row.name == name) else {
        return report(
            1,
            format!("crate {name} has no row among the arrows, so nobody decided what it may use; add one"),
        );
    };
    for (key, package) in dependencies(&manifest) {
        let ours = CRATES.iter().any(|row| row.name == package);
        if ours && package != name && !own.may_use.contains(&package.as_str()) {
            let line = line_of(&file.text, &key);
            report(line, format!("{package} must not be used by {name}, which {}", may_use(own.may_use)));
        }
    }
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    let is_own_workspace = manifest.contains_key("workspace");
    if inherits != Some(true) && !is_own_workspace {
        report(
            1,
            format!("crate {name} does not take over the workspace's lints; add `[lints]` with `workspace = true`"),
        );
    }
}

/// Keys and package names of all dependencies, of every kind and target.
fn dependencies(manifest: &Table) -> Vec<(String, String)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables =
        std::iter::once(manifest).chain(targets.into_iter().flat_map(Table::values).filter_map(Value::as_table));
    let lists = tables.flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    lists
        .flatten()
        .map(|(key, value)| {
            let package = value.get("package").and_then(Value::as_str).unwrap_or(key);
            (key.clone(), package.to_string())
        })
        .collect()
}

/// The line on which a dependency's key stands, in either spelling.
fn line_of(text: &str, key: &str) -> usize {
    let stands = |line: &str| {
        let line = line.trim();
        let table = line.starts_with('[') && line.trim_end_matches(']').ends_with(&format!(".{key}"));
        table || line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    text.lines().position(stands).map_or(1, |index| index + 1)
}
