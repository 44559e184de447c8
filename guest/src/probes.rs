//! Watches the kernel's answers on a kernel that nobody prepared, through kprobes.
//!
//! `pci_p2pdma_map_type(provider, device)` is where every user of peer-to-peer memory
//! asks (Linux 7.3 `drivers/pci/p2pdma.c`). One probe at its entry tells the two names,
//! one at its return the answer; both go to the trace buffer, and what belongs together
//! has the same task. The names are reached through first members only:
//! `p2pdma_provider.owner`, `device.kobj`, `kobject.name` (7.3 `include/linux/pci-p2pdma.h`,
//! `device.h`, `kobject.h`), so no offset of a kernel build has to be known.

use crate::failure::Failure;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const TRACING: &str = "/sys/kernel/tracing";
const ENTRY: &str = "peerdma_entry";
const RETURN: &str = "peerdma_return";

/// One answer of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Address of the function whose memory is asked about.
    pub(crate) provider: String,
    /// Address of the function that would reach it.
    pub(crate) client: String,
    /// `enum pci_p2pdma_map_type` as a number.
    pub(crate) map_type: i32,
}

/// The two probes; gone with the value.
pub(crate) struct Probes(());

impl Probes {
    /// Sets both probes and starts them.
    ///
    /// # Errors
    /// No tracefs, a kernel without kprobes, or one that has the function under another name.
    pub(crate) fn set() -> Result<Self, Failure> {
        let function = "pci_p2pdma_map_type";
        define(&format!("p:{ENTRY} {function} prov=+0(+0(+0(%di))):string cli=+0(+0(%si)):string"))?;
        // From here on, dropping takes away what is there.
        let probes = Self(());
        define(&format!("r:{RETURN} {function} ret=$retval:s32"))?;
        for event in [ENTRY, RETURN] {
            switch(event, "1")?;
        }
        Ok(probes)
    }

    /// Forgets the answers so far.
    ///
    /// # Errors
    /// The trace buffer cannot be opened.
    pub(crate) fn forget(&self) -> Result<(), Failure> {
        let trace = at("trace");
        // Opening for truncation is what empties it.
        fs::write(&trace, "").map_err(Failure::file("empty", &trace))
    }

    /// The answers since they were last forgotten, in order.
    ///
    /// # Errors
    /// The trace buffer cannot be read.
    pub(crate) fn answers(&self) -> Result<Vec<Answer>, Failure> {
        let trace = at("trace");
        let bytes = fs::read(&trace).map_err(Failure::file("read", &trace))?;
        Ok(answers(&String::from_utf8_lossy(&bytes)))
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        // A guest that cannot take its probes away is switched off with them.
        for event in [RETURN, ENTRY] {
            let _ = switch(event, "0");
            let _ = define(&format!("-:{event}"));
        }
    }
}

fn at(file: &str) -> PathBuf {
    Path::new(TRACING).join(file)
}

fn define(line: &str) -> Result<(), Failure> {
    let events = at("kprobe_events");
    let mut file = OpenOptions::new().append(true).open(&events).map_err(Failure::file("open", &events))?;
    file.write_all(line.as_bytes()).map_err(Failure::file("define a probe in", &events))
}

fn switch(event: &str, state: &str) -> Result<(), Failure> {
    let enable = at("events/kprobes").join(event).join("enable");
    fs::write(&enable, state).map_err(Failure::file("write", &enable))
}

/// Reads lines such as
/// `  dd-71  [000] .....  2.1: peerdma_entry: (pci_p2pdma_map_type+0x0/0xc0) prov="0000:03:00.0" cli="0000:07:00.0"`.
fn answers(trace: &str) -> Vec<Answer> {
    let mut asked: Vec<(&str, String, String)> = Vec::new();
    let mut answers = Vec::new();
    for line in trace.lines() {
        let Some(task) = line.split_whitespace().next() else { continue };
        if line.contains(&format!(" {ENTRY}: ")) {
            if let (Some(provider), Some(client)) = (quoted(line, "prov="), quoted(line, "cli=")) {
                asked.push((task, provider, client));
            }
        } else if line.contains(&format!(" {RETURN}: ")) {
            let map_type = line.rsplit_once("ret=").and_then(|(_, number)| number.trim().parse().ok());
            let question = asked.iter().rposition(|(asking, ..)| *asking == task);
            if let (Some(map_type), Some(question)) = (map_type, question) {
                let (_, provider, client) = asked.remove(question);
                answers.push(Answer { provider, client, map_type });
            }
        }
    }
    answers
}

fn quoted(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!(" {name}\""))?;
    rest.split_once('"').map(|(text, _)| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_the_last_question_of_its_task() {
        let trace = "# tracer: nop\n\
            \x20a-7  [000] ..... 1.0: peerdma_entry: (pci_p2pdma_map_type+0x0/0xc0) prov=\"0000:03:00.0\" cli=\"0000:04:00.0\"\n\
            \x20b-8  [001] ..... 1.1: peerdma_entry: (pci_p2pdma_map_type+0x0/0xc0) prov=\"0000:07:00.0\" cli=\"0000:03:00.0\"\n\
            \x20a-7  [000] ..... 1.2: peerdma_return: (blk+0x4/0x8 <- pci_p2pdma_map_type) ret=3\n\
            \x20b-8  [001] ..... 1.3: peerdma_return: (blk+0x4/0x8 <- pci_p2pdma_map_type) ret=2\n\
            \x20c-9  [000] ..... 1.4: peerdma_return: (blk+0x4/0x8 <- pci_p2pdma_map_type) ret=4\n";
        let answer = |provider: &str, client: &str, map_type| Answer {
            provider: provider.into(),
            client: client.into(),
            map_type,
        };
        let expected = [answer("0000:03:00.0", "0000:04:00.0", 3), answer("0000:07:00.0", "0000:03:00.0", 2)];
        assert_eq!(answers(trace), expected);
    }

    #[test]
    fn a_trace_with_a_lost_half_line_gives_what_is_whole() {
        assert_eq!(answers("x-1 [000] 1.0: peerdma_entry: (f) prov=\"0000"), []);
        assert_eq!(answers("x-1 [000] 1.0: peerdma_return: (f) ret=\n\n"), []);
    }
}
