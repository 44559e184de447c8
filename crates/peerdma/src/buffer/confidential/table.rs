//! What becomes of each event in each state.

use super::super::life::Disturbance;
use super::event::{Action, Barred, Event, Stage};
use super::state::State;

/// What becomes of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The device goes to this stage, and this is to be done.
    Goes(Stage, &'static [Action]),
    /// The device stays in its stage, and this is to be done.
    Stays(&'static [Action]),
    /// Nothing changes.
    Refused(Barred),
}

/// One row: whatever state it names answers the event so.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The event.
    pub event: Event,
    /// The stages.
    pub stages: &'static [Stage],
    /// Whether the guest has started; `None` where that does not matter.
    pub started: Option<bool>,
    /// Whether its IOMMU is in front of the device; `None` where that does not matter.
    pub viommu: Option<bool>,
    /// The answer.
    pub answer: Answer,
}

impl Row {
    /// Whether this row is about the state and the event.
    pub fn holds(&self, state: &State, event: Event) -> bool {
        self.event == event
            && self.stages.contains(&state.stage())
            && self.started.is_none_or(|started| started == state.is_started())
            && self.viommu.is_none_or(|viommu| viommu == state.has_viommu())
    }
}

const fn row(
    event: Event,
    stages: &'static [Stage],
    started: Option<bool>,
    viommu: Option<bool>,
    answer: Answer,
) -> Row {
    Row { event, stages, started, viommu, answer }
}

use Answer::{Goes, Refused, Stays};
use Stage::{Closed, Failed, Locked, Locking, Prepared, Running, Shared};

const CLOSED: &[Stage] = &[Closed];
/// Memory is whoever's it is exported to.
const OPEN: &[Stage] = &[Shared, Prepared];
/// Memory is out of reach of everybody outside the guest.
const SHUT: &[Stage] = &[Locked, Running, Failed];
const BOUND: &[Stage] = &[Prepared, Locking, Locked, Running, Failed];
const LIVE: &[Stage] = &[Shared, Prepared, Locking, Locked, Running, Failed];

const NOTHING: &[Action] = &[];
const PREPARE: &[Action] = &[Action::Connect, Action::Bind];
const REVOKE: &[Action] = &[Action::Revoke(Disturbance::Lock)];
const RETURN: &[Action] = &[Action::Return(Disturbance::Lock)];
const STOP: &[Action] = &[Action::StopInterface, Action::Return(Disturbance::Lock)];
const STOP_RUNNING: &[Action] = &[Action::UnmapPrivate, Action::StopInterface, Action::Return(Disturbance::Lock)];

