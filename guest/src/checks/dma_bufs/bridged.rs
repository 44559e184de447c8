//! Claims about the kernel's fences in a reservation of ours, and in a dma-buf that they did not come from.
//!
//! vgem has programs make fences, for tests like these; it retires them itself after ten seconds.

use super::super::answer::taken;
use super::super::claim::{Claim, Stop, equal};
use super::super::type1::open;
use super::listed::{NODE, has_vgem};
use super::{LIMIT, NOW, PAGE, Tried, sealed};
use peerdma::access::{Access as Kind, MemAttrs};
use peerdma::addr::Bytes;
use peerdma::buffer::fence::{FenceState, Usage};
use peerdma::buffer::life::{Answers, Disturbance, Phase};
use peerdma::buffer::shared::Buffer;
use peerdma::buffer::terms::{Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, OwnerId};
use peerdma_linux::dma_buf::{Access, KernelFence};
use peerdma_linux::raw;
use std::time::{Duration, Instant};

/// Longer than a fence of vgem's lives.
const LONG: Duration = Duration::from_secs(30);
/// Within which a fence of vgem's that nobody signalled is outstanding for sure.
const LIFE: Duration = Duration::from_secs(5);

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![Claim::new(
        "a fence of the kernel's in a reservation keeps a disturbance waiting, in another dma-buf its users, and retires for both",
        |tried: &mut Tried| {
            has_vgem()?;
            loop {
                let begun = Instant::now();
                match bridged(tried) {
                    // The machine stood still so long that vgem gave up.
                    Err(_) if begun.elapsed() > LIFE => {}
                    ended => return ended,
                }
            }
        },
    )]
}

fn buffer() -> Result<Buffer, Stop> {
    let chunk = Chunk::new(Owner::Memfd(OwnerId::new(1)), Bytes::ZERO, PAGE, MemAttrs::empty());
    let ranges = Chunks::collect_from([chunk.ok_or_else(|| Stop::broken("no chunk"))?])?;
    Ok(Buffer::new("frames", Offer::new(ranges, Stays::UNTIL_REVOKED, Place::Ram)?, Answers::YES))
}

fn bridged(tried: &mut Tried) -> Result<(), Stop> {
    let (dma_buf, other) = (tried.udmabuf(&sealed(1)?)?, tried.heap.allocate(PAGE, LIMIT)?);
    let vgem = open(NODE)?;
    let handle = taken("importing", raw::prime_import(&vgem, &dma_buf))?;
    let number = taken("making a fence", raw::vgem_fence(&vgem, handle))?;
    let drivers = KernelFence::new("drivers", dma_buf.export_fences(Access::Read)?)?;
    equal("the fence", &FenceState::Outstanding, &drivers.look()?)?;
    equal("whether it has retired after no time", &FenceState::Outstanding, &drivers.wait(NOW)?)?;

    let buffer = buffer()?;
    {
        let mut reservation = buffer.reservation().lock();
        reservation.reserve(1)?;
        reservation.add(drivers.fence().clone(), Usage::of(Kind::Write))?;
    }
    let Err(late) = buffer.begin(Disturbance::Reset)?.wait(NOW) else {
        return Err(Stop::broken("a disturbance did not wait for the kernel's fence"));
    };
    equal("whether it says for whom", &true, &late.to_string().contains("fence 1 of \"drivers\""))?;

    equal("whether the other dma-buf is ready", &true, &other.is_ready(Access::Read, NOW)?)?;
    other.import_fences(Access::Write, drivers.kernel())?;
    let ready = [dma_buf.is_ready(Access::Read, NOW)?, other.is_ready(Access::Read, NOW)?];
    equal("whether either is ready then", &[false; 2], &ready)?;

    taken("retiring it", raw::vgem_signal(&vgem, number))?;
    equal("the fence then", &FenceState::Retired, &drivers.wait(LONG)?)?;
    let disturbed = late.disturbing.wait(LONG)?;
    equal("the buffer", &Phase::Revoked, &buffer.phase())?;
    disturbed.done();
    let ready = [dma_buf.is_ready(Access::Read, LONG)?, other.is_ready(Access::Read, LONG)?];
    equal("whether both are ready", &[true; 2], &ready)
}
