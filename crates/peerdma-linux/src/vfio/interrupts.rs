//! Interrupts of an open device, each on an eventfd.
//!
//! A function has one kind of interrupt on at a time: its line (INTx), MSI or MSI-X. What the kernel answers with
//! EINVAL (Linux 7.2 `vfio_pci_intrs.c`) is refused here by name before it is asked: vectors that are not there, a
//! second kind beside the first, masking where nothing can be masked.
//!
//! - **INTx** masks itself whenever it comes: have the device lower its line, then [unmask](VfioDevice::unmask_interrupts),
//!   or let an eventfd do that ([`unmask_interrupt_on`](VfioDevice::unmask_interrupt_on)).
//! - **MSI and MSI-X** are edges, and are not masked through VFIO. What was enabled is enlarged only where the kernel
//!   says so; otherwise disable and enable anew.
//! - **[`Error`](InterruptKind::Error)** tells of uncorrectable errors of a PCI Express device, and
//!   **[`Release`](InterruptKind::Release)** that somebody unbinds the driver and waits for this process to close the device.
//!
//! Not here: remapping, and interrupts for guests beyond the descriptor that KVM takes.

use super::device::VfioDevice;
use super::error::errno;
use super::interrupt_error::InterruptError;
use crate::sys::vfio::interrupts;
use peerdma::pcie::PciAddr;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use vfio_bindings::bindings::vfio as uapi;

/// Kinds of interrupts of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum InterruptKind {
    /// The line, INTA to INTD.
    Intx,
    /// Message-signalled, 1 to 32 vectors.
    Msi,
    /// Message-signalled, up to 2048 vectors.
    MsiX,
    /// An uncorrectable error of the device or its link was reported.
    Error,
    /// The kernel wants the device back.
    Release,
}

impl InterruptKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Intx, Self::Msi, Self::MsiX, Self::Error, Self::Release];

    const fn index(self) -> u32 {
        match self {
            Self::Intx => uapi::VFIO_PCI_INTX_IRQ_INDEX,
            Self::Msi => uapi::VFIO_PCI_MSI_IRQ_INDEX,
            Self::MsiX => uapi::VFIO_PCI_MSIX_IRQ_INDEX,
            Self::Error => uapi::VFIO_PCI_ERR_IRQ_INDEX,
            Self::Release => uapi::VFIO_PCI_REQ_IRQ_INDEX,
        }
    }

    /// Whether the device sends it; of those kinds one is on at a time.
    pub const fn is_of_device(self) -> bool {
        matches!(self, Self::Intx | Self::Msi | Self::MsiX)
    }
}

impl fmt::Display for InterruptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::MsiX => "MSI-X",
            Self::Error => "error notice",
            Self::Release => "release notice",
        })
    }
}

/// What a device has of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptInfo {
    /// How many; 0 if it has none of the kind.
    pub count: u32,
    /// Whether it can be masked.
    pub maskable: bool,
    /// Whether it masks itself when it comes.
    pub masks_itself: bool,
    /// Whether more can be enabled later beside those that are.
    pub grows: bool,
}

/// Which kind this handle has switched on, and how many of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Enabled(Option<(InterruptKind, u32)>);

/// What a call is about, for its checks and errors.
#[derive(Clone, Copy)]
struct Call {
    device: PciAddr,
    kind: InterruptKind,
    info: InterruptInfo,
}

impl Call {
    /// As many as are named, among as many as there are.
    fn within(self, first: u32, count: usize, has: u32) -> Result<u32, InterruptError> {
        let Self { device, kind, info } = self;
        if info.count == 0 {
            return Err(InterruptError::Absent { device, kind });
        }
        let outside = InterruptError::Outside { device, kind, first, count: count as u64, has };
        let Ok(count) = u32::try_from(count) else { return Err(outside) };
        match first.checked_add(count) {
            _ if count == 0 => Err(InterruptError::Empty { device, kind }),
            Some(end) if end <= has => Ok(end),
            _ => Err(outside),
        }
    }

