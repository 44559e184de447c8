//! The steps, each of them an event of the table.

use super::{Interface, PrivateBar, PrivateError, Taken, Undone};
use crate::buffer::confidential::{Action, Event};
use crate::buffer::life::Disturbance;
use alloc::vec::Vec;
use core::time::Duration;

impl<D: Interface> PrivateBar<D> {
    /// Connects the device and binds its interface to the guest.
    ///
    /// # Errors
    /// [`PrivateError`], as for all steps.
    pub fn prepare(&mut self) -> Result<(), PrivateError<D::Error>> {
        self.take(Event::Prepare)
    }

    /// Puts the guest's IOMMU in front of the device, which has to be there before the guest starts.
    ///
    /// # Errors
    /// [`PrivateError::Refused`] with [`ViommuAfterStart`](crate::buffer::confidential::Barred::ViommuAfterStart) after that.
    pub fn attach_viommu(&mut self) -> Result<(), PrivateError<D::Error>> {
        self.take(Event::AttachViommu)
    }

    /// The guest starts, and is measured with what it has.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub fn start_guest(&mut self) -> Result<(), PrivateError<D::Error>> {
        self.take(Event::StartGuest)
    }

    /// Takes the memory from everybody outside the guest, and locks the interface once they have let go.
    ///
    /// # Errors
    /// [`PrivateError::Late`]: they have been told, and the interface is not locked. Call it again to wait longer, or
    /// [`unlock`](Self::unlock) to give it up.
    pub fn lock(&mut self, patience: Duration) -> Result<(), PrivateError<D::Error>> {
        if self.taken.is_none() {
            let (next, _) = self.asked(Event::Lock)?;
            let announced = self.shared.disturb(Disturbance::Lock).map_err(PrivateError::Announce)?;
            self.taken = Some(Taken::Announced(announced));
            self.state = next;
            self.tell();
        }
        // Refused by name unless somebody waits for it.
        let (_, _) = self.asked(Event::Released)?;
        self.taken = match self.taken.take() {
            Some(Taken::Announced(announced)) => match announced.wait(patience) {
                Ok(released) => Some(Taken::Released(released)),
                Err(late) => {
                    let error = PrivateError::late(Event::Lock, &late);
                    self.taken = Some(Taken::Announced(late.disturbing));
                    return Err(error);
                }
            },
            other => other,
        };
        self.take(Event::Released)
    }

    /// The guest starts its interface.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub fn run(&mut self) -> Result<(), PrivateError<D::Error>> {
        self.take(Event::Run)
    }

    /// Something changed under the lock, and the interface is in ERROR. What the guest had exported of it is gone.
    ///
    /// # Errors
    /// [`PrivateError::Refused`] if it was not locked.
    pub fn fail(&mut self) -> Result<(), PrivateError<D::Error>> {
        self.asked(Event::Fail)?;
        // The hardware answers nobody any more, whoever holds on.
        if let Some(own) = self.own.take() {
            drop(own.disturb(Disturbance::Removal));
        }
        self.take(Event::Fail)
    }

    /// Stops the interface, and gives the memory back to those who had it before.
    ///
    /// # Errors
    /// [`PrivateError::Late`]: devices of the guest have not let go; they have been told, and the interface still runs.
    pub fn unlock(&mut self, patience: Duration) -> Result<(), PrivateError<D::Error>> {
        self.asked(Event::Unlock)?;
        self.end_own(Event::Unlock, patience)?;
        self.take(Event::Unlock)
    }

    /// Unbinds the interface, resets the function, and gives the memory back. For good: open it anew for the next guest.
    ///
    /// # Errors
    /// As [`unlock`](Self::unlock).
    pub fn close(&mut self, patience: Duration) -> Result<(), PrivateError<D::Error>> {
        self.asked(Event::Close)?;
        self.end_own(Event::Close, patience)?;
        self.take(Event::Close)
    }

    /// Ends the guest's own face, for good.
    fn end_own(&mut self, event: Event, patience: Duration) -> Result<(), PrivateError<D::Error>> {
        let Some(own) = &self.own else { return Ok(()) };
        // Refused only for what is gone, of which nobody holds anything.
        if let Ok(ending) = own.disturb(Disturbance::Close) {
            match ending.wait(patience) {
                Ok(ended) => ended.done(),
                Err(late) => return Err(PrivateError::late(event, &late)),
            }
        }
        self.own = None;
        Ok(())
    }

    /// Has everything done that an event asks for, and only then goes on to the next state.
    fn take(&mut self, event: Event) -> Result<(), PrivateError<D::Error>> {
        let (next, actions) = self.asked(event)?;
        let mut done = Vec::new();
        let mut returned = false;
        for action in actions {
            match action {
                Action::Revoke(_) => {}
                Action::Return(_) => returned = true,
                action => {
                    let undone = |source| PrivateError::Undone(Undone { event, action, done: done.clone(), source });
                    self.device.perform(action).map_err(undone)?;
                    done.push(action);
                }
            }
        }
        self.state = next;
        // Before anybody is told that it may be mapped: what it is decides who attaches.
        self.tell();
        if returned {
            let answers = done.contains(&Action::Reset).then(|| self.device.answers()).flatten();
            match (self.taken.take(), answers) {
                (Some(Taken::Released(released)), Some(answers)) => released.done_answering(answers),
                // What was only announced has not happened.
                (taken, _) => drop(taken),
            }
        }
        Ok(())
    }
}
