//! `cargo xtask layers`: who may use whom, and where `unsafe` may stand.
//!
//! The arrows are data ([`arrows`]); what a file imports is read off its tokens
//! ([`imports`]); `Cargo.toml` files are held against the same arrows
//! ([`manifests`]). The compiler keeps crates apart only as far as their manifests
//! do, and modules of one crate not at all; this check does both.

mod arrows;
mod imports;
mod manifests;
mod modules;
mod unsafety;

use crate::failure::{Failure, no_arguments};
use crate::repo::{self, TextFile};
use std::fmt;

/// Longest source file that goes without a remark.
const LONG_FILE_LINES: usize = 500;

/// One place that breaks a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Runs the check on the working tree.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    no_arguments(arguments)?;
    let root = repo::root()?;
    let files = repo::read(&root, |path| path.ends_with(".rs") || path.ends_with("Cargo.toml"))?;
    for file in too_long(&files) {
        say!("warning: {} has {} lines; more than {LONG_FILE_LINES} hide more than one concept", file.0, file.1);
    }
    let violations = check(&files);
    for violation in &violations {
        say!("{violation}");
    }
    let sources = files.iter().filter(|file| file.path.ends_with(".rs")).count();
    let manifests = files.len() - sources;
    if violations.is_empty() {
        say!("layers: {sources} source files and {manifests} manifests keep to the arrows");
        return Ok(());
    }
    let count = violations.len();
    Err(Failure::Found(format!(
        "{count} break{} of the layering; move what is needed to the lower side, or argue for a new arrow in \
         xtask/src/layers/arrows.rs",
        if count == 1 { "" } else { "s" }
    )))
}

fn too_long(files: &[TextFile]) -> impl Iterator<Item = (&str, usize)> {
    let sources = files.iter().filter(|file| file.path.ends_with(".rs"));
    sources.map(|file| (file.path.as_str(), file.text.lines().count())).filter(|&(_, lines)| lines > LONG_FILE_LINES)
}

