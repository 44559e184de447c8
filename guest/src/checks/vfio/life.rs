//! Claims about memory that comes and goes while an engine and the CPU use it.

use super::{LONG, MEMORY_BAR, PAGE, Stop, TARGET, Tried, Via, claim, equal, look, range, shared, used};
use crate::checks::claim::Claim;
use peerdma::addr::{Bytes, Iova};
use peerdma::buffer::config_write::Change;
use peerdma::buffer::life::{Answers, Disturbance, Phase};
use peerdma::dma::{Owner, OwnerId};
use peerdma_linux::vfio::shared::{DeedError, ImportState, Outcome, Quiesce, WindowError};
use peerdma_linux::vfio::{Deed, HotResetError, InterruptEvent, Membership};
use std::os::fd::AsFd;
use std::time::Duration;

pub(super) fn claims<S: Via>() -> Vec<Claim<Tried<S>>> {
    vec![
        claim("across a reset the engine and the CPU stop and go on together", reset),
        claim(
            "with memory space off the engine is away and an access of the CPU is an error; on again both go on",
            off_and_on,
        ),
        claim("no byte lands while the memory is away", nothing_lands),
        claim("a buffer of two ranges is one to the engine, before a reset and after it", two_ranges),
        claim("asleep by the kernel's hand the engine and the CPU stay away until it is woken", low_power),
        claim("a drive in D3 by its registers is out of the CPU's reach, and back in D0", d3),
        claim("a function-level reset is done where the function has one, and named where it has none", function_reset),
        claim("a hot reset says whom it is about, and the engine goes on after it", hot_reset),
        claim(
            "devices below one bridge that are all ours are reset together, and each one's memory is away meanwhile",
            together,
        ),
        claim("a hot reset that others would share is refused with their names", not_ours),
        claim("an importer that does not let go keeps a reset waiting, by name, until the deadline", late),
        claim("closing ends all use for good, and a new buffer of the device opened again is good", close),
        claim("twenty resets and switchings, and the engine arrives after each", again_and_again),
    ]
}

fn command<S: Via>(on: &Tried<S>, word: u16) -> Result<Outcome, Stop> {
    Ok(on.device.perform(Deed::config(0x04, &word.to_le_bytes())?, LONG)?)
}

const MEMORY: u16 = 0x2;

fn away<S: Via>(on: &Tried<S>, cause: Disturbance, state: &ImportState) -> Result<(), Stop> {
    equal("the import", &ImportState::Away(cause), state)?;
    let mut window = on.window()?;
    let read = window.load_u32(Bytes::ZERO);
    equal("whether the CPU's access is an error", &true, &matches!(read, Err(WindowError::Away { .. })))
}

fn reset<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (exported, mut window) = (on.export()?, on.window()?);
    let import = on.import(&exported, ())?;
    on.arrives(&mut window, "before")?;
    let quiet = on.device.announce(Deed::Reset)?.wait(LONG)?;
    away(on, Disturbance::Reset, &import.state())?;
    let outcome = quiet.act()?;
    equal("what answers", &Some(Answers::YES), &outcome.answers)?;
    equal("what is not back", &0, &outcome.unrestored.len())?;
    on.arrives(&mut window, "after")
}

fn off_and_on<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (exported, mut window) = (on.export()?, on.window()?);
    let import = on.import(&exported, ())?;
    equal("what turning off is", &vec![Change::DecodeOff], &command(on, 0)?.changes)?;
    away(on, Disturbance::DecodeOff, &import.state())?;
    let read = window.load_u32(Bytes::ZERO);
    equal("whether an old window is shut too", &true, &matches!(read, Err(WindowError::Away { .. })))?;
    equal("what turning on is", &vec![Change::DecodeOn], &command(on, MEMORY)?.changes)?;
    on.arrives(&mut window, "when it is on")
}

fn nothing_lands<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (exported, mut window) = (on.export()?, on.window()?);
    let _import = on.import(&exported, ())?;
    on.arrives(&mut window, "before")?;
    let before = look(&mut window)?;
    command(on, 0)?;
    on.send()?;
    command(on, MEMORY)?;
    equal("whether the memory is as it was", &true, &(look(&mut window)? == before))?;
    on.arrives(&mut window, "after")
}

