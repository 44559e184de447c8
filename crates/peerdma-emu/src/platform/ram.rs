//! What RAM is left to a machine that runs, and where the file states it.
//!
//! A machine that is only asked about needs no RAM, so that a file without it is good. One that runs
//! keeps page tables and buffers there, and whoever runs it is told by file and line what is missing.

use super::error::{Location, PlatformError, Source};
use super::problem::SurroundingsProblem;
use super::{Platform, raw};
use peerdma::addr::{AddrRange, Bytes, PhysAddr};

/// Where the file states RAM, for what is found only when the machine runs.
///
/// All of them are equal, since the same machine may be written in many ways.
#[derive(Clone, Debug)]
pub(super) struct WrittenAt {
    file: String,
    /// Line of each stretch of RAM.
    ram: Vec<usize>,
    last_line: usize,
}

impl PartialEq for WrittenAt {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for WrittenAt {}

impl WrittenAt {
    pub(super) fn new(source: Source<'_>, ram: &[raw::Ram]) -> Self {
        let end = source.text.len();
        Self {
            file: source.file.to_string(),
            ram: ram.iter().map(|stretch| source.line(&stretch.base.span())).collect(),
            last_line: source.line(&(end..end)),
        }
    }
}

impl Platform {
    /// RAM as devices and the CPU reach it: outside of the windows of all host bridges, and of
    /// `taken`. For each stretch of the file its parts, ascending.
    pub(crate) fn ram_outside(&self, taken: &[AddrRange<PhysAddr>]) -> Vec<Vec<AddrRange<PhysAddr>>> {
        let windows = self.host_bridges.iter().flat_map(|host| &host.windows).map(|window| window.cpu);
        let holes: Vec<_> = windows.chain(taken.iter().copied()).collect();
        self.ram.iter().map(|ram| ram.range.outside(&holes)).collect()
    }

    /// The first part of RAM outside of all windows that is at least `needed` long.
    ///
    /// # Errors
    /// With the line of the stretch that comes nearest, or that of the file's end if there is none.
    pub(crate) fn ram_of(&self, needed: Bytes) -> Result<AddrRange<PhysAddr>, PlatformError> {
        let parts = self.ram_outside(&[]);
        let enough = |part: &&AddrRange<PhysAddr>| part.len() >= needed;
        match parts.iter().flatten().find(enough) {
            Some(part) => Ok(*part),
            None if self.ram.is_empty() => {
                Err(PlatformError::new(self.ram_stated(), SurroundingsProblem::NoRam { needed }))
            }
            None => {
                let free = parts.iter().flatten().map(AddrRange::len).max().unwrap_or(Bytes::ZERO);
                Err(PlatformError::new(self.ram_stated(), SurroundingsProblem::TooLittleRam { free, needed }))
            }
        }
    }

    /// Where the stretch of RAM with the longest part outside of all windows is stated; the file's
    /// last line where none is stated at all.
    pub(crate) fn ram_stated(&self) -> Location {
        let longest = |parts: Vec<AddrRange<PhysAddr>>| parts.iter().map(AddrRange::len).max();
        let stretches = self.ram_outside(&[]).into_iter().map(longest).zip(&self.written_at.ram);
        // The first of those that are equally long, as it is the one that is used.
        let line = stretches.rev().max_by_key(|(free, _)| *free).map(|(_, line)| *line);
        Location { file: self.written_at.file.clone(), line: line.unwrap_or(self.written_at.last_line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: Bytes = Bytes::new(64 << 20);

    /// A machine with these stretches of RAM and windows, each a start and a size.
    fn machine(ram: &[(u64, u64)], windows: &[(u64, u64)]) -> Result<Platform, PlatformError> {
        let mut text = String::from("schema = 1\n");
        for (base, size) in ram {
            text.push_str(&format!("[[ram]]\nbase = {base}\nsize = {size}\n"));
        }
        let windows = windows.iter().map(|(at, size)| format!("{{ cpu = {at}, bus = {at}, size = {size} }}"));
        let windows = windows.collect::<Vec<_>>().join(", ");
        text.push_str(&format!("[[host_bridge]]\nname = \"hb0\"\nwindows = [{windows}]\n"));
        Platform::parse(&text, "dir/f.toml")
    }

    #[test]
    fn a_file_without_ram_is_good_until_the_machine_is_to_run() {
        let error = machine(&[], &[]).unwrap().ram_of(NEEDED).unwrap_err();
        assert_eq!((error.file(), error.line()), ("dir/f.toml", 4));
        assert_eq!(
            error.to_string(),
            "dir/f.toml:4: no [[ram]] is stated, and a machine that runs needs 64 MiB of it in one piece outside of \
             its host bridges' windows; add one, such as base = 0x1_0000_0000 and size = \"4GiB\""
        );
    }

    #[test]
    fn the_stretch_that_comes_nearest_is_named() {
        let error = machine(&[(0, 8 << 20), (1 << 30, 32 << 20)], &[]).unwrap().ram_of(NEEDED).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dir/f.toml:6: 32 MiB of this RAM in one piece are outside of the host bridges' windows, no other has \
             more, and a machine that runs needs 64 MiB; enlarge it, or add a [[ram]] where no window is"
        );
    }

    #[test]
    fn ram_behind_a_window_does_not_count_and_what_is_beside_it_does() {
        let ram = [(0, 256 << 20)];
        let error = machine(&ram, &[(32 << 20, 200 << 20)]).unwrap().ram_of(NEEDED).unwrap_err();
        let little = SurroundingsProblem::TooLittleRam { free: Bytes::new(32 << 20), needed: NEEDED };
        assert_eq!(error.problem(), &little.into());
        let beside = machine(&ram, &[(128 << 20, 128 << 20)]).unwrap().ram_of(NEEDED).unwrap();
        assert_eq!((beside.start(), beside.len()), (PhysAddr::new(0), Bytes::new(128 << 20)));
    }
}
