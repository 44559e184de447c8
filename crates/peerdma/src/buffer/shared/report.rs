//! A buffer as somebody sees it who only looks.

use super::held::Held;
use super::{Attendance, Buffer};
use crate::access::Prot;
use crate::addr::Bytes;
use crate::buffer::fence::{FenceName, Usage};
use crate::buffer::life::{Disturbance, Generation, Phase};
use crate::buffer::terms::Place;
use alloc::string::String;
use alloc::vec::Vec;

/// A buffer at one moment: where it is, who has it, and who is waited for.
///
/// All of one moment but for [`fences`](Self::fences), which are read before the rest: one that stands here
/// may have retired since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// How long it is.
    pub len: Bytes,
    /// Where it lies.
    pub place: Place,
    /// Where in its life it is.
    pub phase: Phase,
    /// What disturbs it, or is about to.
    pub causes: Vec<Disturbance>,
    /// Which mappings are good.
    pub generation: Generation,
    /// What the exporter permits.
    pub permitted: Prot,
    /// Who has attached.
    pub attached: Vec<Attendance>,
    /// What devices are doing with it.
    pub fences: Vec<(FenceName, Usage)>,
    /// Whom the disturbances wait for; empty if for nobody.
    pub held: Vec<Held>,
}

impl Buffer {
    /// What the buffer is at, for those who look from outside.
    ///
    /// Blocks while somebody holds the reservation.
    pub fn report(&self) -> Report {
        let outstanding = |reservation: &crate::buffer::fence::Reservation| -> Vec<_> {
            reservation.outstanding().map(|(fence, usage)| (fence.name(), usage)).collect()
        };
        let fences = outstanding(&self.reservation().lock());
        self.0.with(|state| Report {
            name: self.name().into(),
            len: state.ranges.view().len(),
            place: state.offer.place(),
            phase: state.life.phase(),
            causes: state.life.causes().iter().collect(),
            generation: state.life.generation(),
            permitted: state.offer.permitted(),
            attached: state.attendance(),
            fences,
            held: state.held(self.name()),
        })
    }
}