    /// Whether vectors may be given eventfds, with this enabled; up to which there are some then.
    fn enable(self, enabled: Enabled, first: u32, count: usize) -> Result<u32, InterruptError> {
        let Self { device, kind, info } = self;
        let end = self.within(first, count, info.count)?;
        match enabled.0.filter(|_| kind.is_of_device()) {
            Some((other, _)) if other != kind => Err(InterruptError::OtherKind { device, kind, enabled: other }),
            Some((_, now)) if end > now && !info.grows => {
                Err(InterruptError::CannotGrow { device, kind, enabled: now, wanted: end })
            }
            Some((_, now)) => Ok(end.max(now)),
            None => Ok(end),
        }
    }

    /// Whether something may be done to vectors that are on.
    fn touch(self, enabled: Enabled, first: u32, count: usize) -> Result<(), InterruptError> {
        let Self { device, kind, info } = self;
        let has = match enabled.0 {
            _ if !kind.is_of_device() => info.count,
            Some((on, now)) if on == kind => now,
            _ if info.count == 0 => return Err(InterruptError::Absent { device, kind }),
            _ => return Err(InterruptError::NotEnabled { device, kind }),
        };
        self.within(first, count, has).map(drop)
    }

    fn mask(self, enabled: Enabled, first: u32, count: usize) -> Result<(), InterruptError> {
        let Self { device, kind, info } = self;
        if info.count > 0 && !info.maskable {
            return Err(InterruptError::NotMaskable { device, kind });
        }
        self.touch(enabled, first, count)
    }
}

impl VfioDevice {
    /// Asks what the device has of a kind.
    ///
    /// # Errors
    /// [`InterruptError::Kernel`]; a kind that the device does not know counts as none of it.
    pub fn interrupts(&self, kind: InterruptKind) -> Result<InterruptInfo, InterruptError> {
        let none = InterruptInfo { count: 0, maskable: false, masks_itself: false, grows: false };
        match interrupts::info(self.descriptor(), kind.index()) {
            Ok(info) => {
                let has = |flag| info.flags & flag != 0;
                Ok(InterruptInfo {
                    count: info.count,
                    maskable: has(uapi::VFIO_IRQ_INFO_MASKABLE),
                    masks_itself: has(uapi::VFIO_IRQ_INFO_AUTOMASKED),
                    grows: !has(uapi::VFIO_IRQ_INFO_NORESIZE),
                })
            }
            Err(rustix::io::Errno::INVAL) => Ok(none),
            Err(error) => Err(self.interrupts_refused(kind, "asking for", error)),
        }
    }

    /// Has interrupts from number `first` on arrive at these eventfds, and enables the kind if it is off.
    ///
    /// `None` leaves a vector without one. Descriptors may be closed afterwards; the kernel keeps what they stand for.
    /// With MSI and MSI-X the function also has to be a [bus master](super::Command::BUS_MASTER).
    ///
    /// # Errors
    /// [`InterruptError::Absent`], [`Outside`](InterruptError::Outside), [`OtherKind`](InterruptError::OtherKind) and
    /// [`CannotGrow`](InterruptError::CannotGrow) before the kernel is asked; [`Fewer`](InterruptError::Fewer) and
    /// [`Kernel`](InterruptError::Kernel) after.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::vfio::{Command, InterruptEvent, InterruptKind, Nodes};
    /// use peerdma_linux::type1::Type1Space;
    /// use std::{os::fd::AsFd, time::Duration};
    ///
    /// let address = "0000:05:00.0".parse()?;
    /// let space = Type1Space::open(&Nodes::live(), &[address])?;
    /// let device = space.device(address)?;
    /// let event = InterruptEvent::new()?;
    /// device.enable_interrupts(InterruptKind::Msi, 0, &[Some(event.as_fd())])?;
    /// device.set_command(Command::BUS_MASTER)?;
    /// println!("{:?} came", event.wait(Duration::from_secs(1))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enable_interrupts(
        &self,
        kind: InterruptKind,
        first: u32,
        events: &[Option<BorrowedFd<'_>>],
    ) -> Result<(), InterruptError> {
        let call = self.call(kind)?;
        let mut enabled = self.enabled();
        let device = self.address();
        let wanted = call.enable(*enabled, first, events.len())?;
        let fds: Vec<i32> = events.iter().map(|event| event.map_or(-1, |event| event.as_raw_fd())).collect();
        let flags = uapi::VFIO_IRQ_SET_DATA_EVENTFD | uapi::VFIO_IRQ_SET_ACTION_TRIGGER;
        // `within` has seen that the length fits.
        let answer = interrupts::set(self.descriptor(), flags, kind.index(), first, fds.len() as u32, &fds);
        match answer.map_err(|error| self.interrupts_refused(kind, "enabling", error))? {
            0 => {}
            available => {
                return Err(InterruptError::Fewer { device, kind, wanted, available: available.cast_unsigned() });
            }
        }
        if kind.is_of_device() {
            enabled.0 = Some((kind, wanted));
        }
        Ok(())
    }

