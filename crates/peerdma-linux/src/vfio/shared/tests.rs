//! A function that is a handful of bytes, and a space that counts, under all that is done to a device.

mod placing;
mod removal;
mod several;

use super::super::bar::{BarMapping, MapBarError};
use super::super::config::ConfigError;
use super::super::device::ResetError;
use super::super::export::ExportError;
use super::super::function_reset::FunctionResetError;
use super::super::hot_reset::{HotResetError, ShownGroup};
use super::super::power::PowerError;
use super::super::region::{BarIndex, BarRange};
use super::*;
use crate::sys::map::Mapping;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, Iova};
use peerdma::buffer::config_write::Change;
use peerdma::buffer::life::{Disturbance, Phase};
use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{
    Abilities, Changes, Errno, Initiator, IoSpace, IovaRanges, MapError, Mmio, Owner, OwnerId, Peers, Permit,
    Placement, Reach, Source, Sources, UnmapError, WriteOnly,
};
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::topology::IommuMode;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PAGE: u64 = 0x1000;
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(5);

/// What happened, in order, to function and space alike.
type Log = Arc<Happened>;

#[derive(Default)]
struct Happened {
    lines: Mutex<Vec<String>>,
    /// What comes in between, the next time that something happens which begins with this.
    then: Mutex<Option<(&'static str, Between)>>,
}

type Between = Box<dyn FnOnce() + Send>;

fn say(log: &Log, what: impl Into<String>) {
    let what = what.into();
    let then = lock(&log.then).take_if(|(at, _)| what.starts_with(*at));
    lock(&log.lines).push(what);
    // In the middle of it, as the function or the space has not come back yet.
    if let Some((_, then)) = then {
        then();
    }
}

fn said(log: &Log) -> Vec<String> {
    std::mem::take(&mut *lock(&log.lines))
}

/// A function with one BAR, power management at 0x40, and a kernel that refuses to reset it if told so.
struct Fake {
    /// All ones once it is pulled.
    config: Arc<Mutex<Vec<u8>>>,
    log: Log,
    stubborn: Arc<AtomicBool>,
}

fn vouched() -> ImportRoute<'static> {
    ImportRoute::Permitted(Permit::vouched(Prot::ReadWrite))
}

fn address() -> PciAddr {
    "0000:06:00.0".parse().unwrap()
}

impl Fake {
    fn new(log: &Log) -> Self {
        let mut config = vec![0; 256];
        (config[0x00], config[0x04], config[0x06], config[0x34]) = (0xf4, 0x06, 0x10, 0x40);
        config[0x18] = 0x04; // BAR 2, of 64 bits.
        config[0x1b] = 0xc0;
        config[0x40] = 0x01;
        Self { config: Arc::new(Mutex::new(config)), log: log.clone(), stubborn: Arc::default() }
    }

    fn there(&self) -> Result<(), Errno> {
        if lock(&self.config).starts_with(&[0xff; 4]) { Err(Errno::ENODEV) } else { Ok(()) }
    }
}

impl Function for Fake {
    fn address(&self) -> PciAddr {
        address()
    }

    fn bars(&self) -> [Bytes; 6] {
        let mut sizes = [Bytes::ZERO; 6];
        sizes[2] = Bytes::new(4 * PAGE);
        sizes
    }

    fn config_space(&self) -> Result<ConfigBytes, ConfigError> {
        Ok(ConfigBytes::new(lock(&self.config).clone(), ConfigSize::Kernel(256)))
    }

