//! Document of `memlock`.

use super::SCHEMA;
use crate::commands::memlock::{Line, Told, lines};
use peerdma::addr::Bytes;
use peerdma::pin::{Backend, CounterNeed, Need};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `memlock`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct MemlockDocument {
    /// Version of this schema.
    schema: u32,
    /// Bytes of RLIMIT_MEMLOCK that the plan needs by itself.
    required: u64,
    /// The same together with what the user has charged now.
    required_with_charged: u64,
    /// `suffices`; `not_held`: this process has CAP_IPC_LOCK; `may_suffice`: what is charged cannot be told; `lacks`.
    #[schemars(extend("enum" = ["suffices", "not_held", "may_suffice", "lacks"]))]
    answer: &'static str,
    /// Bytes of the soft limit that it was held against; null is unlimited.
    limit: Option<u64>,
    /// Number of the user whose processes were counted.
    uid: u32,
    /// About what stands in his user->locked_vm now.
    charged: u64,
    /// Whether all of his processes were seen.
    complete: bool,
    /// What each counter comes to.
    counters: Vec<CounterDocument>,
    /// Every backend with its rule.
    backends: Vec<BackendDocument>,
    /// Where to set `required_with_charged`.
    lines: Vec<LineDocument>,
}

/// One counter.
#[derive(Serialize, JsonSchema, Debug)]
struct CounterDocument {
    /// Its name in the kernel's source.
    counter: &'static str,
    /// `process` or `user`.
    #[schemars(extend("enum" = ["process", "user"]))]
    basis: &'static str,
    /// Name of the process in the plan; null where the user's processes share it.
    process: Option<String>,
    /// Bytes that it comes to.
    need: u64,
    /// Whether anything in the plan holds it against the limit.
    limited: bool,
}

/// One backend.
#[derive(Serialize, JsonSchema, Debug)]
struct BackendDocument {
    /// One stable word.
    backend: &'static str,
    /// Bytes that the plan has charged through it.
    charged: u64,
    /// Bytes of RLIMIT_MEMLOCK that the plan would need if everything went through it.
    required_if_all: u64,
    /// The counter that it holds against the limit; null for none.
    counter: Option<&'static str>,
    /// A counter that it raises besides; null for none.
    also: Option<&'static str>,
    /// Units, and how often the same memory is counted.
    counted: &'static str,
    /// What shares charges.
    scope: &'static str,
    /// Whose limit it is.
    limit: &'static str,
    /// Who is not held to it; null for nobody.
    bypass: Option<&'static str>,
    /// What the kernel answers over the limit.
    error: &'static str,
    /// Where in Linux that stands.
    source: &'static str,
}

/// One place where a limit is set.
#[derive(Serialize, JsonSchema, Debug)]
struct LineDocument {
    /// Which program.
    program: &'static str,
    /// The file it goes into, or the command it belongs to.
    place: &'static str,
    /// What to write.
    line: String,
    /// What else to know; empty if nothing.
    note: &'static str,
}

impl MemlockDocument {
    pub(crate) fn new(told: &Told) -> Self {
        let standing = &told.standing;
        let all = standing.with_charged;
        Self {
            schema: SCHEMA,
            required: told.need.limit.as_u64(),
            required_with_charged: all.as_u64(),
            answer: standing.answer.word(),
            limit: standing.limit.soft.map(Bytes::as_u64),
            uid: standing.uid,
            charged: standing.charged.as_u64(),
            complete: standing.complete,
            counters: told.need.counters.iter().map(|it| counter(told, it)).collect(),
            backends: told.through.iter().map(|(it, all)| backend(&told.need, *it, all)).collect(),
            lines: lines(all).into_iter().map(line).collect(),
        }
    }
}

fn counter(told: &Told, it: &CounterNeed) -> CounterDocument {
    let name = it.process.and_then(|process| told.processes.get(usize::try_from(process.number()).ok()?));
    CounterDocument {
        counter: it.counter.word(),
        basis: it.counter.basis().word(),
        process: name.cloned(),
        need: it.need.as_u64(),
        limited: it.limited,
    }
}

fn backend(need: &Need, it: Backend, all: &Need) -> BackendDocument {
    let rule = it.rule();
    let charged = need.backends.iter().find(|(known, _)| *known == it).map_or(0, |(_, bytes)| bytes.as_u64());
    BackendDocument {
        backend: it.word(),
        charged,
        required_if_all: all.limit.as_u64(),
        counter: rule.counter.map(|counter| counter.word()),
        also: rule.also.map(|counter| counter.word()),
        counted: rule.counted.words(),
        scope: rule.scope,
        limit: rule.limit,
        bypass: rule.bypass.map(|bypass| bypass.words()),
        error: rule.error,
        source: rule.source,
    }
}

fn line(it: Line) -> LineDocument {
    LineDocument { program: it.program, place: it.place, line: it.line, note: it.note }
}
