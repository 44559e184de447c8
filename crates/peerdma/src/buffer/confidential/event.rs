//! What happens to a private register, and what is to be done about it.

use super::super::life::Disturbance;
use core::fmt;

macro_rules! words {
    ($(#[$doc:meta])* $set:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum $set {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $set {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in text and JSON.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What is asked for, or has happened.
    Event {
        /// Somebody wants the device prepared for a guest.
        Prepare = "prepare";
        /// The guest's IOMMU is put in front of the device.
        AttachViommu = "attach-viommu";
        /// The guest's first instruction is about to run.
        StartGuest = "start-guest";
        /// The interface is to be locked for the guest.
        Lock = "lock";
        /// Everybody outside the guest has let go of the memory.
        Released = "released";
        /// The guest accepts the interface and starts it.
        Run = "run";
        /// The interface is to be unlocked, or the wait for its lock is given up.
        Unlock = "unlock";
        /// The device reports ERROR: something changed under the lock.
        Fail = "fail";
        /// A process wants to map the memory for its CPU.
        MapCpu = "map-cpu";
        /// A device whose requests carry no T bit wants to attach.
        AttachWithoutT = "attach-without-t";
        /// A device of the same guest, in RUN, wants to attach.
        AttachWithT = "attach-with-t";
        /// The descriptor that stands for the binding is closed.
        Close = "close";
    }
}

words! {
    /// How far the device has come on its way into a guest.
    Stage {
        /// Like any device: its memory is whoever's it is exported to.
        Shared = "shared";
        /// Session and protected link stand, and the interface is bound to the guest (CONFIG_UNLOCKED). Its
        /// memory is still shared.
        Prepared = "prepared";
        /// Everybody outside the guest is letting go; nobody new comes in.
        Locking = "locking";
        /// CONFIG_LOCKED: measured, and out of everybody's reach.
        Locked = "locked";
        /// RUN: the guest's alone.
        Running = "running";
        /// ERROR: answers nobody.
        Failed = "failed";
        /// Given back. The next guest begins anew.
        Closed = "closed";
    }
}

/// What is to be done, in the order in which it stands in a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Action {
    /// Set up a session with the device and a protected link to it (Linux 7.2 `pci_tsm_connect`).
    Connect,
    /// Bind the interface to the guest (`pci_tsm_bind`).
    Bind,
    /// Put the guest's IOMMU in front of the device.
    PutViommu,
    /// Take the memory from all that have mapped it, and wait until they have let go; then send
    /// [`Event::Released`]. The buffer's life has this disturbance begin.
    Revoke(Disturbance),
    /// Lock the interface (TDISP LOCK_INTERFACE_REQUEST).
    LockInterface,
    /// Start the interface (TDISP START_INTERFACE_REQUEST).
    StartInterface,
    /// Put the memory's frames into the guest's tables, as private.
    MapPrivate,
    /// Take the memory's frames out of the guest's tables.
    UnmapPrivate,
    /// Stop the interface (TDISP STOP_INTERFACE_REQUEST).
    StopInterface,
    /// Unbind the interface from the guest (`pci_tsm_unbind`).
    Unbind,
    /// Take the guest's IOMMU away from the device.
    TakeViommu,
    /// End session and link (`pci_tsm_disconnect`).
    Disconnect,
    /// Reset the function, so that nothing of the guest's is left in it.
    Reset,
    /// The memory is shared again: the buffer's life has this disturbance end.
    Return(Disturbance),
}

impl Action {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Bind => "bind",
            Self::PutViommu => "put-viommu",
            Self::Revoke(_) => "revoke",
            Self::LockInterface => "lock-interface",
            Self::StartInterface => "start-interface",
            Self::MapPrivate => "map-private",
            Self::UnmapPrivate => "unmap-private",
            Self::StopInterface => "stop-interface",
            Self::Unbind => "unbind",
            Self::TakeViommu => "take-viommu",
            Self::Disconnect => "disconnect",
            Self::Reset => "reset",
            Self::Return(_) => "return",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

words! {
    /// Why an event is refused.
    Barred {
        /// The guest was measured with the IOMMU that it had when it started.
        ViommuAfterStart = "viommu_after_start";
        /// The step was done before.
        DoneAlready = "done_already";
        /// The device is not prepared for a guest.
        NotPrepared = "not_prepared";
        /// No IOMMU of the guest is in front of the device.
        NoViommu = "no_viommu";
        /// Nobody waits for a release.
        NobodyWaits = "nobody_waits";
        /// Importers have not let go yet.
        NotReleased = "not_released";
        /// The interface is not locked.
        NotLocked = "not_locked";
        /// The guest has not started.
        GuestNotStarted = "guest_not_started";
        /// The interface is in ERROR.
        InError = "in_error";
        /// The memory is being taken from everybody outside the guest.
        BeingLocked = "being_locked";
        /// The memory is the guest's alone.
        Private = "private";
        /// The guest has not started the interface.
        NotRunning = "not_running";
        /// It has been given back.
        Closed = "closed";
    }
}

impl Barred {
    /// What it says and what to do, in one sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ViommuAfterStart => {
                "the guest was measured with what it had when it started; attach its IOMMU before that"
            }
            Self::DoneAlready => "this was done before; go on with the next step",
            Self::NotPrepared => "the interface is bound to no guest; prepare it first",
            Self::NoViommu => "no IOMMU of the guest is in front of the device; attach it before the guest starts",
            Self::NobodyWaits => "nobody waits for importers to let go; lock first",
            Self::NotReleased => "importers outside the guest have not let go; wait, or give the lock up",
            Self::NotLocked => "the interface is not locked; lock it first",
            Self::GuestNotStarted => "only the guest starts its interface; start the guest first",
            Self::InError => "the interface is in ERROR; unlock it, and lock it again",
            Self::BeingLocked => {
                "the memory is being taken from everybody outside the guest; come back when it is unlocked"
            }
            Self::Private => "the memory is the guest's alone; come back when it is unlocked",
            Self::NotRunning => "the guest has not started the interface; attach once it runs",
            Self::Closed => "it was given back; open it for the next guest",
        }
    }
}
