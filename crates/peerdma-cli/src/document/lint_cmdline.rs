//! Document of `lint-cmdline`.

use super::{SCHEMA, Source};
use crate::input::Loaded;
use peerdma::route::lint::Finding;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `lint-cmdline`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct LintDocument {
    /// Version of this schema.
    schema: u32,
    /// The machine that the line was held against; null where it was checked as text alone.
    source: Option<Source>,
    /// The line; null where the input tells none.
    line: Option<String>,
    /// What is wrong with it; empty where there is no line.
    findings: Vec<FindingDocument>,
}

/// One finding.
#[derive(Serialize, JsonSchema, Debug)]
struct FindingDocument {
    /// `finding`, or `advice` for what works and could be written better.
    #[schemars(extend("enum" = ["finding", "advice"]))]
    severity: &'static str,
    /// What kind of trouble, one stable word.
    code: &'static str,
    /// The argument, option or element concerned, as it stands in the line.
    argument: String,
    /// What the kernel does with it, and why.
    what: String,
    /// What to write instead; null where there is nothing.
    fix: Option<String>,
}

impl LintDocument {
    pub(crate) fn new(loaded: Option<&Loaded>, line: Option<&str>, findings: &[Finding]) -> Self {
        let finding = |finding: &Finding| FindingDocument {
            severity: finding.severity().word(),
            code: finding.code.word(),
            argument: finding.argument.clone(),
            what: finding.what.clone(),
            fix: finding.fix.clone(),
        };
        Self {
            schema: SCHEMA,
            source: loaded.map(Source::new),
            line: line.map(str::to_string),
            findings: findings.iter().map(finding).collect(),
        }
    }
}
