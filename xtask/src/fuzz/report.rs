//! What libFuzzer said about a run.

/// The figures of one run, as libFuzzer printed them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Report {
    /// Inputs executed.
    pub(super) executions: String,
    /// Edges of the control flow that were covered (`cov:`).
    pub(super) edges: String,
    /// Features: edges with hit counts and more (`ft:`).
    pub(super) features: String,
    /// The file that holds the input which made it fail.
    pub(super) found: Option<String>,
    /// What the first panic said, if there was one.
    pub(super) panic: Option<String>,
    /// The end of what it said, for people.
    pub(super) tail: String,
}

/// Lines kept for people.
const TAIL: usize = 40;

impl Report {
    /// Reads a log; a figure that is not there is shown as `?`.
    pub(super) fn read(log: &str) -> Self {
        let lines: Vec<&str> = log.lines().collect();
        let figure = |name: &str| {
            let last = lines.iter().rev().find_map(|line| {
                let after = line.split_once(name)?.1.split_whitespace().next()?;
                after.parse::<u64>().ok()
            });
            last.map_or_else(|| "?".to_string(), |number| number.to_string())
        };
        let executed = figure("stat::number_of_executed_units:");
        // A target that dies prints no statistics; its last `#N` is then the best there is.
        let executions = if executed == "?" { figure("#") } else { executed };
        // The message stands on the line after the place.
        let panicked = lines.iter().position(|line| line.contains(" panicked at "));
        let panic = panicked.and_then(|at| lines.get(at + 1)).map(|line| line.to_string());
        let found = lines.iter().rev().find_map(|line| line.split_once("Test unit written to "));
        let kept = lines[lines.len().saturating_sub(TAIL)..].iter();
        Self {
            executions,
            edges: figure(" cov: "),
            features: figure(" ft: "),
            found: found.map(|(_, place)| place.trim().to_string()),
            panic,
            tail: kept.map(|line| format!("    {line}\n")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_figures_of_a_log_count() {
        let log = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #100\tDONE   cov: 25 ft: 40 corp: 3/9b lim: 4 exec/s: 0 rss: 31Mb\n\
                   Done 100 runs in 1 second(s)\nstat::number_of_executed_units: 100\n";
        let report = Report::read(log);
        assert_eq!((report.executions.as_str(), report.edges.as_str(), report.features.as_str()), ("100", "25", "40"));
        assert_eq!(report.found, None);
    }

    #[test]
    fn a_finding_names_its_file() {
        let log = "#7\tNEW    cov: 9 ft: 9 corp: 2/2b\nthread '<unnamed>' panicked at src/a.rs:1:2:\nwhy\n\
                   artifact_prefix='x/'; Test unit written to x/crash-0a\n";
        let report = Report::read(log);
        assert_eq!((report.found.as_deref(), report.executions.as_str()), (Some("x/crash-0a"), "7"));
        assert_eq!(report.panic.as_deref(), Some("why"));
        assert_eq!(Report::read("").edges, "?");
    }
}
