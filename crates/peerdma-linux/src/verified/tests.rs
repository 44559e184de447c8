//! Verification against engines that lie in every way that hardware might.

use super::*;
use crate::memory::Pages;
use peerdma::addr::AddrRange;

const STAGING: u64 = 0x10_0000;
const TARGET: u64 = 0x20_0000;
/// Where the engine begins to cut addresses.
const HIGHEST: u64 = 0x2f_ffff;
/// Where the range starts in the target's memory: room for guards on both sides.
const START: u64 = 0x1000;

/// What a fake engine does wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// Writes to the target go nowhere, as through an IOMMU that refuses.
    TargetWritesLost,
    /// Reads of the target give all ones, as PCIe does for a refused read.
    TargetReadsOnes,
    /// Reads of the target leave the buffer as it was.
    TargetReadsStale,
    /// Writes to the target end one byte late.
    OneByteMore,
    /// Writes to the target start one byte early.
    OneByteEarly,
    /// Writes to the target lack their last byte.
    OneByteLess,
    /// Writes of process memory end one byte late, on the read pass.
    StagingOneByteMore,
    /// Nothing moves at all.
    Dead,
    /// Completion is never reported after this many transfers.
    StopsAfter(usize),
}

struct Fake<'a> {
    target: &'a Pages,
    staging: &'a Pages,
    buffer: Vec<u8>,
    fault: Fault,
    transfers: usize,
}

impl Fake<'_> {
    fn place(&self, iova: Iova) -> (&Pages, u64, bool) {
        match iova.as_u64() {
            at if at >= TARGET => (self.target, START + at - TARGET, true),
            at => (self.staging, at - STAGING, false),
        }
    }

    fn count(&mut self) -> Result<(), EngineError> {
        self.transfers += 1;
        match self.fault {
            Fault::StopsAfter(most) if self.transfers > most => {
                let device = "0000:05:00.0".parse().unwrap();
                Err(EngineError::NotFinished { device, waited: std::time::Duration::from_secs(5) })
            }
            _ => Ok(()),
        }
    }
}

impl Engine for Fake<'_> {
    fn capacity(&self) -> Bytes {
        Bytes::new(4096)
    }

    fn highest(&self) -> Iova {
        Iova::new(HIGHEST)
    }

    fn fetch(&mut self, from: Iova, len: Bytes) -> Result<(), EngineError> {
        self.count()?;
        let mut bytes = vec![0; len.as_u64() as usize];
        let (memory, at, is_target) = self.place(from);
        memory.read(Bytes::new(at), &mut bytes).unwrap();
        match self.fault {
            Fault::Dead => return Ok(()),
            Fault::TargetReadsStale if is_target => return Ok(()),
            Fault::TargetReadsOnes if is_target => bytes.fill(0xff),
            _ => {}
        }
        self.buffer = bytes;
        Ok(())
    }

    fn store(&mut self, to: Iova, len: Bytes) -> Result<(), EngineError> {
        self.count()?;
        let (memory, mut at, is_target) = self.place(to);
        let mut bytes = self.buffer.clone();
        bytes.resize(len.as_u64() as usize, 0);
        match self.fault {
            Fault::Dead => return Ok(()),
            Fault::TargetWritesLost if is_target => return Ok(()),
            Fault::OneByteMore if is_target => bytes.push(0xa5),
            Fault::OneByteEarly if is_target => at -= 1,
            Fault::OneByteLess if is_target => drop(bytes.pop()),
            Fault::StagingOneByteMore if !is_target => bytes.push(0xa5),
            _ => {}
        }
        memory.write(Bytes::new(at), &bytes).unwrap();
        Ok(())
    }
}

/// Runs a verification of `len` bytes; also gives the transfers that were made. Whatever
/// comes out, the target must hold what it held.
fn run(fault: Fault, len: u64, observe: Observer<'_>) -> (Result<Verification, VerifyError>, usize) {
    let target = Pages::zeroed(Bytes::new(START + len + 0x1000)).unwrap();
    let original = Pattern::new(99, 7).bytes(Bytes::ZERO, target.len().as_u64() as usize);
    target.write(Bytes::ZERO, &original).unwrap();
    let staging = Pages::zeroed(Staging::pages_for(Bytes::new(4096))).unwrap();
    let mut engine = Fake { target: &target, staging: &staging, buffer: Vec::new(), fault, transfers: 0 };
    let iova = AddrRange::new(Iova::new(TARGET), Bytes::new(len)).unwrap();
    let result = verify(
        &mut engine,
        &Target::new(&target, Bytes::new(START), iova).unwrap(),
        &Staging::new(&staging, Iova::new(STAGING)).unwrap(),
        1,
        observe,
    );
    let transfers = engine.transfers;
    let mut now = vec![0; original.len()];
    target.read(Bytes::ZERO, &mut now).unwrap();
    let range = START as usize..(START + len) as usize;
    assert_eq!(now[range.clone()], original[range], "the target holds what it held, after {fault:?}");
    (result, transfers)
}