    fn write_config(&self, offset: u16, from: &[u8]) -> Result<(), ConfigError> {
        say(&self.log, format!("write {offset:#x}"));
        // What is written to a card that is not there goes nowhere, and the kernel does not say so.
        if self.there().is_ok() {
            let at = usize::from(offset);
            lock(&self.config)[at..at + from.len()].copy_from_slice(from);
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), ResetError> {
        if self.stubborn.load(Ordering::Relaxed) {
            return Err(ResetError::Kernel { device: address(), errno: Errno::EIO });
        }
        say(&self.log, "reset");
        self.there().map_err(|errno| ResetError::Kernel { device: address(), errno })
    }

    fn function_reset(&self) -> Result<(), FunctionResetError> {
        Err(FunctionResetError::Absent { device: address() })
    }

    fn hot_reset(&self, _: &[ShownGroup<'_>]) -> Result<(), HotResetError> {
        say(&self.log, "hot reset");
        Ok(())
    }

    fn enter_low_power(&self, _: Option<BorrowedFd<'_>>) -> Result<(), PowerError> {
        say(&self.log, "sleep");
        Ok(())
    }

    fn exit_low_power(&self) -> Result<(), PowerError> {
        say(&self.log, "wake");
        Ok(())
    }

    fn map(&self, range: BarRange) -> Result<BarMapping, MapBarError> {
        say(&self.log, "mmap");
        self.there().map_err(|errno| MapBarError::Kernel { device: address(), range, errno })?;
        Ok(BarMapping::of(Mapping::anonymous(4 * PAGE as usize).unwrap(), address(), range))
    }

    fn export(&self, range: BarRange) -> Result<Arc<OwnedFd>, ExportError> {
        say(&self.log, "export");
        self.there().map_err(|errno| ExportError::Kernel { device: address(), range, errno })?;
        Ok(Arc::new(std::fs::File::open("/dev/null").unwrap().into()))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        say(&self.log, "closed");
    }
}

/// Takes process addresses or files, and refuses to map or unmap if told so.
struct Space {
    abilities: Abilities,
    log: Log,
    mapped: Vec<AddrRange<Iova>>,
    broken: Arc<AtomicBool>,
    /// More mappings than these are refused.
    room: Arc<AtomicUsize>,
    /// So many are unmapped, and no more.
    patience: Arc<AtomicUsize>,
}

impl Space {
    fn new(log: &Log, files: bool) -> Self {
        let process = (!files).then_some(Mmio::AsMemory);
        let abilities = Abilities {
            sources: Sources { process, file: files.then_some(Mmio::AsMmio), ..Sources::default() },
            granule: Granule::PAGE_4K,
            usable: IovaRanges::from_inclusive([(Iova::new(0), Iova::new(u64::MAX))]).unwrap(),
            attrs: MemAttrs::empty(),
            placement: Placement::Chosen,
            write_only: WriteOnly::Exact,
            changes: Changes::empty(),
            max_mappings: None,
        };
        let endless = || Arc::new(AtomicUsize::new(usize::MAX));
        let (room, patience) = (endless(), endless());
        Self { abilities, log: log.clone(), mapped: Vec::new(), broken: Arc::default(), room, patience }
    }

    fn errno(&self) -> Option<Errno> {
        self.broken.load(Ordering::Relaxed).then_some(Errno::EIO)
    }
}

impl IoSpace for Space {
    type File = Arc<OwnedFd>;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn check_place(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        let apart = |mapped: &&AddrRange<Iova>| mapped.last() < iova.start() || iova.last() < mapped.start();
        let existing = self.mapped.iter().find(|mapped| !apart(mapped)).copied();
        existing.map_or(Ok(()), |_| Err(MapError::Overlap { iova, existing }))
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        if let Some(errno) = self.errno() {
            return Err(MapError::Kernel { call: "map", errno });
        }
        if self.mapped.len() >= self.room.load(Ordering::Relaxed) {
            return Err(MapError::Kernel { call: "map", errno: Errno::ENOSPC });
        }
        self.mapped.push(iova);
        say(&self.log, format!("dma {}", source.kind()));
        Ok(())
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let left = self.patience.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if let Some(errno) = self.errno().or(left.is_err().then_some(Errno::EIO)) {
            return Err(UnmapError::Kernel { call: "unmap", errno });
        }
        let at = self.mapped.iter().position(|mapped| *mapped == iova);
        self.mapped.remove(at.expect("what is unmapped was mapped once, and as one"));
        say(&self.log, "dma off");
        Ok(iova.len())
    }
}

struct Bench {
    log: Log,
    config: Arc<Mutex<Vec<u8>>>,
    device: SharedDevice<Fake>,
    exported: Exported<Fake>,
    space: Arc<Mutex<Space>>,
    stubborn: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

fn range() -> BarRange {
    BarRange::new(BarIndex::new(2).unwrap(), Bytes::ZERO, Bytes::new(4 * PAGE)).unwrap()
}

impl Bench {
    fn new(files: bool) -> Self {
        let log = Log::default();
        let (fake, space) = (Fake::new(&log), Space::new(&log, files));
        let (stubborn, broken, config) = (fake.stubborn.clone(), space.broken.clone(), fake.config.clone());
        let device = SharedDevice::new(fake).unwrap();
        let exported = device.export("frames", range(), Owner::Device(OwnerId::new(1))).unwrap();
        Self { log, config, device, exported, space: Arc::new(Mutex::new(space)), stubborn, broken }
    }

    fn import(&self, need: Need, quiesce: impl Quiesce + 'static) -> Result<DmaImport<Space, Fake>, ImportError> {
        let iova = AddrRange::new(Iova::new(1 << 32), range().len()).unwrap();
        let tables = (Declaration::of_tables("edu's", Prot::ReadWrite), Prot::ReadWrite);
        DmaImport::attach("edu", &self.exported, self.space.clone(), iova, tables, vouched(), need, quiesce)
    }

    fn command(&self, word: u16) -> Result<Outcome, DeedError> {
        self.device.perform(Deed::config(0x04, &word.to_le_bytes()).unwrap(), LONG)
    }
}

/// Neither type1 nor iommufd asks.
#[test]
fn nothing_is_mapped_before_a_verdict_or_the_caller_has_answered_for_the_route() {
    let bench = Bench::new(true);
    let iova = AddrRange::new(Iova::new(1 << 32), range().len()).unwrap();
    let attach = |declaration: Declaration, prot, route: ImportRoute<'_>| {
        let space = bench.space.clone();
        DmaImport::attach("edu", &bench.exported, space, iova, (declaration, prot), route, Need::Required, ())
    };
    let (edu, mut peers) = (Initiator::new("edu", IommuMode::Translated), Peers::none());
    let device = || Declaration::of_device(edu.clone(), Prot::ReadWrite);
    let tables = Declaration::of_tables("edu's", Prot::ReadWrite);
    let unasked = attach(tables.clone(), Prot::ReadWrite, ImportRoute::Judged(&peers)).err().unwrap();
    assert!(matches!(unasked, ImportError::NoDevice { .. }), "{unasked}");
    let unknown = attach(device(), Prot::ReadWrite, ImportRoute::Judged(&peers)).err().unwrap();
    assert!(matches!(unknown, ImportError::Route(ref refusal) if refusal.is_unknown()), "{unknown}");
    assert_eq!((said(&bench.log), bench.exported.buffer().attached().len()), (vec![], 0));

    peers.state(Owner::Device(OwnerId::new(1)), Reach::Iova);
    let judged = attach(device(), Prot::ReadWrite, ImportRoute::Judged(&peers)).unwrap();
    assert_eq!(said(&bench.log), ["export", "dma files"]);
    drop(judged);
    // What comes back after a disturbance is mapped with the same permit.
    let permitted = attach(tables, Prot::ReadWrite, vouched()).unwrap();
    bench.device.perform(Deed::Reset, LONG).unwrap();
    assert!(matches!(permitted.state(), ImportState::Mapped(_)), "{permitted:?}");
}

#[test]
fn an_import_leaves_before_a_reset_and_is_back_after_it_address_last_and_first() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    assert_eq!(said(&bench.log), ["mmap", "dma process addresses"]);
    let outcome = bench.device.perform(Deed::Reset, LONG).unwrap();
    assert_eq!((outcome.answers, outcome.unrestored), (Some(Answers::YES), vec![]));
    assert_eq!(said(&bench.log), ["dma off", "reset", "mmap", "dma process addresses"]);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    drop(import);
    assert_eq!(said(&bench.log), ["dma off"]);
}

#[test]
fn a_space_that_takes_files_is_given_a_dma_buf_anew_each_time() {
    let bench = Bench::new(true);
    let _import = bench.import(Need::Required, ()).unwrap();
    bench.device.perform(Deed::HotReset(&[]), LONG).unwrap();
    assert_eq!(said(&bench.log), ["export", "dma files", "dma off", "hot reset", "export", "dma files"]);
}

#[test]
fn decoding_that_is_turned_off_keeps_importers_and_the_cpu_out_until_it_is_on() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    let mut window = bench.device.window("painter", range()).unwrap();
    window.write(Bytes::new(8), &[7; 4]).unwrap();
    let off = bench.command(0x0004).unwrap();
    assert_eq!(off.changes, [Change::DecodeOff]);
    assert_eq!(off.answers, Some(Answers { decoding: false, powered: true }));
    assert_eq!(import.state(), ImportState::Away(Disturbance::DecodeOff));
    assert!(matches!(window.load_u32(Bytes::new(8)), Err(WindowError::Away { .. })));
    assert!(matches!(bench.device.perform(Deed::Reset, LONG), Ok(Outcome { unrestored, .. }) if unrestored.is_empty()));
    assert!(matches!(window.load_u32(Bytes::new(8)), Err(WindowError::Away { .. })), "a reset does not turn it on");
    assert_eq!(bench.exported.buffer().phase(), Phase::Revoked);
    let on = bench.command(0x0006).unwrap();
    assert_eq!((on.changes, on.answers), (vec![Change::DecodeOn], Some(Answers::YES)));
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    assert_eq!(window.load_u32(Bytes::new(8)), Ok(0x0707_0707));
    assert!(window.generation() > Some(1), "it tells that the memory was away");
}

