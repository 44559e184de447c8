//! Zones of memory, from `/proc/zoneinfo`.

use std::fs;

/// One zone, as a range of page frames, half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    start: u64,
    end: u64,
    /// Whether it is for what can be moved away alone (`ZONE_MOVABLE`).
    pub(super) movable: bool,
}

impl Zone {
    /// How far into the zone the highest of these frames lies, as a part of it; `None` if one lies elsewhere.
    pub(super) fn height(&self, frames: &[u64]) -> Option<f64> {
        let (lowest, highest) = (frames.iter().min()?, frames.iter().max()?);
        let inside = self.start <= *lowest && *highest < self.end;
        inside.then(|| (highest - self.start) as f64 / (self.end - self.start) as f64)
    }
}

/// Those of this machine that have memory; none where the file cannot be read.
pub(super) fn all() -> Vec<Zone> {
    parse(&fs::read_to_string("/proc/zoneinfo").unwrap_or_default())
}

/// Each zone is a head (`Node 0, zone  Movable`) and lines of which `spanned N` and `start_pfn: N` count.
fn parse(text: &str) -> Vec<Zone> {
    let mut zones = Vec::new();
    let (mut movable, mut spanned) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next_back()) {
            (Some("Node"), Some(name)) => (movable, spanned) = (name == "Movable", 0),
            (Some("spanned"), Some(pages)) => spanned = pages.parse().unwrap_or(0),
            (Some("start_pfn:"), Some(start)) => {
                if let (Ok(start), true) = (start.parse::<u64>(), spanned > 0) {
                    zones.push(Zone { start, end: start.saturating_add(spanned), movable });
                }
            }
            _ => {}
        }
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_with_memory_have_a_range_and_say_what_they_are_for() {
        let text = "Node 0, zone      DMA\n  pages free     3840\n        spanned  4095\n        present  3998\n  \
                    start_pfn:           1\nNode 0, zone   Normal\n        spanned  0\n  start_pfn:           0\n\
                    Node 1, zone  Movable\n        spanned  1000\n  start_pfn:           5000\n";
        let zones = parse(text);
        assert_eq!(
            zones,
            [Zone { start: 1, end: 4096, movable: false }, Zone { start: 5000, end: 6000, movable: true }]
        );
        assert_eq!(zones[1].height(&[5100, 5500]), Some(0.5));
        assert_eq!(zones[1].height(&[5100, 6000]), None, "the end is not in it");
        assert_eq!(zones[1].height(&[]), None);
        assert_eq!(parse("start_pfn: x\nspanned\nNode"), []);
    }
}
