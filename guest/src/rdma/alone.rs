//! One adapter connected to itself, as the engine of a verification.

use super::Tally;
use crate::checks::{Stop, equal};
use peerdma::addr::{Bytes, Iova};
use peerdma_linux::engine::{Engine, EngineError};
use peerdma_linux::memory::Pages;
use peerdma_linux::verbs::{Loopback, Verbs};
use peerdma_linux::verified::{Staging, Target, verify};
use std::ops::ControlFlow;
use std::sync::Arc;

/// At no page's start, and more than the engine moves at once, in no whole number of its runs.
const AT: Bytes = Bytes::new(4096 + 13);
const LEN: Bytes = Bytes::new(150_001);
const ROOM: Bytes = Bytes::new(256 << 10);

pub(super) fn run(device: &str, tally: &mut Tally) {
    tally.claim(
        "an adapter that is connected to itself moves every byte both ways, beside them nothing changes, and all is put back",
        verified(device),
    );
    tally.claim("where it has no region it moves nothing, and nothing more after that", unregistered(device));
}

/// A soft-RoCE adapter is no function; the name is for messages alone.
fn opened(device: &str) -> Result<Loopback, Stop> {
    let found = Verbs::load()?.devices()?.into_iter().find(|found| found.name() == device);
    let context = found.ok_or_else(|| Stop::broken(format!("there is no adapter {device}")))?.open()?;
    Ok(Loopback::open(&context, "0000:00:00.0".parse()?)?)
}

fn verified(device: &str) -> Result<(), Stop> {
    let mut loopback = opened(device)?;
    let memory = Arc::new(Pages::zeroed(ROOM)?);
    let pages = Arc::new(Pages::zeroed(Staging::pages_for(loopback.capacity()))?);
    let region = loopback.domain().register(Arc::clone(&memory), Loopback::rights())?;
    let staged = loopback.domain().register(Arc::clone(&pages), Loopback::rights())?;
    let seen = region.range().slice(AT, LEN).ok_or_else(|| Stop::broken("the region is shorter"))?;
    let (target, staging) = (Target::new(&*memory, AT, seen)?, Staging::new(&pages, staged.range().start())?);
    loopback.reach(region);
    loopback.reach(staged);
    let verification = verify(&mut loopback, &target, &staging, 7, &mut |_| ControlFlow::Continue(()))?;
    let seen = (verification.is_verified(), verification.checked, verification.restored);
    equal("verified, checked and put back", &(true, LEN, true), &seen)
}

fn unregistered(device: &str) -> Result<(), Stop> {
    let mut loopback = opened(device)?;
    let len = Bytes::new(8);
    let refused = loopback.store(Iova::new(1 << 40), len);
    equal("refused by name", &true, &matches!(refused, Err(EngineError::Unregistered { .. })))?;
    let stopped = loopback.fetch(Iova::new(1 << 40), len);
    equal("stopped", &true, &matches!(stopped, Err(EngineError::Stopped { .. })))
}
