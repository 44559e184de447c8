//! What was seen, as text to be read from top to bottom.

use super::findings::Findings;
use super::typed;
use super::wrap::wrapped;
use crate::args::Command;
use crate::commands::route::{naming, verdict_words, write_reasons};
use crate::commands::{map, matrix};
use crate::exit::Failure;
use crate::output;
use anstyle::{AnsiColor, Style};
use peerdma::dma::engine::MapRangesError;
use peerdma::route::{Judge, Reason};
use peerdma_emu::device::accel::Status;
use peerdma_emu::scenario::{BufferLife, Deed, Journey, Landed, Leg, Mistake, Moves};
use std::io::Write;

/// Width of the words before each line.
const TITLE: usize = 11;
/// Where what is wrapped goes on.
const HANG: usize = TITLE + 3;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

impl Findings<'_> {
    pub(super) fn print(&self) -> Result<(), Failure> {
        let platform = &self.arguments.platform;
        self.line(
            "",
            &format!(
                "{platform}, a machine that is only described, runs in this process; seed {}.",
                self.arguments.seed
            ),
        )?;
        self.section("Who reaches whose memory", &format!("matrix --platform {platform}"))?;
        if let Command::Matrix(arguments) = typed(&["matrix", "--platform", platform])? {
            matrix::run(&arguments)?;
        }
        self.print_refused()?;
        self.section(&format!("A mixed list, mapped for {}", self.cast.nics[0]), &self.map_words()?.join(" "))?;
        map::print(&self.map()?)?;
        self.print_pipeline()?;
        self.print_doorbell()?;
        self.print_wrong_kind()?;
        self.print_forced()?;
        self.print_overtaken()?;
        self.print_processes()?;
        self.print_life()?;
        self.print_transfers()
    }

    /// A heading, with the command that says the same.
    fn section(&self, heading: &str, command: &str) -> Result<(), Failure> {
        let (mut out, style) = (anstream::stdout().lock(), output::heading());
        writeln!(out, "\n{style}{heading}{style:#}")?;
        if !command.is_empty() {
            writeln!(out, "  $ peerdma {command}")?;
        }
        Ok(())
    }

    fn line(&self, title: &str, words: &str) -> Result<(), Failure> {
        let line = if title.is_empty() { words.to_string() } else { format!("  {title:<TITLE$} {words}") };
        Ok(writeln!(anstream::stdout().lock(), "{}", wrapped(&line, if title.is_empty() { 0 } else { HANG }))?)
    }

    fn print_refused(&self) -> Result<(), Failure> {
        let topology = &self.loaded.topology;
        let judge = Judge::new(topology);
        let Some(pair) = self.refused(&judge)? else {
            self.section("Why a pair is refused", "")?;
            return self.line("pairs", "none of this machine is refused");
        };
        let (from, to) = (pair.kernel.client, pair.kernel.provider);
        let [first, second] = [from, to].map(|id| topology.function(id).address());
        let command = format!("route {first} {second} --platform {}", self.arguments.platform);
        self.section("Why one pair is refused", &command)?;
        self.line("pair", &format!("{} -> {}", naming(topology, from), naming(topology, to)))?;
        self.line("verdict", &format!("{}: {}", pair.verdict, verdict_words(&pair)))?;
        print_reasons(&judge.reasons(&pair))
    }

    fn print_pipeline(&self) -> Result<(), Failure> {
        let (drive, [near, far], [sends, takes]) = (&self.cast.drive, &self.cast.gpus, &self.cast.nics);
        let len = self.pipeline.legs.first().map_or_else(String::new, |leg| leg.len.to_string());
        self.section(&format!("{len} from drive to GPU to NIC to GPU and back, peer to peer"), "")?;
        let forth = self.pipeline.legs.iter().take(3).all(|leg| leg.verified);
        let verified = |so: bool| if so { "verified" } else { "NOT as sent" };
        self.line("forth", &format!("{drive} -> {near} -> {sends} ~ {takes} -> {far}: {}", verified(forth)))?;
        let back = self.pipeline.came_back;
        let words = format!("{far} marks it -> {takes} ~ {sends} -> {near} -> {drive}: {}", verified(back));
        self.line("back", &words)?;
        self.line(
            "how",
            "each GPU's own engine brings what came into VRAM to RAM, and it is compared there; what came back is compared on the drive's medium",
        )
    }

    fn print_doorbell(&self) -> Result<(), Failure> {
        let bell = &self.doorbell;
        self.section(&format!("{} has work for {}: the doorbell, rung by it or for it", bell.sender, bell.bell), "")?;
        let way = |journey: &Journey| format!("{} ({} links)", journey.places.join(" -> "), journey.links);
        let heard = |so: bool| if so { "heard, sent, verified" } else { "NOT heard" };
        self.line("peer", &format!("{}: {}", way(&bell.by_peer), heard(bell.heard[0])))?;
        self.line("interrupt", &format!("{}, and then", way(&bell.interrupt)))?;
        self.line("cpu store", &format!("{}: {}", way(&bell.by_cpu), heard(bell.heard[1])))
    }

    fn print_wrong_kind(&self) -> Result<(), Failure> {
        let kind = &self.wrong_kind;
        self.section("Silent corruption 1: an address of the wrong kind, under an IOMMU that translates", "")?;
        let outcome = if kind.arrived { "arrived" } else { "did NOT arrive" };
        let words = format!(
            "{} writes into VRAM of {}: the engine gives {}; {outcome}",
            kind.initiator, kind.target, kind.given
        );
        self.line("prevented", &words)?;
        for mistake in &kind.mistakes {
            self.line("happening", &mistake_words(mistake))?;
        }
        self.unsafe_is_there(kind.mistakes.is_empty())
    }

    fn print_forced(&self) -> Result<(), Failure> {
        let route = &self.forced;
        let heading = "Silent corruption 2: a refused route, forced over a root complex that answers all ones";
        self.section(heading, "")?;
        let who = format!("{} reads VRAM of {}, on a desktop", route.initiator, route.target);
        match &route.refused {
            None => self.line("prevented", &format!("{who}: NOT refused"))?,
            Some(MapRangesError::Refused(refusal)) => {
                self.line("prevented", &format!("{who}: the engine gives no address"))?;
                print_reasons(&refusal.reasons)?;
            }
            Some(error) => self.line("prevented", &format!("{who}: {error}"))?,
        }
        if let Some(forced) = &route.forced {
            let done = if forced.reported_done { "reports success" } else { "reports failure" };
            let words = format!(
                "mapped by hand at iova {}: {} {done}; of {} on its medium {} bytes are 0xff, and {} are as in VRAM",
                forced.number, route.initiator, forced.len, forced.ones, forced.right
            );
            self.line("happening", &words)?;
        }
        self.unsafe_is_there(route.forced.is_none())
    }

    fn unsafe_is_there(&self, hidden: bool) -> Result<(), Failure> {
        if hidden { self.line("", "  --show-unsafe lets it happen.") } else { Ok(()) }
    }

    fn print_overtaken(&self) -> Result<(), Failure> {
        let race = &self.overtaken;
        self.section("A doorbell that overtakes its payload", "")?;
        let what = format!(
            "a DMA engine in the slot of {} writes a payload to RAM and rings {}, which then copies the payload",
            race.sender, race.bell
        );
        self.line("what", &what)?;
        let seed = race.seed.map_or_else(String::new, |seed| format!(", first with seed {seed}"));
        self.line("shown", &format!("{} of {} runs copied what was there before{seed}", race.without, race.runs))?;
        self.line("advice", &race.advice.to_string())?;
        for step in race.advice.iter() {
            self.line("", &format!("  {:<TITLE$} {}", "", step.sentence()))?;
        }
        self.line("prevented", &format!("with it {} of {} runs did", race.with, race.runs))
    }

    fn print_processes(&self) -> Result<(), Failure> {
        let both = &self.processes;
        self.section(&format!("Two processes on one accelerator, {}", both.accelerator), "")?;
        for process in &both.processes {
            let right = if process.sum == process.expected { "its own list's" } else { "NOT its own list's" };
            self.line(
                &process.pasid.to_string(),
                &format!("list at {}: sum {:#018x}, {right}", process.list, process.sum),
            )?;
            let words = match process.refused {
                [Some(load), Some(store)] if load == store => format!("load and store refused: {load}"),
                [load, store] => {
                    let word = |status: Option<Status>| {
                        status.map_or("NOT refused".to_string(), |status| format!("refused: {status}"))
                    };
                    format!("load {}; store {}", word(load), word(store))
                }
            };
            let page = if process.left_alone { "unchanged" } else { "CHANGED" };
            let words = format!("at {}, which only the other has: {words}; it is {page}", process.foreign);
            self.line(" ", &words)?;
        }
        self.line("iommu", &format!("{} page requests answered with no", both.page_requests_refused))
    }

    fn print_life(&self) -> Result<(), Failure> {
        let BufferLife { drive, nics: [sends, takes], batch, sent, .. } = &self.life;
        let heading = format!("A buffer that {drive} fills and {sends} empties, moved and reset meanwhile");
        self.section(&heading, "")?;
        self.line("traffic", &format!("{sent} batches of {batch}: {drive} -> buffer -> {sends} ~ {takes} -> RAM"))?;
        for deed in &self.life.deeds {
            self.line(if deed.to.is_some() { "moved" } else { "reset" }, &deed_words(deed))?;
        }
        let arrived = if self.life.arrived { "as on the medium" } else { "NOT as on the medium" };
        let alone = if self.life.left_alone { "unchanged" } else { "CHANGED" };
        let words = format!("all that arrived is {arrived}; what was put where the buffer had been is {alone}");
        self.line("in the end", &words)
    }

    fn print_transfers(&self) -> Result<(), Failure> {
        self.section("All transfers", "")?;
        let judge = Judge::new(&self.loaded.topology);
        let head = ["initiator", "", "memory", "route", "address", "bytes", "verified", "GB/s", "of memcpy"];
        let mut rows = vec![(None, head.map(str::to_string))];
        for leg in &self.pipeline.legs {
            rows.push((Some(leg.verified), self.row(&judge, leg)?));
        }
        let width = |column: usize| rows.iter().map(|(_, row)| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        let mut out = anstream::stdout().lock();
        for (verified, row) in &rows {
            let style = match verified {
                None => output::heading(),
                Some(true) => GOOD,
                Some(false) => BAD,
            };
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                let right = column >= 7;
                let cell = if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                if verified.is_none() || column == 6 { format!("{style}{cell}{style:#}") } else { cell }
            });
            writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        writeln!(out, "  Two NICs in a row are one transfer from memory to memory, through both at once.")?;
        writeln!(
            out,
            "  memcpy of as much in this process: {}. All of it took {:.1} s.",
            self.memcpy.words(),
            self.took.as_secs_f64()
        )?;
        Ok(())
    }

    fn row(&self, judge: &Judge<'_>, leg: &Leg) -> Result<[String; 9], Failure> {
        let route = self.route(judge, leg)?.map_or("memory".to_string(), |verdict| verdict.to_string());
        let pace = Self::pace(leg);
        let relative = pace.bytes_per_second() / self.memcpy.bytes_per_second().max(1.0);
        Ok([
            leg.initiator.clone(),
            match leg.moves {
                Moves::Writes => "writes".to_string(),
                Moves::Reads => "reads".to_string(),
            },
            leg.target.clone().unwrap_or_else(|| "ram".to_string()),
            route,
            leg.address.to_string(),
            leg.len.to_string(),
            if leg.verified { "yes" } else { "NO" }.to_string(),
            format!("{:.2}", pace.bytes_per_second() / 1e9),
            format!("{relative:.2}"),
        ])
    }
}

