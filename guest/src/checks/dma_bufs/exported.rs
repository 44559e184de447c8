//! Claims about a BAR that was exported as a dma-buf, seen from its descriptor.

use super::super::bench::{USED, used};
use super::super::claim::{Claim, Stop, equal};
use super::{NOW, Tried};
use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Answers, Disturbance, Phase};
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::shared::Buffer;
use peerdma::buffer::terms::{Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Errno, Owner, OwnerId};
use peerdma_linux::dma_buf::{Access, DmaBuf, DmaBufError, Standing};
use peerdma_linux::vfio::Command;

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("an exported BAR says so, and the CPU cannot map it", described),
        Claim::new("a descriptor does not tell that its memory was taken away, and one of our buffer does", standing),
    ]
}

fn described(tried: &mut Tried) -> Result<(), Stop> {
    let dma_buf = tried.exported()?;
    equal("its exporter and size", &("vfio_pci_core", USED), &(dma_buf.exporter(), dma_buf.size()))?;
    dma_buf.set_name("bar2")?;
    equal("its name", &Some("bar2".to_string()), &dma_buf.read_name()?)?;
    match dma_buf.map() {
        Err(DmaBufError::NotMappable { errno: Errno::EINVAL, .. }) => Ok(()),
        other => Err(Stop::broken(format!("mapping it: {other:?}"))),
    }
}

/// Everything that a descriptor answers.
fn told(dma_buf: &DmaBuf) -> Result<(Bytes, Option<String>, bool, Standing), Stop> {
    let again = DmaBuf::from_fd(std::os::fd::AsFd::as_fd(dma_buf).try_clone_to_owned()?)?;
    dma_buf.export_fences(Access::ReadWrite)?;
    Ok((again.size(), dma_buf.read_name()?, dma_buf.is_ready(Access::Write, NOW)?, dma_buf.standing()))
}

fn standing(tried: &mut Tried) -> Result<(), Stop> {
    let dma_buf = tried.exported()?;
    let before = told(&dma_buf)?;
    equal("what is known of it", &Standing::Unknown, &before.3)?;
    tried.device.clear_command(Command::MEMORY)?;
    equal("what is told with memory space off", &before, &told(&dma_buf)?)?;
    tried.device.set_command(Command::MEMORY)?;
    tried.device.reset()?;
    equal("what is told after a reset", &before, &told(&dma_buf)?)?;
    let chunk = Chunk::new(Owner::Device(OwnerId::new(1)), used()?.offset(), USED, MemAttrs::empty());
    let ranges = Chunks::collect_from([chunk.ok_or_else(|| Stop::broken("no chunk"))?])?;
    let offer = Offer::new(ranges, Stays::UNTIL_REVOKED, Place::Device(RegionId::new(0)))?;
    let buffer = Buffer::new("bar2", offer, Answers::YES);
    let ours = dma_buf.of_buffer(&buffer);
    equal("what our buffer's says", &Standing::Known(Phase::Live), &ours.standing())?;
    let disturbed = buffer.begin(Disturbance::DecodeOff)?.wait(NOW)?;
    equal("what it says while it is out of reach", &Standing::Known(Phase::Revoked), &ours.standing())?;
    disturbed.done_answering(Answers::YES);
    equal("what it says after that", &Standing::Known(Phase::Live), &ours.standing())
}