fn verification(fault: Fault) -> Verification {
    run(fault, 4096, &mut |_| ControlFlow::Continue(())).0.unwrap()
}

#[test]
fn a_route_that_delivers_both_ways_is_verified() {
    for len in [1u64, 7, 4095, 4096, 4097, 3 * 4096 + 5] {
        let (result, transfers) = run(Fault::None, len, &mut |_| ControlFlow::Continue(()));
        let result = result.unwrap();
        assert!(result.is_verified() && result.restored, "{result:?}");
        assert_eq!(result.checked, Bytes::new(len));
        assert_eq!(transfers as u64, 2 + 4 * len.div_ceil(4096));
    }
}

#[test]
fn writes_that_go_nowhere_are_not_delivered_though_the_engine_reports_completion() {
    let result = verification(Fault::TargetWritesLost);
    assert!(!result.is_verified() && !result.write.is_delivered());
    assert!(result.write.untouched);
    assert_eq!(result.write.wrong, Bytes::new(4096));
    let wrong = result.write.first_wrong.unwrap();
    assert_eq!((wrong.offset, wrong.seen), (Bytes::ZERO, !wrong.expected));
    assert!(result.read.is_delivered(), "reads are a question of their own");
}

#[test]
fn reads_that_give_ones_or_what_the_engine_held_before_are_not_delivered() {
    for fault in [Fault::TargetReadsOnes, Fault::TargetReadsStale] {
        let result = verification(fault);
        assert!(result.write.is_delivered() && !result.read.is_delivered(), "{fault:?}");
        assert!(!result.is_verified());
    }
}

#[test]
fn bytes_beside_the_destination_that_change_are_damage_on_their_side() {
    let after = verification(Fault::OneByteMore);
    let damage = after.write.damage.unwrap();
    assert_eq!((damage.side, damage.distance, damage.is), (Side::After, Bytes::new(1), 0xa5));
    assert!(after.write.first_wrong.is_none() && !after.is_verified() && !after.restored);
    let before = verification(Fault::OneByteEarly).write;
    assert_eq!(before.damage.map(|damage| (damage.side, damage.distance)), Some((Side::Before, Bytes::new(1))));
    assert!(before.first_wrong.is_some());
    let staging = verification(Fault::StagingOneByteMore).read.damage.unwrap();
    assert_eq!((staging.side, staging.distance), (Side::After, Bytes::new(1)));
}

#[test]
fn a_last_byte_that_is_missing_is_found() {
    let wrong = verification(Fault::OneByteLess).write;
    assert_eq!(wrong.wrong, Bytes::new(1));
    assert_eq!(wrong.first_wrong.unwrap().offset, Bytes::new(4095));
    assert!(!wrong.untouched);
}

#[test]
fn an_engine_that_moves_nothing_says_nothing_about_the_target() {
    let (result, transfers) = run(Fault::Dead, 4096, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(VerifyError::EngineUnfit { .. })));
    assert_eq!(transfers, 2, "the target was never touched");
}

#[test]
fn an_engine_that_hangs_at_any_step_leaves_the_target_as_it_was() {
    for most in 0..6 {
        let (result, _) = run(Fault::StopsAfter(most), 4096, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(VerifyError::Engine(EngineError::NotFinished { .. }))), "{most}");
    }
}

#[test]
fn an_interruption_at_any_step_leaves_the_target_as_it_was() {
    for most in 0..4 {
        let mut asked = 0;
        let mut observe = |progress: Progress| {
            assert_eq!(progress.total, Bytes::new(8192));
            asked += 1;
            if asked > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (result, _) = run(Fault::None, 8192, &mut observe);
        assert_eq!(result, Err(VerifyError::Interrupted), "{most}");
    }
}

/// Memory whose last byte does not keep what is written to it.
struct ReadOnlyByte(Pages);

impl CpuView for ReadOnlyByte {
    fn extent(&self) -> (Bytes, Bytes) {
        self.0.extent()
    }

    fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), CpuAccess> {
        Ok(self.0.read(offset, into)?)
    }

    fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), CpuAccess> {
        let kept = (4095 - offset.as_u64() as usize).min(from.len());
        Ok(self.0.write(offset, &from[..kept])?)
    }
}

