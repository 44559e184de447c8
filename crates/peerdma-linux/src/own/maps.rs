//! What is mapped in this process, one mapping at a time.

use crate::sys::procmap::{self, Found};
use peerdma::addr::{AddrRange, ProcVa};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// `/proc/self/maps`, kept open, so that a process without a free descriptor can still look.
#[derive(Debug)]
pub(crate) struct Maps(File);

/// What there is at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Area {
    Mapped(Found),
    /// Nothing, up to the next mapping.
    Hole(AddrRange<ProcVa>),
}

impl Maps {
    pub(crate) fn of_this_process() -> io::Result<Self> {
        File::open("/proc/self/maps").map(Self)
    }

    /// The areas that a range touches, in their order.
    pub(crate) fn areas(&self, range: AddrRange<ProcVa>) -> io::Result<Vec<Area>> {
        let (mut at, last) = (range.start().as_u64(), range.last().as_u64());
        let mut text = None;
        let mut areas = Vec::new();
        loop {
            let found = match self.next(at, &mut text) {
                Err(Errno::NOENT) => None,
                found => Some(found?),
            };
            let mapped = found.filter(|found| found.start <= last);
            let until = mapped.as_ref().map_or(last, |found| found.start.saturating_sub(1));
            if mapped.as_ref().is_none_or(|found| found.start > at) {
                let (first, until) = (ProcVa::new(at), ProcVa::new(until));
                areas.extend(AddrRange::from_inclusive(first, until).map(Area::Hole));
            }
            let Some(found) = mapped else { return Ok(areas) };
            at = found.end;
            areas.push(Area::Mapped(found));
            if at > last || at == 0 {
                return Ok(areas);
            }
        }
    }

    /// Everything that is mapped, lowest first.
    pub(crate) fn all(&self) -> io::Result<Vec<Found>> {
        Ok(listed(&self.text()?))
    }

    /// By the call, or from the text where the kernel has no such call.
    fn next(&self, at: u64, text: &mut Option<String>) -> Result<Found, Errno> {
        if text.is_none() {
            match procmap::at_or_above(self.0.as_fd(), at) {
                Err(Errno::NOTTY | Errno::INVAL) => *text = Some(self.text()?),
                answer => return answer,
            }
        }
        let lines = text.as_deref().unwrap_or_default().lines();
        lines.filter_map(parse).find(|found| found.end > at).ok_or(Errno::NOENT)
    }

    fn text(&self) -> Result<String, Errno> {
        let mut all = Vec::new();
        let mut piece = [0; 1 << 14];
        loop {
            match self.0.read_at(&mut piece, all.len() as u64) {
                Ok(0) => return Ok(String::from_utf8_lossy(&all).into_owned()),
                Ok(read) => all.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
    }
}

/// The mappings of a text such as `/proc/PID/maps`; lines that say something else are left out.
pub(crate) fn listed(text: &str) -> Vec<Found> {
    text.lines().filter_map(parse).collect()
}

/// A line of `/proc/PID/maps`; the page size is not said there.
fn parse(line: &str) -> Option<Found> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let flags = words.next()?.as_bytes();
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let offset = hex(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let inode = words.next()?.parse().ok()?;
    Some(Found {
        start: hex(start)?,
        end: hex(end)?,
        readable: flags.first() == Some(&b'r'),
        writable: flags.get(1) == Some(&b'w'),
        shared: flags.get(3) == Some(&b's'),
        page: crate::memory::page_size().as_u64(),
        offset,
        inode,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        name: words.next().unwrap_or_default().trim_start().as_bytes().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, Pages, page_size};
    use peerdma::addr::Bytes;

    #[test]
    fn the_call_and_the_text_describe_the_same_mappings() {
        let kept =
            [Backing::Shared, Backing::Private, Backing::Memfd].map(|kind| Pages::backed(kind, page_size()).unwrap());
        let maps = Maps::of_this_process().unwrap();
        for pages in &kept {
            let at = pages.address().as_u64();
            let text = maps.text().unwrap();
            let written = maps.next(at, &mut Some(text)).unwrap();
            match procmap::at_or_above(maps.0.as_fd(), at) {
                // Neighbours may merge with other threads' mappings between the two looks, so ends are not compared.
                Ok(asked) => assert_eq!(
                    (asked.readable, asked.writable, asked.shared, asked.inode, asked.device, asked.name),
                    (written.readable, written.writable, written.shared, written.inode, written.device, written.name)
                ),
                Err(error) => assert_eq!(error, Errno::NOTTY),
            }
        }
    }

    #[test]
    fn holes_between_mappings_are_seen() {
        let maps = Maps::of_this_process().unwrap();
        // The lowest pages are never mapped (vm.mmap_min_addr).
        let low = AddrRange::new(ProcVa::new(0), Bytes::new(4096)).unwrap();
        assert_eq!(maps.areas(low).unwrap(), [Area::Hole(low)]);
        let all = AddrRange::new(ProcVa::new(0), Bytes::new(1 << 47)).unwrap();
        let areas = maps.areas(all).unwrap();
        let (holes, mapped) = areas.iter().fold((0, 0), |(holes, mapped), area| match area {
            Area::Hole(_) => (holes + 1, mapped),
            Area::Mapped(_) => (holes, mapped + 1),
        });
        assert!(holes >= 2 && mapped >= 10, "{holes} holes, {mapped} mappings");
    }
}