    /// Masks interrupts that are enabled, so that they wait.
    ///
    /// # Errors
    /// [`InterruptError::NotMaskable`] for all but INTx; [`NotEnabled`](InterruptError::NotEnabled) and the rest.
    pub fn mask_interrupts(&self, kind: InterruptKind, first: u32, count: u32) -> Result<(), InterruptError> {
        self.masking(kind, first, count, uapi::VFIO_IRQ_SET_ACTION_MASK, "masking")
    }

    /// Lets them come again; one that waits comes at once.
    ///
    /// # Errors
    /// As [`mask_interrupts`](Self::mask_interrupts).
    pub fn unmask_interrupts(&self, kind: InterruptKind, first: u32, count: u32) -> Result<(), InterruptError> {
        self.masking(kind, first, count, uapi::VFIO_IRQ_SET_ACTION_UNMASK, "unmasking")
    }

    fn masking(
        &self,
        kind: InterruptKind,
        first: u32,
        count: u32,
        action: u32,
        doing: &'static str,
    ) -> Result<(), InterruptError> {
        self.call(kind)?.mask(*self.enabled(), first, count as usize)?;
        let flags = uapi::VFIO_IRQ_SET_DATA_NONE | action;
        let answer = interrupts::set(self.descriptor(), flags, kind.index(), first, count, &[]);
        answer.map(drop).map_err(|error| self.interrupts_refused(kind, doing, error))
    }

    /// Has an eventfd unmask an interrupt whenever it is signalled, as KVM does at a guest's end of interrupt.
    ///
    /// # Errors
    /// As [`mask_interrupts`](Self::mask_interrupts).
    pub fn unmask_interrupt_on(&self, kind: InterruptKind, event: BorrowedFd<'_>) -> Result<(), InterruptError> {
        self.call(kind)?.mask(*self.enabled(), 0, 1)?;
        let flags = uapi::VFIO_IRQ_SET_DATA_EVENTFD | uapi::VFIO_IRQ_SET_ACTION_UNMASK;
        let answer = interrupts::set(self.descriptor(), flags, kind.index(), 0, 1, &[event.as_raw_fd()]);
        answer.map(drop).map_err(|error| self.interrupts_refused(kind, "unmasking on an event", error))
    }

    /// Signals eventfds as if the device had sent these interrupts.
    ///
    /// # Errors
    /// [`InterruptError::NotEnabled`] and [`Outside`](InterruptError::Outside) before the kernel is asked.
    pub fn trigger_interrupts(&self, kind: InterruptKind, first: u32, count: u32) -> Result<(), InterruptError> {
        self.call(kind)?.touch(*self.enabled(), first, count as usize)?;
        let flags = uapi::VFIO_IRQ_SET_DATA_NONE | uapi::VFIO_IRQ_SET_ACTION_TRIGGER;
        let answer = interrupts::set(self.descriptor(), flags, kind.index(), first, count, &[]);
        answer.map(drop).map_err(|error| self.interrupts_refused(kind, "triggering", error))
    }

    /// Switches a kind off; none arrives any more, and another kind may be enabled.
    ///
    /// # Errors
    /// [`InterruptError::NotEnabled`] where it is off; [`Kernel`](InterruptError::Kernel).
    pub fn disable_interrupts(&self, kind: InterruptKind) -> Result<(), InterruptError> {
        let call = self.call(kind)?;
        let mut enabled = self.enabled();
        call.touch(*enabled, 0, 1)?;
        let (flags, count, events): (u32, u32, &[i32]) = if kind.is_of_device() {
            (uapi::VFIO_IRQ_SET_DATA_NONE, 0, &[])
        } else {
            (uapi::VFIO_IRQ_SET_DATA_EVENTFD, 1, &[-1])
        };
        let flags = flags | uapi::VFIO_IRQ_SET_ACTION_TRIGGER;
        let answer = interrupts::set(self.descriptor(), flags, kind.index(), 0, count, events);
        answer.map_err(|error| self.interrupts_refused(kind, "disabling", error))?;
        if kind.is_of_device() {
            enabled.0 = None;
        }
        Ok(())
    }

