//! A doorbell rung by a peer, beside an interrupt and a processor that rings.
//!
//! A GPU has something for a NIC to send, and the send is prepared. Either the GPU writes the
//! NIC's doorbell itself; or it interrupts a processor, and that one writes the doorbell. Both ways
//! the NIC sends, and the bytes are looked for where they should be.

use super::cast::Cast;
use super::end::End;
use super::error::ScenarioError;
use super::journey::Journey;
use super::stage::{CHANNEL_MEMORY, Stage, first, noise, not_there};
use crate::device::Mmio;
use crate::device::gpu::{Operation, Options, Place};
use crate::machine::Happened;
use crate::platform::Platform;
use crate::wire::Kind;
use peerdma::access::Prot;
use peerdma::addr::Bytes;

/// Which ways a doorbell was rung, and that it was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doorbell {
    /// Who rang or had it rung.
    pub sender: String,
    /// Whose doorbell it is.
    pub bell: String,
    /// The GPU's write to the doorbell.
    pub by_peer: Journey,
    /// The GPU's interrupt.
    pub interrupt: Journey,
    /// The processor's write to the doorbell, after the interrupt.
    pub by_cpu: Journey,
    /// Whether the NIC then sent, and its bytes arrived: rung by the peer, rung by the processor.
    pub heard: [bool; 2],
}

/// What the NIC sends.
const PAYLOAD: Bytes = Bytes::new(0x1000);

/// Has a GPU ring a NIC, and has a processor ring it for the GPU.
///
/// # Errors
/// [`ScenarioError`] where a device or the mapping engine refuses.
pub fn doorbell(platform: &Platform, cast: &Cast, seed: u64) -> Result<Doorbell, ScenarioError> {
    let stage = Stage::new(platform, seed, |builder| builder)?;
    let (peers, owners, machine) = (stage.peers(), &stage.owners, stage.machine());
    let ([gpu, _], [nic, other]) = (&cast.gpus, &cast.nics);
    let (gpu_seat, nic_seat, other_seat) = (stage.seat(gpu)?, stage.seat(nic)?, stage.seat(other)?);
    let gpu_desk = gpu_seat.context(owners, &peers)?;
    let (nic_desk, other_desk) = (nic_seat.context(owners, &peers)?, other_seat.context(owners, &peers)?);
    let queue = stage.ram(&gpu_desk, CHANNEL_MEMORY)?;
    let mut engine = stage.gpu(&gpu_seat, 0, &queue, Some(0))?;
    let (mut end, far) = (End::new(&stage, &nic_desk, &nic_seat)?, End::new(&stage, &other_desk, &other_seat)?);
    end.connect(&far)?;
    let (payload, sink) = (stage.ram(&nic_desk, PAYLOAD)?, stage.ram(&other_desk, PAYLOAD)?);
    let (from, to) = (end.register(&payload.mapping)?, far.register(&sink.mapping)?);

    // The page of doorbells of one queue pair is all that the GPU is given of the NIC.
    let at = end.pair.doorbell();
    let bell = stage.bar(&gpu_desk, (nic, 0), (at, Bytes::new(0x1000)), Prot::Write)?;
    let to_bell = Place::Bus(first(&bell));
    let heard = |data: &[u8]| -> Result<bool, ScenarioError> {
        stage.settle()?;
        Ok(sink.bytes()? == data)
    };

    let data = noise(PAYLOAD, seed);
    payload.put(&data)?;
    end.pair.prepare(&End::write(1, from, to, PAYLOAD))?;
    machine.log().keep(true);
    let ring = Operation::Release { to: to_bell, value: end.pair.tail(), wide: false, read_back: None };
    engine.run(ring, Options::default())?;
    end.done()?;
    let rung = machine.log().take();
    let by_peer = heard(&data)?;
    machine.take_interrupts();

    let data = noise(PAYLOAD, seed.wrapping_add(1));
    payload.put(&data)?;
    end.pair.prepare(&End::write(2, from, to, PAYLOAD))?;
    machine.log().take();
    // The GPU's work, whose end it tells the processor of.
    engine.fill(Place::Vram(Bytes::ZERO), Bytes::new(64), seed)?;
    while machine.take_interrupts().is_empty() {
        if !machine.pause() {
            return Err(not_there("the GPU's interrupt"));
        }
    }
    nic_seat.store(0, at, end.pair.tail(), 4);
    end.done()?;
    let events = machine.log().take();
    let by_cpu = heard(&data)?;

    let place = (machine, platform);
    let bell_at = first(&bell);
    let sent_by_gpu = |what: &Happened| matches!(what, Happened::Sent { from: Some(_), head } if head.address == bell_at && head.kind == Kind::Write);
    let (bar, _) = stage.bar_at(nic, 0).map(|(cpu, bus)| (bus, cpu))?;
    let bell_on_bus = bar.checked_add(at).ok_or_else(|| not_there("the doorbell"))?;
    let sent_by_cpu = |what: &Happened| matches!(what, Happened::Sent { from: None, head } if head.address == bell_on_bus && head.kind == Kind::Write);
    let interrupted = |what: &Happened| matches!(what, Happened::Interrupted { .. });
    let lost = || not_there("the way of a doorbell in the log");
    Ok(Doorbell {
        sender: gpu.clone(),
        bell: nic.clone(),
        by_peer: Journey::find(place, &rung, sent_by_gpu).ok_or_else(lost)?,
        interrupt: Journey::find(place, &events, interrupted).ok_or_else(lost)?,
        by_cpu: Journey::find(place, &events, sent_by_cpu).ok_or_else(lost)?,
        heard: [by_peer, by_cpu],
    })
}
