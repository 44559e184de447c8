//! Translations that a function was given and remembers: its address translation cache (PCIe 6.0 §10.1).

use super::function::locked;
use crate::device::Translation;
use crate::wire::Pasid;
use peerdma::addr::{BusAddr, Bytes};
use std::sync::Mutex;

/// Translations that a function remembers at most; one more takes the place of the oldest.
const REMEMBERED: usize = 256;

/// The translations of one function.
#[derive(Debug, Default)]
pub(super) struct Translations {
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: Vec<Remembered>,
    /// How often all of it was emptied.
    emptied: u64,
}

/// A translation that the function was given.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    pasid: Option<Pasid>,
    from: BusAddr,
    translation: Translation,
}

/// Says that a translation is asked for by a cache that was not emptied since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asking(u64);

impl Translations {
    /// Taken before a translation is asked for, and before it is found that it may be.
    ///
    /// A cache that is emptied while the answer is under way does not keep it.
    pub(super) fn asking(&self) -> Asking {
        Asking(locked(&self.cache).emptied)
    }

    /// What was translated before, if that is still so.
    pub(super) fn find(&self, pasid: Option<Pasid>, at: BusAddr, write: bool) -> Option<Translation> {
        locked(&self.cache).entries.iter().find_map(|entry| {
            let offset = at.as_u64().checked_sub(entry.from.as_u64())?;
            let Translation { to, len, write: writable } = entry.translation;
            let fits = entry.pasid == pasid && offset < len.as_u64() && (writable || !write);
            fits.then(|| Translation {
                to: BusAddr::new(to.as_u64() + offset),
                len: Bytes::new(len.as_u64() - offset),
                write: writable,
            })
        })
    }

    /// Keeps an answer.
    pub(super) fn keep(&self, asking: Asking, pasid: Option<Pasid>, from: BusAddr, translation: Translation) {
        let mut cache = locked(&self.cache);
        if cache.emptied != asking.0 {
            return;
        }
        if cache.entries.len() == REMEMBERED {
            cache.entries.remove(0);
        }
        cache.entries.push(Remembered { pasid, from, translation });
    }

    /// Forgets translations of addresses that touch a range, in one address space or in all.
    pub(super) fn forget(&self, pasid: Option<Option<Pasid>>, first: BusAddr, last: BusAddr) {
        locked(&self.cache).entries.retain(|entry| {
            let end = entry.from.as_u64().saturating_add(entry.translation.len.as_u64() - 1);
            let touches = entry.from <= last && end >= first.as_u64();
            !(touches && pasid.is_none_or(|pasid| pasid == entry.pasid))
        });
    }

    /// Forgets all of them, and those that are under way.
    pub(super) fn empty(&self) {
        let mut cache = locked(&self.cache);
        cache.entries.clear();
        cache.emptied += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_asked_for_before_the_cache_was_emptied_is_not_kept() {
        let translations = Translations::default();
        let translation = Translation { to: BusAddr::new(0x9000), len: Bytes::new(0x1000), write: true };
        let (at, asking) = (BusAddr::new(0x1000), translations.asking());
        translations.keep(asking, None, at, translation);
        assert_eq!(translations.find(None, at, true), Some(translation));
        translations.empty();
        translations.keep(asking, None, at, translation);
        assert_eq!(translations.find(None, at, false), None);
        translations.keep(translations.asking(), None, at, translation);
        assert!(translations.find(None, at, false).is_some());
    }
}
