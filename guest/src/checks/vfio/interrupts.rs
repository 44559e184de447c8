//! Claims about interrupts: of `edu`, which raises one for each write to a register, and of a drive with MSI-X.

use super::{LONG, Stop, Tried, Via, claim, equal, range};
use crate::checks::claim::Claim;
use peerdma::addr::Bytes;
use peerdma_linux::vfio::{BarMapping, Command, InterruptError, InterruptEvent, InterruptKind, VfioDevice};
use std::os::fd::AsFd;
use std::time::Duration;

/// Registers of `edu` (QEMU `docs/specs/edu.rst`).
const FACTORIAL: Bytes = Bytes::new(0x08);
const STATUS: Bytes = Bytes::new(0x20);
const RAISE: Bytes = Bytes::new(0x60);
const LOWER: Bytes = Bytes::new(0x64);
const RAISE_WHEN_DONE: u32 = 0x80;

/// Long enough for one that would come.
const MOMENT: Duration = Duration::from_millis(200);

const INTX: InterruptKind = InterruptKind::Intx;
const MSI: InterruptKind = InterruptKind::Msi;
const MSI_X: InterruptKind = InterruptKind::MsiX;

pub(super) fn claims<S: Via>() -> Vec<Claim<Tried<S>>> {
    vec![
        claim("edu has one line and one MSI and no MSI-X", counts),
        claim("edu's line arrives, masks itself, and comes again when it is unmasked", line),
        claim("edu's line that is masked waits until it is unmasked", masked),
        claim("an eventfd unmasks edu's line", unmasked_by_event),
        claim("edu's MSI arrives once for each time, also when a factorial is computed", msi),
        claim("an interrupt triggered by software arrives", triggered),
        claim(
            "MSI beside the line, vectors past the end, and masking MSI are refused before the kernel is asked",
            refused,
        ),
        claim("vectors of MSI-X go to an eventfd each, and grow only where the kernel says so", msi_x),
        claim("a notice of release is had beside any other interrupt", release),
    ]
}

/// Interrupts of the engine, off again when it is dropped.
struct On<'d>(&'d VfioDevice, InterruptKind, InterruptEvent);

impl<'d> On<'d> {
    fn new(device: &'d VfioDevice, kind: InterruptKind) -> Result<Self, Stop> {
        let event = InterruptEvent::new()?;
        device.enable_interrupts(kind, 0, &[Some(event.as_fd())])?;
        Ok(Self(device, kind, event))
    }

    fn comes(&self, what: &str) -> Result<(), Stop> {
        equal(what, &Some(1), &self.2.wait(LONG)?)
    }

    fn stays_away(&self, what: &str) -> Result<(), Stop> {
        equal(what, &None, &self.2.wait(MOMENT)?)
    }
}

impl Drop for On<'_> {
    fn drop(&mut self) {
        // The next claim hears of it if that does not work.
        let _ = self.0.disable_interrupts(self.1);
    }
}

fn registers(device: &VfioDevice) -> Result<BarMapping, Stop> {
    let registers = device.map(range(0, 0, 4096)?)?;
    registers.store_u32(LOWER, u32::MAX)?;
    Ok(registers)
}

fn counts<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    for (kind, count, maskable) in [(INTX, 1, true), (MSI, 1, false), (MSI_X, 0, false)] {
        let info = edu.interrupts(kind)?;
        equal(
            &format!("how many of {kind}, and whether they are masked"),
            &(count, maskable),
            &(info.count, info.maskable),
        )?;
    }
    Ok(())
}

fn line<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    let (registers, line) = (registers(edu)?, On::new(edu, INTX)?);
    registers.store_u32(RAISE, 1)?;
    line.comes("the first time")?;
    registers.store_u32(LOWER, 1)?;
    registers.store_u32(RAISE, 2)?;
    line.stays_away("while it has masked itself")?;
    edu.unmask_interrupts(INTX, 0, 1)?;
    line.comes("when it is unmasked")?;
    registers.store_u32(LOWER, 2)?;
    Ok(())
}

fn masked<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    let (registers, line) = (registers(edu)?, On::new(edu, INTX)?);
    edu.mask_interrupts(INTX, 0, 1)?;
    registers.store_u32(RAISE, 1)?;
    line.stays_away("while it is masked")?;
    edu.unmask_interrupts(INTX, 0, 1)?;
    line.comes("when it is unmasked")?;
    registers.store_u32(LOWER, 1)?;
    Ok(())
}