#[test]
fn a_range_that_does_not_keep_bytes_is_refused_before_any_dma_to_it() {
    let target = ReadOnlyByte(Pages::zeroed(Bytes::new(4096)).unwrap());
    let staging = Pages::zeroed(Staging::pages_for(Bytes::new(4096))).unwrap();
    let mut engine =
        Fake { target: &target.0, staging: &staging, buffer: Vec::new(), fault: Fault::None, transfers: 0 };
    let iova = AddrRange::new(Iova::new(TARGET), Bytes::new(4096)).unwrap();
    let result = verify(
        &mut engine,
        &Target::new(&target, Bytes::ZERO, iova).unwrap(),
        &Staging::new(&staging, Iova::new(STAGING)).unwrap(),
        1,
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(result, Err(VerifyError::NotMemory { offset, .. }) if offset == Bytes::new(4095)));
    assert_eq!(engine.transfers, 2);
}

/// Registers: they keep nothing, and count what they are told.
struct Registers(std::cell::Cell<usize>);

impl CpuView for Registers {
    fn extent(&self) -> (Bytes, Bytes) {
        (Bytes::ZERO, Bytes::new(4096))
    }

    fn read(&self, _: Bytes, into: &mut [u8]) -> Result<(), CpuAccess> {
        into.fill(0xff);
        Ok(())
    }

    fn write(&self, _: Bytes, from: &[u8]) -> Result<(), CpuAccess> {
        self.0.set(self.0.get().max(from.len()));
        Ok(())
    }
}

#[test]
fn registers_are_refused_by_their_first_bytes() {
    let target = Registers(0.into());
    let memory = Pages::zeroed(Bytes::new(4096)).unwrap();
    let staging = Pages::zeroed(Staging::pages_for(Bytes::new(4096))).unwrap();
    let mut engine = Fake { target: &memory, staging: &staging, buffer: Vec::new(), fault: Fault::None, transfers: 0 };
    let iova = AddrRange::new(Iova::new(TARGET), Bytes::new(4096)).unwrap();
    let result = verify(
        &mut engine,
        &Target::new(&target, Bytes::ZERO, iova).unwrap(),
        &Staging::new(&staging, Iova::new(STAGING)).unwrap(),
        1,
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(result, Err(VerifyError::NotMemory { offset: Bytes::ZERO, .. })));
    assert_eq!(target.0.get(), FIRST, "the longest write");
}

#[test]
fn a_range_beyond_the_engines_reach_is_refused_before_anything_moves() {
    let memory = Pages::zeroed(Bytes::new(8192)).unwrap();
    let staging = Pages::zeroed(Staging::pages_for(Bytes::new(4096))).unwrap();
    let mut engine = Fake { target: &memory, staging: &staging, buffer: Vec::new(), fault: Fault::None, transfers: 0 };
    let iova = AddrRange::new(Iova::new(HIGHEST - 4094), Bytes::new(4096)).unwrap();
    let (target, staging) =
        (Target::new(&memory, Bytes::ZERO, iova).unwrap(), Staging::new(&staging, Iova::new(STAGING)).unwrap());
    let refused = VerifyError::BeyondReach { iova, highest: Iova::new(HIGHEST) };
    let mut observe = |_| ControlFlow::Continue(());
    assert_eq!(verify(&mut engine, &target, &staging, 1, &mut observe), Err(refused.clone()));
    assert_eq!(transfer(&mut engine, &target, &staging, 1, &mut observe), Err(refused));
    assert_eq!(engine.transfers, 0);
}

#[test]
fn a_target_out_of_the_cpus_reach_cannot_be_named() {
    let pages = Pages::zeroed(Bytes::new(4096)).unwrap();
    let iova = |len| AddrRange::new(Iova::new(TARGET), Bytes::new(len)).unwrap();
    assert!(Target::new(&pages, Bytes::new(1), iova(4096)).is_err());
    assert!(Target::new(&pages, Bytes::new(u64::MAX), iova(4096)).is_err());
    assert!(Target::new(&pages, Bytes::ZERO, iova(4096)).is_ok());
    assert!(Staging::new(&pages, Iova::new(0)).is_err());
}
