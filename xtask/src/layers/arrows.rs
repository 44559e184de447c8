//! The arrows themselves. A new module or crate gets its row here, with the review
//! that a new dependency deserves.

/// What a module of the `peerdma` crate may use of its siblings.
pub(super) struct Module {
    pub(super) name: &'static str,
    pub(super) may_use: &'static [&'static str],
}

/// `addr <- chunk <- {pcie <- topology <- route} <- dma <- buffer <- mirror`, `pin: addr only` (and `sync`, below all).
///
/// Rows of modules that do not exist yet cost nothing and settle their place.
pub(super) const MODULES: &[Module] = &[
    Module { name: "addr", may_use: &[] },
    Module { name: "access", may_use: &[] },
    Module { name: "sync", may_use: &[] },
    Module { name: "event", may_use: &["addr"] },
    Module { name: "pin", may_use: &["addr", "sync"] },
    Module { name: "chunk", may_use: &["access", "addr"] },
    Module { name: "pcie", may_use: &["addr", "chunk"] },
    Module { name: "topology", may_use: &["addr", "chunk", "pcie"] },
    Module { name: "route", may_use: &["addr", "chunk", "pcie", "topology"] },
    Module { name: "iova", may_use: &["addr", "sync"] },
    Module { name: "pool", may_use: &["addr", "iova", "sync"] },
    Module { name: "iopt", may_use: &["access", "addr", "sync"] },
    Module {
        name: "dma",
        may_use: &["access", "addr", "chunk", "pcie", "topology", "route", "iova", "iopt", "event", "sync"],
    },
    Module {
        name: "buffer",
        may_use: &["access", "addr", "chunk", "pcie", "topology", "route", "dma", "event", "sync"],
    },
    Module {
        name: "mirror",
        may_use: &["access", "addr", "chunk", "pcie", "topology", "route", "dma", "buffer", "event", "sync"],
    },
];

/// What a crate may use of the others, in its library, tests and build alike.
pub(super) struct Crate {
    pub(super) name: &'static str,
    pub(super) may_use: &'static [&'static str],
}

/// `peerdma <- peerdma-emu`, `peerdma <- peerdma-linux`, `all <- peerdma-cli`; linux and emu never meet.
pub(super) const CRATES: &[Crate] = &[
    Crate { name: "peerdma", may_use: &[] },
    Crate { name: "peerdma-emu", may_use: &["peerdma"] },
    Crate { name: "peerdma-linux", may_use: &["peerdma"] },
    Crate { name: "peerdma-cli", may_use: &["peerdma", "peerdma-emu", "peerdma-linux"] },
    Crate { name: "peerdma-bench", may_use: &["peerdma", "peerdma-emu", "peerdma-linux"] },
    Crate { name: "peerdma-fuzz", may_use: &["peerdma", "peerdma-emu", "peerdma-linux"] },
    Crate { name: "peerdma-guest", may_use: &["peerdma", "peerdma-linux"] },
    Crate { name: "peerdma-models", may_use: &["peerdma"] },
    Crate { name: "xtask", may_use: &["peerdma", "peerdma-emu", "peerdma-linux"] },
];

/// A path that one module of one crate must not use although its crate may use the other.
pub(super) struct Apart {
    /// Where the module lies, as the start of a path below the top folder.
    pub(super) sources: &'static str,
    /// What it must not use.
    pub(super) path: &'static [&'static str],
    /// Why.
    pub(super) because: &'static str,
}

/// Pairs kept apart within what the crates' arrows allow: whatever has a part in where a request of an
/// emulated machine goes, and the routes of the resolver.
pub(super) const APART: &[Apart] = &[
    no_routes("crates/peerdma-emu/src/fabric"),
    no_routes("crates/peerdma-emu/src/config"),
    no_routes("crates/peerdma-emu/src/machine"),
    no_routes("crates/peerdma-emu/src/wire"),
    no_routes("crates/peerdma-emu/src/iommu"),
    no_routes("crates/peerdma-emu/src/memory"),
];

const fn no_routes(sources: &'static str) -> Apart {
    Apart { sources, path: &["peerdma", "route"], because: "two oracles that share code agree on their mistakes" }
}

/// The crate whose modules [`MODULES`] orders.
pub(super) const CORE_SOURCES: &str = "crates/peerdma/src/";

/// The only folder whose files may hold `unsafe`.
pub(super) const UNSAFE_SOURCES: &str = "crates/peerdma-linux/src/sys/";

/// Which crate a source file belongs to, by its place.
pub(super) fn crate_of(path: &str) -> Option<&'static Crate> {
    let folder = match path.strip_prefix("crates/") {
        Some(rest) => rest.split('/').next()?,
        None => match path.split('/').next()? {
            "bench" => "peerdma-bench",
            "fuzz" => "peerdma-fuzz",
            "guest" => "peerdma-guest",
            "models" => "peerdma-models",
            other => other,
        },
    };
    CRATES.iter().find(|row| row.name == folder)
}
