//! What an importer must be able to be told.

use super::buffer::Inner;
use crate::buffer::life::{AttachmentId, Disturbance, Event, Generation, NoticeId};
use crate::buffer::pins::TenantId;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::fmt;

/// Somebody who maps a buffer and lets go when told to.
///
/// Calls come without any lock held, one at a time for a buffer and in the order in which things
/// happened, from whichever thread made them happen; so they must not wait. Whoever has work to do
/// before it can let go keeps the [`Receipt`], does it elsewhere, and unmaps when it is done.
///
/// Calling back into the buffer from here is fine.
pub trait Importer: Send + Sync {
    /// Memory is about to be taken away for `cause`: begin nothing new, and unmap when what runs has ended.
    ///
    /// `receipt` says that the importer knows; dropping it says so too. Fences of what still runs must be
    /// in the buffer's reservation by then, since no later one is waited for.
    fn let_go(&self, cause: Disturbance, receipt: Receipt);

    /// Memory is within reach again; what was mapped before is not.
    fn may_map(&self, generation: Generation, receipt: Receipt);

    /// Memory is gone for good.
    fn gone(&self);

    /// Somebody waits; look whether you can let go.
    ///
    /// For importers that nobody tells when their last access has ended. Called now and then.
    fn look(&self) {}
}

/// An importer's word that it has taken note of one notice; given when dropped.
#[must_use = "dropping it says that the importer has taken note"]
pub struct Receipt {
    buffer: Weak<Inner>,
    who: AttachmentId,
    id: NoticeId,
}

impl Receipt {
    pub(super) fn new(buffer: &Arc<Inner>, who: AttachmentId, id: NoticeId) -> Self {
        Self { buffer: Arc::downgrade(buffer), who, id }
    }

    /// Says that the importer has taken note.
    pub fn noted(self) {}

    /// Which notice it is for, as it goes to another process.
    pub fn id(&self) -> NoticeId {
        self.id
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.upgrade() {
            // An answer that comes late, or after the importer has gone, says nothing.
            let _ = buffer.step(Event::Noted(self.who, self.id));
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receipt of notice {} to {}", self.id.number(), self.who)
    }
}

/// Who stands behind an attachment, for those who wait for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// What it is called: a driver's name, a queue's.
    pub name: String,
    /// Its process, where it is not this one.
    pub process: Option<Process>,
    /// Who pays for its pins, where the buffer's exporter counts them; `None` for the exporter's own tenant.
    pub tenant: Option<TenantId>,
}

impl Holder {
    /// Somebody in this process.
    pub fn here(name: &str) -> Self {
        Self { name: name.into(), process: None, tenant: None }
    }

    /// Its pins count against this tenant.
    #[must_use]
    pub fn of(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

impl fmt::Display for Holder {
    /// Writes `nic0`, or `nic0 in process 4711 (server)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.process {
            Some(process) => write!(f, " in process {process}"),
            None => Ok(()),
        }
    }
}

/// Another process, as it was when it attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command's name, where that is known.
    pub command: Option<String>,
}

impl fmt::Display for Process {
    /// Writes `4711 (server)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)?;
        match &self.command {
            Some(command) => write!(f, " ({command})"),
            None => Ok(()),
        }
    }
}