fn two_ranges<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (third, first) = (range(MEMORY_BAR, 2 * PAGE.as_u64(), PAGE.as_u64())?, range(MEMORY_BAR, 0, PAGE.as_u64())?);
    let exported = on.device.export_ranges("two", &[third, first], Owner::Device(OwnerId::new(1)))?;
    let mut window = on.window()?;
    let import = on.import(&exported, ())?;
    for when in ["before a reset", "after it"] {
        let in_third = on.send_to(Iova::new(TARGET))?;
        let in_first = on.send_to(Iova::new(TARGET + PAGE.as_u64()))?;
        let mut seen = vec![0; 3 * PAGE.as_u64() as usize];
        window.read(Bytes::ZERO, &mut seen)?;
        let page = |nth: usize| &seen[nth * 4096..(nth + 1) * 4096];
        equal(
            &format!("whether both pages arrive {when}"),
            &(true, true),
            &(page(2) == in_third, page(0) == in_first),
        )?;
        on.device.perform(Deed::Reset, LONG)?;
        equal("whether it is mapped", &true, &matches!(import.state(), ImportState::Mapped(_)))?;
    }
    Ok(())
}

fn low_power<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let offered = on.device.with(|device| device.offers_low_power());
    if offered != Some(true) {
        return Err(Stop::DoesNotApply("the kernel offers no low power for it".into()));
    }
    let (exported, mut window) = (on.export()?, on.window()?);
    let import = on.import(&exported, ())?;
    let wakeup = InterruptEvent::new()?;
    for event in [None, Some(wakeup.as_fd())] {
        let asleep = on.device.perform(Deed::LowPower(event), LONG)?;
        equal("whether it is awake", &Some(false), &asleep.answers.map(|answers| answers.powered))?;
        away(on, Disturbance::PowerDown, &import.state())?;
        on.device.perform(Deed::Wake, LONG)?;
        on.arrives(&mut window, "when it is awake")?;
    }
    Ok(())
}

fn d3<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    use peerdma::pcie::caps::{self, Lookup, standard};
    let config = on.nvme.config_space()?;
    let Lookup::At(at) = caps::standard_list(&config).find(standard::POWER_MANAGEMENT) else {
        return Err(Stop::DoesNotApply("the drive has no power management".into()));
    };
    let drive = shared(on.nvme.try_clone()?)?;
    let mut window = drive.window("look", range(0, 0, 4096)?)?;
    let capabilities = window.load_u64(Bytes::ZERO)?;
    let state = |state: u8| drive.perform(Deed::config(at + 4, &[state])?, LONG).map_err(Stop::from);
    equal("what D3 is", &vec![Change::PowerDown], &state(3)?.changes)?;
    let read = window.load_u64(Bytes::ZERO);
    equal("whether the CPU's access is an error", &true, &matches!(read, Err(WindowError::Away { .. })))?;
    equal("what D0 is", &vec![Change::PowerUp], &state(0)?.changes)?;
    equal("what the drive can do", &capabilities, &window.load_u64(Bytes::ZERO)?)
}

fn function_reset<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    equal("whether the drive has one", &true, &on.nvme.has_function_reset()?)?;
    on.nvme.function_reset()?;
    let refused = on.device.perform(Deed::FunctionReset, LONG);
    equal("whether the memory has none", &true, &matches!(refused, Err(DeedError::FunctionReset(_))))
}

fn hot_reset<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let info = on.device.with(|device| device.hot_reset_info()).ok_or_else(|| Stop::broken("it is closed"))??;
    let devices: Vec<_> = info.affected.iter().map(|one| one.device).collect();
    equal("whom it is about", &vec![on.target], &devices)?;
    let ours = info.affected.iter().all(|one| one.membership != Membership::NotOurs);
    equal("whether they are ours", &true, &ours)?;
    let (exported, mut window) = (on.export()?, on.window()?);
    let _import = on.import(&exported, ())?;
    // Groups are borrowed from a space that imports lock; the descriptors are the same.
    let groups = {
        let space = on.space();
        let cloned = space.shown().into_iter().map(|shown| Ok((shown.number, shown.group.try_clone_to_owned()?)));
        cloned.collect::<std::io::Result<Vec<_>>>()?
    };
    let shown: Vec<_> = groups
        .iter()
        .map(|(number, group)| peerdma_linux::vfio::ShownGroup { number: *number, group: group.as_fd() })
        .collect();
    on.device.perform(Deed::HotReset(&shown), LONG)?;
    on.arrives(&mut window, "after")
}