fn unmasked_by_event<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    let (registers, line) = (registers(edu)?, On::new(edu, INTX)?);
    let unmask = InterruptEvent::new()?;
    edu.unmask_interrupt_on(INTX, unmask.as_fd())?;
    registers.store_u32(RAISE, 1)?;
    line.comes("the first time")?;
    rustix::io::write(&unmask, &1_u64.to_ne_bytes())?;
    // The line is still raised.
    line.comes("when the eventfd was signalled")?;
    registers.store_u32(LOWER, 1)?;
    Ok(())
}

fn msi<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    edu.set_command(Command::BUS_MASTER)?;
    let (registers, msi) = (registers(edu)?, On::new(edu, MSI)?);
    for time in ["the first time", "the second time"] {
        registers.store_u32(RAISE, 1)?;
        msi.comes(time)?;
        registers.store_u32(LOWER, 1)?;
    }
    registers.store_u32(STATUS, RAISE_WHEN_DONE)?;
    registers.store_u32(FACTORIAL, 6)?;
    msi.comes("when the factorial is there")?;
    equal("the factorial of 6", &720, &registers.load_u32(FACTORIAL)?)?;
    registers.store_u32(STATUS, 0)?;
    registers.store_u32(LOWER, u32::MAX)?;
    Ok(())
}

fn triggered<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    for kind in [INTX, MSI] {
        let event = On::new(edu, kind)?;
        edu.trigger_interrupts(kind, 0, 1)?;
        event.comes("triggered")?;
    }
    Ok(())
}

fn refused<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    let event = InterruptEvent::new()?;
    let one = [Some(event.as_fd())];
    let line = On::new(edu, INTX)?;
    let seen = [
        matches!(edu.enable_interrupts(MSI, 0, &one), Err(InterruptError::OtherKind { enabled: INTX, .. })),
        matches!(edu.enable_interrupts(INTX, 1, &one), Err(InterruptError::Outside { has: 1, .. })),
        matches!(edu.enable_interrupts(MSI_X, 0, &one), Err(InterruptError::Absent { .. })),
        matches!(edu.enable_interrupts(INTX, 0, &[]), Err(InterruptError::Empty { .. })),
        matches!(edu.trigger_interrupts(MSI, 0, 1), Err(InterruptError::NotEnabled { .. })),
        matches!(edu.disable_interrupts(MSI), Err(InterruptError::NotEnabled { .. })),
    ];
    equal("what is refused by name beside the line", &[true; 6], &seen)?;
    drop(line);
    let _msi = On::new(edu, MSI)?;
    let masked = edu.mask_interrupts(MSI, 0, 1);
    equal("whether masking MSI is", &true, &matches!(masked, Err(InterruptError::NotMaskable { .. })))
}

fn msi_x<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let nvme = &on.nvme;
    let info = nvme.interrupts(MSI_X)?;
    equal("whether the drive has four vectors", &true, &(info.count >= 4))?;
    let events = [InterruptEvent::new()?, InterruptEvent::new()?];
    nvme.enable_interrupts(MSI_X, 0, &[Some(events[0].as_fd()), Some(events[1].as_fd())])?;
    nvme.trigger_interrupts(MSI_X, 1, 1)?;
    equal("vector 1", &Some(1), &events[1].wait(LONG)?)?;
    equal("vector 0", &0, &events[0].take()?)?;
    let past = InterruptEvent::new()?;
    match (info.grows, nvme.enable_interrupts(MSI_X, 2, &[Some(past.as_fd())])) {
        (true, Ok(())) => {
            nvme.trigger_interrupts(MSI_X, 2, 1)?;
            equal("a vector that came later", &Some(1), &past.wait(LONG)?)?;
        }
        (false, Err(InterruptError::CannotGrow { enabled: 2, wanted: 3, .. })) => {}
        (grows, seen) => return Err(Stop::Broken(format!("grows is {grows}, and enlarging gave {seen:?}"))),
    }
    Ok(nvme.disable_interrupts(MSI_X)?)
}

fn release<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    let edu = on.engine.device();
    let _line = On::new(edu, INTX)?;
    let release = On::new(edu, InterruptKind::Release)?;
    edu.trigger_interrupts(InterruptKind::Release, 0, 1)?;
    release.comes("the notice")
}