#[test]
fn d3_by_registers_and_sleep_by_the_kernel_overlap() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    let power = |state: u8| bench.device.perform(Deed::config(0x44, &[state]).unwrap(), LONG).unwrap();
    assert_eq!(power(3).changes, [Change::PowerDown]);
    bench.device.perform(Deed::LowPower(None), LONG).unwrap();
    assert_eq!(power(0).changes, [Change::PowerUp]);
    assert_eq!(import.state(), ImportState::Away(Disturbance::PowerDown), "the kernel has it asleep");
    bench.device.perform(Deed::Wake, LONG).unwrap();
    assert!(matches!(import.state(), ImportState::Mapped(_)));
}

/// Holds on until it is told that it may go.
struct Busy(Arc<AtomicBool>);

impl Quiesce for Busy {
    fn stop(&self, _: Disturbance) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn start(&self) {}
}

#[test]
fn a_deadline_names_who_holds_on_and_nothing_was_done() {
    let (bench, idle) = (Bench::new(false), Arc::new(AtomicBool::new(false)));
    let import = bench.import(Need::Required, Busy(idle.clone())).unwrap();
    said(&bench.log);
    let late = bench.device.perform(Deed::Reset, SHORT).unwrap_err();
    assert!(late.to_string().contains("frames: attachment 1 of edu has 1 mapping"), "{late}");
    assert_eq!(said(&bench.log), [""; 0]);
    assert!(matches!(import.state(), ImportState::Mapped(_)), "it is needed no more that it goes");
    idle.store(true, Ordering::Relaxed);
    // Whoever waits has it look.
    bench.device.perform(Deed::Reset, LONG).unwrap();
    assert_eq!(said(&bench.log), ["dma off", "reset", "mmap", "dma process addresses"]);
}