/// All breaks in a set of files, sorted by place.
fn check(files: &[TextFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        if file.path.ends_with("Cargo.toml") {
            manifests::check(file, &mut violations);
        } else if file.path.ends_with(".rs") {
            modules::check(file, &mut violations);
            unsafety::check(file, &mut violations);
        }
    }
    violations.sort();
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<TextFile> =
            files.iter().map(|&(path, text)| TextFile { path: path.into(), text: text.into() }).collect();
        check(&files).iter().map(ToString::to_string).collect()
    }

    fn broken_source(path: &str, text: &str) -> Vec<String> {
        broken(&[(path, text)])
    }

    #[test]
    fn an_import_against_an_arrow_is_named_with_line_import_and_arrow() {
        let found =
            broken_source("crates/peerdma/src/pcie/acs.rs", "use crate::addr::Bytes;\n\nuse crate::route::Gate;\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/peerdma/src/pcie/acs.rs:3: crate::route::Gate"), "{}", found[0]);
        assert!(found[0].contains("route must not be used by pcie"), "{}", found[0]);
    }

    #[test]
    fn every_spelling_of_an_import_is_seen() {
        for text in [
            "use crate::{addr::Bytes, route::{Gate}};",
            "use super::super::route::Gate;",
            "use crate::route::{self as r};",
            "use crate::route as r;",
            "pub use crate::route::*;",
            "fn f() -> crate::route::Gate { todo() }",
            "fn f() { g::<crate::route::Gate>() }",
            "macro_rules! m { () => { $crate::route::f() } }",
            "mod inner { use super::super::super::route::Gate; }",
            "use crate as everything;",
            "use crate::*;",
            "use super::super::*;",
            "use crate::r#route::Gate;",
        ] {
            assert_eq!(broken_source("crates/peerdma/src/pcie/acs.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn imports_along_the_arrows_and_mentions_in_prose_pass() {
        for text in [
            "//! See [`crate::route`].\nuse crate::addr::Bytes;",
            "const S: &str = \"use crate::route::Gate;\";",
            "#[cfg(test)]\nmod tests { use crate::route::Gate; }",
            "use super::caps; use self::inner::X; mod inner { use super::super::caps; use super::*; }",
            "fn f() -> impl Iterator + use<'_> { route::nothing() }",
            "pub(crate) fn f(a: alloc::vec::Vec<u8>) {}",
        ] {
            assert_eq!(broken_source("crates/peerdma/src/pcie/acs.rs", text), [""; 0], "{text}");
        }
        assert_eq!(broken_source("crates/peerdma/src/route/mod.rs", "use crate::topology::Topology;"), [""; 0]);
        assert_eq!(broken_source("crates/peerdma/src/lib.rs", "pub use crate::route::Gate;"), [""; 0]);
    }

    #[test]
    fn a_module_without_a_row_is_refused_until_it_has_one() {
        let found = broken_source("crates/peerdma/src/gossip.rs", "");
        assert!(found[0].contains("no row"), "{found:?}");
    }

    #[test]
    fn linux_and_emu_know_nothing_of_each_other() {
        let linux = "crates/peerdma-linux/src/lspci.rs";
        assert_eq!(broken_source(linux, "use peerdma_emu::platform::Platform;").len(), 1);
        assert_eq!(broken_source("crates/peerdma-linux/tests/t.rs", "peerdma_emu::x();").len(), 1);
        assert_eq!(broken_source("crates/peerdma-emu/src/lib.rs", "extern crate peerdma_linux as l;").len(), 1);
        assert_eq!(broken_source(linux, "use peerdma::route::Gate;"), [""; 0]);
        assert_eq!(broken_source("crates/peerdma-cli/src/main.rs", "use {peerdma_emu::a, peerdma_linux::b};"), [""; 0]);
    }

    #[test]
    fn the_emulated_fabric_shares_no_routing_code() {
        for text in
            ["use peerdma::route::Gate;", "use peerdma::{pcie::Fact, route};", "use peerdma as p;", "use peerdma::*;"]
        {
            let found = broken_source("crates/peerdma-emu/src/fabric/port.rs", text);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].contains("peerdma::route"), "{found:?}");
        }
        assert_eq!(broken_source("crates/peerdma-emu/src/fabric.rs", "use peerdma::pcie::Fact;"), [""; 0]);
        // Nor does anything else that has a part in where a request goes, its tests included.
        for path in ["config/reading.rs", "machine/travel.rs", "wire/head.rs", "iommu/walk/mod.rs", "memory.rs"] {
            let path = format!("crates/peerdma-emu/src/{path}");
            let asked = "#[cfg(test)]\nmod tests { fn f() { peerdma::route::Judge::new(&t); } }";
            assert_eq!(broken_source(&path, asked).len(), 1, "{path}");
        }
        assert_eq!(broken_source("crates/peerdma-emu/src/machinery.rs", "use peerdma::route::Gate;"), [""; 0]);
        assert_eq!(broken_source("crates/peerdma-emu/src/platform.rs", "use peerdma::route::Gate;"), [""; 0]);
    }

    #[test]
    fn manifests_follow_the_same_arrows() {
        let manifest = |name: &str, dependencies: &str| {
            format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{dependencies}")
        };
        let linux = |dependencies: &str| {
            broken(&[("crates/peerdma-linux/Cargo.toml", &manifest("peerdma-linux", dependencies))])
        };
        assert_eq!(linux("[dependencies]\npeerdma.workspace = true\nlibc = \"0.2\""), [""; 0]);
        let found = linux("[dev-dependencies]\npeerdma-emu.workspace = true");
        assert!(found[0].starts_with("crates/peerdma-linux/Cargo.toml:6: peerdma-emu"), "{found:?}");
        assert_eq!(
            linux("[target.'cfg(unix)'.dependencies]\nx = { package = \"peerdma-emu\", path = \"y\" }").len(),
            1
        );
        assert_eq!(linux("[build-dependencies.peerdma-cli]\npath = \"y\"").len(), 1);
        assert_eq!(broken(&[("crates/new/Cargo.toml", &manifest("peerdma-new", ""))]).len(), 1);
        assert_eq!(broken(&[("crates/peerdma/Cargo.toml", "[package]\nname = \"peerdma\"")]).len(), 1, "no [lints]");
    }

    #[test]
    fn unsafe_code_stands_only_where_it_may() {
        let anywhere = "crates/peerdma-linux/src/vfio.rs";
        assert_eq!(broken_source(anywhere, "fn f() { unsafe { g() } }").len(), 1);
        assert_eq!(broken_source(anywhere, "#![expect(unsafe_code, reason = \"x\")]").len(), 1);
        assert_eq!(broken_source(anywhere, "#[cfg_attr(x, allow(missing_docs, unsafe_code))] mod a {}").len(), 1);
        assert_eq!(broken_source(anywhere, "#![deny(unsafe_code)] // unsafe\n"), [""; 0]);
        assert_eq!(broken_source("crates/peerdma-linux/src/sys/mem.rs", "unsafe fn f() {}"), [""; 0]);
        assert_eq!(broken_source("crates/peerdma-linux/src/system.rs", "unsafe fn f() {}").len(), 1);
    }
}
