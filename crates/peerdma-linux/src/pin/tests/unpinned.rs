//! No unpin under DMA.

use super::*;
use crate::memory::Pages;
use crate::pin::{Pin, UnpinError};
use peerdma::buffer::fence::{Failure, NotRetired, Timeline};
use std::sync::Arc;
use std::time::Duration;

fn pinned(pinner: &Pinner) -> Pin {
    pinner.pin(Arc::new(Pages::zeroed(pages(1)).unwrap())).unwrap()
}

#[test]
fn a_pin_that_a_device_uses_is_not_let_go_and_says_which_fence() {
    let (pinner, nic) = (Pinner::new().unwrap(), Timeline::new("nic queue 0"));
    let pin = pinned(&pinner);
    pin.used_until(nic.issue());
    pin.used_until(nic.issue());
    let UnpinError::StillUsed { pin, outstanding, .. } = pin.unpin().unwrap_err() else { unreachable!("no wait") };
    assert_eq!((outstanding, pinner.pins().len()), (2, 1));
    nic.retire_to(nic.issued()).unwrap();
    pin.unpin().unwrap();
    assert!(pinner.pins().is_empty());
}

#[test]
fn an_unpin_waits_as_long_as_it_may() {
    let (pinner, nic) = (Pinner::new().unwrap(), Timeline::new("nic queue 0"));
    let pin = pinned(&pinner);
    pin.used_until(nic.issue());
    let late = pin.unpin_within(Duration::from_millis(5)).unwrap_err();
    assert!(late.to_string().contains("nic queue 0"), "{late}");
    let UnpinError::NotRetired { pin, source: NotRetired::Late { .. } } = late else { unreachable!("it was waited") };
    let interrupt = std::thread::spawn(move || {
        nic.retire_to(nic.issued()).unwrap();
        nic
    });
    pin.unpin_within(Duration::from_secs(60)).unwrap();
    assert!(pinner.pins().is_empty());
    drop(interrupt.join().unwrap());
}

#[test]
fn a_handle_dropped_under_dma_stays_pinned_until_the_device_is_done() {
    let (pinner, nic) = (Pinner::new().unwrap(), Timeline::new("nic queue 0"));
    let pin = pinned(&pinner);
    let id = pin.id();
    pin.used_until(nic.issue());
    drop(pin);
    assert_eq!((pinner.settle(), pinner.pinned(id).is_some()), (1, true));
    nic.retire_to(nic.issued()).unwrap();
    assert_eq!((pinner.settle(), pinner.pinned(id)), (0, None));
}

#[test]
fn a_fence_that_nobody_will_retire_holds_until_it_is_written_off() {
    let pinner = Pinner::new().unwrap();
    let pin = pinned(&pinner);
    let nic = Timeline::new("nic queue 0");
    let fence = nic.issue();
    pin.used_until(fence.clone());
    drop(nic);
    let refused = pin.unpin_within(Duration::from_secs(60)).unwrap_err();
    let UnpinError::NotRetired { pin, source: NotRetired::Abandoned { .. } } = refused else {
        unreachable!("abandoned")
    };
    assert!(fence.write_off(Failure::Reset));
    pin.unpin().unwrap();
}