fn not_ours<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let Some((one, other)) = on.pair else {
        return Err(Stop::DoesNotApply("no two functions below one bridge are named with --bell and --far".into()));
    };
    let mut space = S::open(&[one])?;
    let device = space.take(one, false)?;
    let refused = device.hot_reset(&[]);
    match refused {
        Err(HotResetError::NotOurs { others, .. }) => {
            equal("whether the other is named", &true, &others.contains(&other))
        }
        // A bound iommufd counts the whole group as ours, and a group that is one may be reset.
        Ok(()) if space.shown().is_empty() => Ok(()),
        seen => Err(Stop::Broken(format!("expected a refusal with {other}, seen {seen:?}"))),
    }
}

fn together<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let Some((one, other)) = on.pair else {
        return Err(Stop::DoesNotApply("no two functions below one bridge are named with --bell and --far".into()));
    };
    let mut space = S::open(&[one, other])?;
    let (engine, memory) = (shared(space.take(one, false)?)?, shared(space.take(other, false)?)?);
    let info = engine.with(|device| device.hot_reset_info()).ok_or_else(|| Stop::broken("it is closed"))??;
    let mut devices: Vec<_> = info.affected.iter().map(|affected| affected.device).collect();
    devices.sort_unstable();
    equal("whom it is about", &vec![one, other], &devices)?;
    let mut window = memory.window("look", used()?)?;
    window.store_u32(Bytes::ZERO, 0x1234_5678)?;
    let quiet = memory.announce(Deed::HotReset(&[]))?.wait(LONG)?;
    let read = window.load_u32(Bytes::ZERO);
    equal("whether the neighbour's memory is away", &true, &matches!(read, Err(WindowError::Away { .. })))?;
    engine.perform(Deed::HotReset(&space.shown()), LONG)?;
    quiet.done_with_another()?;
    equal("what the neighbour's memory holds after it", &0x1234_5678, &window.load_u32(Bytes::ZERO)?)
}

struct Never;

impl Quiesce for Never {
    fn stop(&self, _: Disturbance) -> bool {
        false
    }

    fn start(&self) {}
}

fn late<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (exported, mut window) = (on.export()?, on.window()?);
    let _import = on.import(&exported, Never)?;
    match on.device.perform(Deed::Reset, Duration::from_millis(50)) {
        Err(error @ DeedError::Late { .. }) => equal("the name", &true, &error.to_string().contains("of engine"))?,
        seen => return Err(Stop::Broken(format!("expected a deadline, seen {seen:?}"))),
    }
    on.arrives(&mut window, "since nothing was done")
}

fn close<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (exported, mut window) = (on.export()?, on.window()?);
    let import = on.import(&exported, ())?;
    on.arrives(&mut window, "before")?;
    on.device.perform(Deed::Close, LONG)?;
    equal("the import", &ImportState::Gone, &import.state())?;
    equal("the buffer", &Phase::Dead, &exported.buffer().phase())?;
    let read = window.load_u32(Bytes::ZERO);
    equal("whether the CPU's access is an error", &true, &matches!(read, Err(WindowError::Closed { .. })))?;
    drop((import, window));
    on.clear()?;
    let (exported, mut window) = (on.export()?, on.window()?);
    let _import = on.import(&exported, ())?;
    on.arrives(&mut window, "opened again")
}

fn again_and_again<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let (exported, mut window) = (on.export()?, on.window()?);
    let _import = on.import(&exported, ())?;
    for _ in 0..10 {
        on.device.perform(Deed::Reset, LONG)?;
        command(on, 0)?;
        command(on, MEMORY)?;
        on.arrives(&mut window, "after a reset and a switching")?;
    }
    Ok(())
}