/// The table. Rows do not overlap, so their order means nothing.
///
/// An early binding locks before the guest starts, a late one when the guest asks for it; both are the
/// same steps in another order. The memory is returned last, when nothing of the guest's is left to be seen.
/// Steps after PCIe 6.0 §11.2 and §11.3; Linux 7.2 has `pci_tsm_bind`, and nobody that calls it.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(Event::Prepare,      &[Shared],                   None,        None,        Goes(Prepared, PREPARE)),
    row(Event::Prepare,      BOUND,                       None,        None,        Refused(Barred::DoneAlready)),
    row(Event::Prepare,      CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::AttachViommu, OPEN,                        Some(false), Some(false), Stays(&[Action::PutViommu])),
    row(Event::AttachViommu, OPEN,                        Some(true),  Some(false), Refused(Barred::ViommuAfterStart)),
    row(Event::AttachViommu, OPEN,                        None,        Some(true),  Refused(Barred::DoneAlready)),
    // Nothing is locked without it.
    row(Event::AttachViommu, &[Locking, Locked, Running, Failed], None, None,       Refused(Barred::DoneAlready)),
    row(Event::AttachViommu, CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::StartGuest,   LIVE,                        Some(false), None,        Stays(NOTHING)),
    row(Event::StartGuest,   LIVE,                        Some(true),  None,        Refused(Barred::DoneAlready)),
    row(Event::StartGuest,   CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::Lock,         &[Shared],                   None,        None,        Refused(Barred::NotPrepared)),
    row(Event::Lock,         &[Prepared],                 None,        Some(false), Refused(Barred::NoViommu)),
    row(Event::Lock,         &[Prepared],                 None,        Some(true),  Goes(Locking, REVOKE)),
    row(Event::Lock,         &[Locking, Locked, Running], None,        None,        Refused(Barred::DoneAlready)),
    row(Event::Lock,         &[Failed],                   None,        None,        Refused(Barred::InError)),
    row(Event::Lock,         CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::Released,     &[Locking],                  None,        None,        Goes(Locked, &[Action::LockInterface])),
    row(Event::Released,     &[Shared, Prepared, Locked, Running, Failed], None, None, Refused(Barred::NobodyWaits)),
    row(Event::Released,     CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::Run,          OPEN,                        None,        None,        Refused(Barred::NotLocked)),
    row(Event::Run,          &[Locking],                  None,        None,        Refused(Barred::NotReleased)),
    row(Event::Run,          &[Locked],                   Some(false), None,        Refused(Barred::GuestNotStarted)),
    row(Event::Run,          &[Locked],                   Some(true),  None,        Goes(Running, &[Action::StartInterface, Action::MapPrivate])),
    row(Event::Run,          &[Running],                  None,        None,        Refused(Barred::DoneAlready)),
    row(Event::Run,          &[Failed],                   None,        None,        Refused(Barred::InError)),
    row(Event::Run,          CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::Unlock,       OPEN,                        None,        None,        Refused(Barred::NotLocked)),
    row(Event::Unlock,       &[Locking],                  None,        None,        Goes(Prepared, RETURN)),
    row(Event::Unlock,       &[Locked, Failed],           None,        None,        Goes(Prepared, STOP)),
    row(Event::Unlock,       &[Running],                  None,        None,        Goes(Prepared, STOP_RUNNING)),
    row(Event::Unlock,       CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::Fail,         &[Shared, Prepared, Locking], None,       None,        Refused(Barred::NotLocked)),
    row(Event::Fail,         &[Locked],                   None,        None,        Goes(Failed, NOTHING)),
    row(Event::Fail,         &[Running],                  None,        None,        Goes(Failed, &[Action::UnmapPrivate])),
    row(Event::Fail,         &[Failed],                   None,        None,        Refused(Barred::DoneAlready)),
    row(Event::Fail,         CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::MapCpu,       OPEN,                        None,        None,        Stays(NOTHING)),
    row(Event::MapCpu,       &[Locking],                  None,        None,        Refused(Barred::BeingLocked)),
    row(Event::MapCpu,       SHUT,                        None,        None,        Refused(Barred::Private)),
    row(Event::MapCpu,       CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::AttachWithoutT, OPEN,                      None,        None,        Stays(NOTHING)),
    row(Event::AttachWithoutT, &[Locking],                None,        None,        Refused(Barred::BeingLocked)),
    row(Event::AttachWithoutT, SHUT,                      None,        None,        Refused(Barred::Private)),
    row(Event::AttachWithoutT, CLOSED,                    None,        None,        Refused(Barred::Closed)),

    row(Event::AttachWithT,  &[Running],                  None,        None,        Stays(NOTHING)),
    row(Event::AttachWithT,  &[Failed],                   None,        None,        Refused(Barred::InError)),
    row(Event::AttachWithT,  &[Shared, Prepared, Locking, Locked], None, None,      Refused(Barred::NotRunning)),
    row(Event::AttachWithT,  CLOSED,                      None,        None,        Refused(Barred::Closed)),

    row(Event::Close,        &[Shared],                   None,        Some(false), Goes(Closed, NOTHING)),
    row(Event::Close,        &[Shared],                   None,        Some(true),  Goes(Closed, &[Action::TakeViommu])),
    row(Event::Close,        &[Prepared],                 None,        Some(false), Goes(Closed, &[
        Action::Unbind, Action::Disconnect, Action::Reset,
    ])),
    row(Event::Close,        &[Prepared],                 None,        Some(true),  Goes(Closed, &[
        Action::Unbind, Action::TakeViommu, Action::Disconnect, Action::Reset,
    ])),
    row(Event::Close,        &[Locking],                  None,        None,        Goes(Closed, &[
        Action::Unbind, Action::TakeViommu, Action::Disconnect, Action::Reset, Action::Return(Disturbance::Lock),
    ])),
    row(Event::Close,        &[Locked, Failed],           None,        None,        Goes(Closed, &[
        Action::StopInterface, Action::Unbind, Action::TakeViommu, Action::Disconnect, Action::Reset,
        Action::Return(Disturbance::Lock),
    ])),
    row(Event::Close,        &[Running],                  None,        None,        Goes(Closed, &[
        Action::UnmapPrivate, Action::StopInterface, Action::Unbind, Action::TakeViommu, Action::Disconnect,
        Action::Reset, Action::Return(Disturbance::Lock),
    ])),
    row(Event::Close,        CLOSED,                      None,        None,        Refused(Barred::Closed)),
];
