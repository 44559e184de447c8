//! Pinned memory beside memory that faults, for one context.

use super::*;
use crate::pin::Pinner;

#[test]
fn one_context_uses_both_and_what_is_pinned_is_never_asked_for() {
    let mirror = Mirror::new(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let (pinned, faulting) = (Region::map(None, pages(8)).unwrap(), Region::map(None, pages(8)).unwrap());
    let (pin, dropped) = said(pinned.at());
    let id = mirror.watch_pinned(pinned.at(), Prot::ReadWrite, pin).unwrap();
    mirror.watch(faulting.at(), Prot::ReadWrite).unwrap();
    assert_eq!(mirror.present(), [(pinned.at(), Prot::ReadWrite)]);
    let ((), served) = served(&mirror, || {
        for number in 0..8 {
            context.write(page(pinned.at(), number).start(), &[1; 8], soon()).unwrap();
            context.write(page(faulting.at(), number).start(), &[2; 8], soon()).unwrap();
        }
        mirror.leave(id, soon()).unwrap();
    });
    let counts = mirror.counts();
    assert_eq!((served.requests, counts.requests, counts.requests_in_pinned), (8, 8, 0));
    assert!(dropped.load(Ordering::Acquire), "the pin goes with the range");
    served_drop(&mirror, [pinned, faulting]);
}

/// Unmaps while somebody serves, as whoever does it waits for that.
fn served_drop(mirror: &Mirror<()>, regions: [Region; 2]) {
    served(mirror, || drop(regions));
}

#[test]
fn pinned_memory_that_is_thrown_away_is_taken_from_the_device_and_reported() {
    let mirror = Mirror::new(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let region = Region::map(None, pages(2)).unwrap();
    let at = region.at();
    let id = mirror.watch_pinned(at, Prot::ReadWrite, said(at).0).unwrap();
    let ((), served) = served(&mirror, || {
        region.discard(page(at, 0)).unwrap();
        let mut bytes = [0; 8];
        assert!(matches!(context.read(at.start(), &mut bytes, soon()), Err(AccessError::Refused { .. })));
        context.read(page(at, 1).start(), &mut bytes, soon()).unwrap();
        drop(region);
    });
    assert!(!served.diverged.is_empty() && served.diverged.iter().all(|diverged| *diverged == id));
}

#[test]
fn a_pin_of_other_memory_is_refused() {
    let mirror = Mirror::new(()).unwrap();
    let region = Region::map(None, pages(2)).unwrap();
    let (pin, dropped) = said(page(region.at(), 0));
    let error = mirror.watch_pinned(region.at(), Prot::Read, pin).unwrap_err();
    assert!(matches!(error, RangeError::NotHeld { .. }), "{error}");
    assert!(dropped.load(Ordering::Acquire));
}

/// A pin that has parted from its addresses before the mirror has it, of which no message comes.
struct Parted(AddrRange<ProcVa>, Standing);

impl Holds for Parted {
    fn holds(&self) -> AddrRange<ProcVa> {
        self.0
    }

    fn standing(&self) -> Option<Standing> {
        Some(self.1.clone())
    }
}

#[test]
fn a_pin_that_has_parted_from_its_addresses_is_refused() {
    let mirror = Mirror::new(()).unwrap();
    let region = Region::map(None, pages(2)).unwrap();
    let at = region.at();
    for standing in [Standing::Stale { at }, Standing::Moved { to: ProcVa::new(0x1000) }] {
        let error = mirror.watch_pinned(at, Prot::Read, Parted(at, standing)).unwrap_err();
        assert!(matches!(error, RangeError::Parted { .. }), "{error}");
        assert!(mirror.present().is_empty());
    }
    let unknown = Standing::CannotTell { why: crate::pin::Unknown::Hidden };
    let id = mirror.watch_pinned(at, Prot::Read, Parted(at, unknown)).unwrap();
    mirror.leave(id, soon()).unwrap();
}

#[test]
fn owned_memory_is_pinned_before_the_device_has_it() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let owned = mirror.create_pinned(pages(2), |at| Ok::<_, RangeError>(said(at).0)).unwrap();
    context.write(owned.range().start(), &[1; 4], soon()).unwrap();
    owned.protect(owned.range(), Some(Prot::Read), soon()).unwrap();
    context.read(owned.range().start(), &mut [0; 4], soon()).unwrap();
    assert_eq!(mirror.present(), [(owned.range(), Prot::Read)]);
    assert_eq!(mirror.counts().requests, 0);
}

/// A pin of the kernel's, which goes when the memory does.
#[test]
fn a_pin_of_the_kernel_s_lives_as_long_as_the_memory() {
    let pinner = match Pinner::new() {
        Ok(pinner) => pinner,
        Err(error) => {
            let _ = std::io::stderr().write_all(format!("SKIPPED mirror-pin: {error}\n").as_bytes());
            return;
        }
    };
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let name = std::cell::Cell::new(None);
    let pin = |at: AddrRange<ProcVa>| -> Result<_, Box<dyn std::error::Error>> {
        let pin = pinner.pin_foreign(at.start(), at.len())?;
        name.set(Some(pin.id()));
        Ok(pin)
    };
    let owned = mirror.create_pinned(pages(4), pin).unwrap();
    context.write(owned.range().start(), &[3; 16], soon()).unwrap();
    let name = name.get().unwrap();
    assert_eq!((mirror.counts().requests, pinner.pinned(name).map(|pinned| pinned.range)), (0, Some(owned.range())));
    owned.unmap(soon()).unwrap();
    assert!(pinner.pinned(name).is_none());
}