/// Reasons as `peerdma route` prints them, within the columns of the others.
fn print_reasons(reasons: &[Reason]) -> Result<(), Failure> {
    let mut text = Vec::new();
    write_reasons(&mut text, "why", reasons)?;
    let mut out = anstream::stdout().lock();
    for line in String::from_utf8_lossy(&text).lines() {
        // Titles are a column narrower there.
        let (title, words) = line.split_at_checked(TITLE + 1).unwrap_or((line, ""));
        writeln!(out, "{}", wrapped(&format!("{title:<width$}{words}", width = TITLE + 2), HANG))?;
    }
    Ok(())
}

fn deed_words(deed: &Deed) -> String {
    let what = match &deed.to {
        Some(to) => format!("from {} to {to}", deed.at),
        None => format!("with the buffer in {}", deed.at),
    };
    let waited = match deed.held.as_slice() {
        [] => "nobody held on".to_string(),
        held => format!("in the way: {}", held.join(", ")),
    };
    match deed.again {
        0 => format!("{what}; {waited}"),
        1 => format!("{what}; {waited}; 1 batch lost there and read again"),
        again => format!("{what}; {waited}; {again} batches lost there and read again"),
    }
}

fn mistake_words(mistake: &Mistake) -> String {
    let Mistake { initiator, what, number, meant, overwritten, reported_done, landed } = mistake;
    let done = if *reported_done { "reports success" } else { "reports failure" };
    let outcome = match (landed, overwritten) {
        (Landed::Elsewhere, Some(whose)) => format!("{whose} is overwritten, {meant} has nothing"),
        (Landed::Nowhere { faults }, _) => format!("{meant} has nothing, the IOMMU recorded {faults} faults"),
        _ => format!("{meant} has it"),
    };
    format!("{what}, {number}: {initiator} {done}; {outcome}")
}
