//! Why a processor left its guest.

use super::missed::MissedAccess;
use super::slot::SlotId;
use peerdma::addr::GuestPhys;
use peerdma::dma::Errno;

/// Why a processor left its guest, where the guest can go on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// It wrote to a port.
    Out {
        /// The port.
        port: u16,
        /// What it wrote, little-endian; several values of a string instruction one after another.
        bytes: Vec<u8>,
    },
    /// It reads a port: [`answer`](super::Vcpu::answer) with as many bytes before it runs again.
    In {
        /// The port.
        port: u16,
        /// How many bytes.
        len: usize,
    },
    /// It wrote where it has no memory, or to memory for reading.
    Store {
        /// Where.
        at: GuestPhys,
        /// What.
        bytes: Vec<u8>,
    },
    /// It reads where it has no memory: [`answer`](super::Vcpu::answer) before it runs again.
    Load {
        /// Where.
        at: GuestPhys,
        /// How many bytes.
        len: usize,
    },
    /// It waits for an interrupt.
    Halted,
    /// It has shut itself down, as after a triple fault.
    ShutDown,
    /// A signal came, or it was [stopped](super::Vcpu::stop_next).
    Interrupted,
    /// It touched memory that was taken away. The same instruction is tried again when it runs, and goes on if the memory is there.
    Revoked {
        /// Where, if the kernel says so; on x86 it mostly does not.
        gpa: Option<GuestPhys>,
        /// The slot if the kernel says where, or else those that it can be: [`Vm::suspects`](super::Vm::suspects).
        slots: Vec<SlotId>,
    },
    /// It touched memory that was taken away, by an instruction that the kernel carries out itself. It is not tried again:
    /// [`BufferSlot::finish`](super::BufferSlot::finish) makes the access when the memory is back. Without that a store is lost.
    ///
    /// KVM emulates what its processor cannot run (code without paging on some), and accesses that it cannot give to the
    /// processor; where one finds nothing it leaves as one to a hole does (Linux 7.2 `emulator_read_write_onepage`).
    Missed {
        /// The slot that it was to.
        slot: SlotId,
        /// What it did.
        access: MissedAccess,
    },
    /// Something else, by KVM's number (`KVM_EXIT_*`).
    Other {
        /// The number.
        reason: u32,
    },
}

/// Why a processor does not run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It touched memory that nobody is known to have taken away.
    #[error(
        "the guest touched memory that this process does not have{}, and no slot of this library's is out of reach; look for a slot that somebody else made and whose memory is unmapped",
        .gpa.map(|gpa| format!(" (at {gpa})")).unwrap_or_default()
    )]
    Fault {
        /// Where, if the kernel says so.
        gpa: Option<GuestPhys>,
    },
    /// The processor refused the guest's state.
    #[error(
        "the processor refused to enter the guest (hardware reason {hardware:#x}); its registers contradict each other"
    )]
    NotEntered {
        /// The processor's own reason.
        hardware: u64,
    },
    /// KVM gave up.
    #[error(
        "KVM gave up with internal error {suberror} (1 is an instruction that it cannot take apart); the guest cannot go on"
    )]
    Internal {
        /// Which.
        suberror: u32,
    },
    /// An answer that was due was not given.
    #[error("the guest waits for {len} bytes that it reads; answer before it runs again")]
    Unanswered {
        /// How many.
        len: usize,
    },
    /// The kernel refused for a reason of its own.
    #[error("{call} refused with {errno}")]
    Kernel {
        /// Which call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
    /// What the kernel left in the processor's page cannot be.
    #[error("KVM describes an exit that cannot be ({what})")]
    Damaged {
        /// What of it.
        what: &'static str,
    },
}

/// Why an answer was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{given} bytes are no answer to a guest that waits for {due}")]
pub struct AnswerError {
    /// How many bytes it waits for; none if it does not wait.
    pub due: usize,
    /// How many were given.
    pub given: usize,
}