    fn call(&self, kind: InterruptKind) -> Result<Call, InterruptError> {
        Ok(Call { device: self.address(), kind, info: self.interrupts(kind)? })
    }

    fn interrupts_refused(&self, kind: InterruptKind, doing: &'static str, error: rustix::io::Errno) -> InterruptError {
        InterruptError::Kernel { device: self.address(), kind, doing, errno: errno(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: InterruptKind, count: u32, grows: bool) -> Call {
        let maskable = kind == InterruptKind::Intx;
        let info = InterruptInfo { count, maskable, masks_itself: maskable, grows };
        Call { device: "0000:05:00.0".parse().unwrap(), kind, info }
    }

    const OFF: Enabled = Enabled(None);

    #[test]
    fn vectors_that_are_not_there_are_refused_before_the_kernel_is_asked() {
        let msi = call(InterruptKind::Msi, 4, false);
        assert_eq!(msi.enable(OFF, 0, 4), Ok(4));
        assert_eq!(msi.enable(OFF, 3, 1), Ok(4));
        assert!(matches!(msi.enable(OFF, 0, 0), Err(InterruptError::Empty { .. })));
        for (first, count) in [(4, 1), (0, 5), (3, 2), (u32::MAX, 2), (1, usize::MAX)] {
            let error = msi.enable(OFF, first, count).unwrap_err();
            assert!(matches!(error, InterruptError::Outside { has: 4, .. }), "{error}");
        }
        let error = call(InterruptKind::MsiX, 0, true).enable(OFF, 0, 1).unwrap_err();
        assert_eq!(error.to_string(), "0000:05:00.0 has no MSI-X; use another kind");
    }

    #[test]
    fn one_kind_is_on_at_a_time() {
        let on = Enabled(Some((InterruptKind::Msi, 1)));
        let error = call(InterruptKind::MsiX, 8, true).enable(on, 0, 1).unwrap_err();
        assert_eq!(error.to_string(), "MSI-X of 0000:05:00.0 cannot be on beside MSI; disable MSI first");
        // Notices of the kernel are none of the device's, and stand beside any of its kinds.
        assert_eq!(call(InterruptKind::Release, 1, false).enable(on, 0, 1), Ok(1));
        let error = call(InterruptKind::Intx, 1, false).touch(on, 0, 1).unwrap_err();
        assert!(matches!(error, InterruptError::NotEnabled { .. }), "{error}");
    }

    #[test]
    fn what_is_on_is_enlarged_only_where_the_kernel_does_so() {
        let on = |kind| Enabled(Some((kind, 2)));
        let error = call(InterruptKind::Msi, 8, false).enable(on(InterruptKind::Msi), 2, 1).unwrap_err();
        assert!(matches!(error, InterruptError::CannotGrow { enabled: 2, wanted: 3, .. }), "{error}");
        assert_eq!(call(InterruptKind::Msi, 8, false).enable(on(InterruptKind::Msi), 1, 1), Ok(2));
        assert_eq!(call(InterruptKind::MsiX, 8, true).enable(on(InterruptKind::MsiX), 4, 1), Ok(5));
    }

    #[test]
    fn only_what_is_on_is_masked_and_triggered() {
        let on = Enabled(Some((InterruptKind::Msi, 2)));
        let msi = call(InterruptKind::Msi, 8, false);
        assert_eq!(msi.touch(on, 1, 1), Ok(()));
        assert!(matches!(msi.touch(on, 2, 1), Err(InterruptError::Outside { has: 2, .. })));
        assert!(matches!(msi.mask(on, 0, 1), Err(InterruptError::NotMaskable { .. })));
        let intx = call(InterruptKind::Intx, 1, false);
        assert!(matches!(intx.mask(OFF, 0, 1), Err(InterruptError::NotEnabled { .. })));
        assert_eq!(intx.mask(Enabled(Some((InterruptKind::Intx, 1))), 0, 1), Ok(()));
    }
}
