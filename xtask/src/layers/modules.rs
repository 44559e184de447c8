//! Paths in source files against the arrows.

use super::Violation;
use super::arrows::{APART, CORE_SOURCES, CRATES, MODULES, Module, crate_of};
use super::imports::{Import, imports};
use crate::repo::TextFile;
use crate::source::{tokens, without_tests};

pub(super) fn check(file: &TextFile, violations: &mut Vec<Violation>) {
    let all = tokens(&file.text);
    let module = module_path(&file.path);
    let mut report = |line: usize, what: String| {
        violations.push(Violation { path: file.path.clone(), line, what });
    };
    // Between crates tests count too, since their manifests do.
    for import in imports(&all, &module) {
        if let Some(what) = against_crates(&file.path, &import) {
            report(import.line, what);
        }
    }
    let Some(inside) = file.path.strip_prefix(CORE_SOURCES) else { return };
    // The root puts the modules together; tests may look at all of them.
    if inside == "lib.rs" || module.iter().any(|part| part == "tests") {
        return;
    }
    let Some(own) = module.first().map(String::as_str) else { return };
    let Some(row) = MODULES.iter().find(|row| row.name == own) else {
        report(1, format!("module {own} has no row among the arrows, so nobody decided what it may use; add one"));
        return;
    };
    for import in imports(&without_tests(&all), &module) {
        if let Some(what) = against_modules(row, &import) {
            report(import.line, what);
        }
    }
}

/// The module path of a file below some `src/`; empty for roots and for files elsewhere.
fn module_path(path: &str) -> Vec<String> {
    let Some((_, inside)) = path.split_once("/src/") else { return Vec::new() };
    let parts = inside.trim_end_matches(".rs").split('/').map(ToString::to_string);
    let mut parts: Vec<String> = parts.collect();
    if parts.last().is_some_and(|last| last == "mod")
        || matches!(parts.as_slice(), [only] if only == "lib" || only == "main")
    {
        parts.pop();
    }
    parts
}

fn against_crates(path: &str, import: &Import) -> Option<String> {
    let written = import.path.join("::");
    let named = import.path.first()?;
    let used = CRATES.iter().find(|row| row.name.replace('-', "_") == *named && row.name != "xtask")?;
    let own = crate_of(path)?;
    if own.name != used.name && !own.may_use.contains(&used.name) {
        return Some(format!(
            "{written}: {} must not be used by {}, which {}",
            used.name,
            own.name,
            may_use(own.may_use)
        ));
    }
    let apart =
        APART.iter().find(|apart| path.strip_prefix(apart.sources).is_some_and(|rest| rest.starts_with(['/', '.'])))?;
    // A whole crate under another name, or a glob of it, would hide what is used of it.
    let open = import.path.iter().take_while(|segment| *segment != "*").count();
    let shared = open.min(apart.path.len());
    let reaches = import.path[..shared] == apart.path[..shared] && (open >= apart.path.len() || is_whole(import));
    reaches.then(|| {
        format!("{written}: {} must not be used by {}: {}", apart.path.join("::"), apart.sources, apart.because)
    })
}

fn against_modules(own: &Module, import: &Import) -> Option<String> {
    let written = import.path.join("::");
    if import.path.first()? != "crate" {
        return None;
    }
    if is_whole(import) {
        return Some(format!("{written}: the whole crate under one name hides which modules {} uses", own.name));
    }
    let used = import.path.get(1)?;
    if used == own.name || own.may_use.contains(&used.as_str()) {
        return None;
    }
    if MODULES.iter().any(|row| row.name == used) {
        return Some(format!("{written}: {used} must not be used by {}, which {}", own.name, may_use(own.may_use)));
    }
    Some(format!("{written}: {used} is no module with a row among the arrows; import from the module that defines it"))
}

fn is_whole(import: &Import) -> bool {
    matches!(import.path.as_slice(), [_]) || matches!(import.path.as_slice(), [_, glob] if glob == "*")
}

pub(super) fn may_use(names: &[&str]) -> String {
    match names {
        [] => "may use none of the others".into(),
        names => format!("may use {}", names.join(", ")),
    }
}