#[test]
fn a_deed_in_three_steps_can_be_given_up_between_any_two() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    let announced = bench.device.announce(Deed::Reset).unwrap();
    assert!(announced.held().is_empty() && announced.changes().is_empty());
    assert!(matches!(bench.device.announce(Deed::Close), Err(DeedError::Busy { .. })));
    drop(announced);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    let mut window = bench.device.window("painter", range()).unwrap();
    let quiet = bench.device.announce(Deed::Reset).unwrap().wait(LONG).unwrap();
    assert_eq!(import.state(), ImportState::Away(Disturbance::Reset));
    assert!(matches!(window.load_u32(Bytes::ZERO), Err(WindowError::Away { .. })));
    drop(quiet);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    assert_eq!(window.load_u32(Bytes::ZERO), Ok(0));
    assert!(!said(&bench.log).contains(&"reset".to_string()));
}

#[test]
fn a_reset_that_another_device_took_along_is_ended_without_doing_it_again() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    said(&bench.log);
    let quiet = bench.device.announce(Deed::HotReset(&[])).unwrap().wait(LONG).unwrap();
    assert_eq!(quiet.done_with_another().unwrap().answers, Some(Answers::YES));
    assert_eq!(said(&bench.log), ["dma off", "mmap", "dma process addresses"]);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
}

#[test]
fn what_the_kernel_refuses_is_an_error_and_everybody_is_back() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    bench.stubborn.store(true, Ordering::Relaxed);
    assert!(matches!(bench.device.perform(Deed::Reset, LONG), Err(DeedError::Reset(_))));
    assert!(matches!(bench.device.perform(Deed::FunctionReset, LONG), Err(DeedError::FunctionReset(_))));
    assert!(matches!(import.state(), ImportState::Mapped(_)));
}

#[test]
fn required_imports_are_errors_and_best_efforts_say_what_they_are() {
    let bench = Bench::new(false);
    bench.broken.store(true, Ordering::Relaxed);
    assert!(matches!(bench.import(Need::Required, ()), Err(ImportError::Space(_))));
    let import = bench.import(Need::BestEffort, ()).unwrap();
    assert!(matches!(import.state(), ImportState::Failed(ImportError::Space(_))));
    assert_eq!(bench.device.imports(), [import.report()]);
    let outcome = bench.device.perform(Deed::Reset, LONG).unwrap();
    assert_eq!(outcome.unrestored, [import.report()]);
    bench.broken.store(false, Ordering::Relaxed);
    assert!(matches!(import.retry(), ImportState::Mapped(_)));
    assert!(bench.device.perform(Deed::Reset, LONG).unwrap().unrestored.is_empty());
}

/// Memory that a device may still reach is not reset under it.
#[test]
fn a_space_that_does_not_unmap_keeps_the_reset_waiting() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    bench.broken.store(true, Ordering::Relaxed);
    assert!(matches!(bench.device.perform(Deed::Reset, SHORT), Err(DeedError::Late { .. })));
    let announced = bench.device.announce(Deed::Reset).unwrap();
    assert!(matches!(import.state(), ImportState::Stuck(ImportError::Unmap(_))));
    drop(announced);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    bench.broken.store(false, Ordering::Relaxed);
    bench.device.perform(Deed::Reset, LONG).unwrap();
    assert!(matches!(import.state(), ImportState::Mapped(_)));
}

#[test]
fn closing_ends_everything_and_the_mappings_that_would_keep_the_device_open() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    let mut window = bench.device.window("painter", range()).unwrap();
    said(&bench.log);
    bench.device.perform(Deed::Close, LONG).unwrap();
    assert_eq!(said(&bench.log), ["dma off", "closed"]);
    assert_eq!((import.state(), bench.exported.buffer().phase()), (ImportState::Gone, Phase::Dead));
    assert!(matches!(window.load_u32(Bytes::ZERO), Err(WindowError::Closed { .. })));
    assert_eq!(window.window(), None);
    assert!(matches!(bench.device.perform(Deed::Reset, LONG), Err(DeedError::Closed { .. })));
    assert!(bench.device.export("late", range(), Owner::Device(OwnerId::new(1))).is_err());
}

#[test]
fn a_bar_that_moves_is_told_of_to_that_bars_importers_and_the_cpu_goes_on() {
    let bench = Bench::new(false);
    let import = bench.import(Need::Required, ()).unwrap();
    said(&bench.log);
    let moved = bench.device.perform(Deed::config(0x18, &0xe000_0004_u32.to_le_bytes()).unwrap(), LONG).unwrap();
    assert!(matches!(moved.changes[..], [Change::BarMove { .. }]), "{moved:?}");
    assert_eq!(said(&bench.log), ["dma off", "write 0x18", "mmap", "dma process addresses"]);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
}

#[test]
fn accesses_beside_resets_are_right_or_refused() {
    let bench = Bench::new(false);
    let _import = bench.import(Need::Required, ()).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let mut window = bench.device.window(&format!("reader {reader}"), range()).unwrap();
            scope.spawn(move || {
                for _ in 0..20_000 {
                    assert!(matches!(window.load_u32(Bytes::ZERO), Ok(0) | Err(WindowError::Away { .. })));
                }
            });
        }
        (0..50).for_each(|_| drop(bench.device.perform(Deed::Reset, LONG).unwrap()));
    });
}
