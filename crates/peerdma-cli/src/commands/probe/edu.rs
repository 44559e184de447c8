//! edu, through VFIO: both directions by one verification.

use super::trial::{Absent, Stage, Trial};
use super::{Question, not_asked, observing};
use crate::commands::hardware::{NoSession, Session, Wanted};
use crate::progress::Steps;
use peerdma::route::Permission;
use peerdma_linux::engine::Kind;
use peerdma_linux::interrupt::Interrupts;

const ENGINE: &str = Kind::Edu.word();

pub(super) fn probe(question: &Question<'_>, trial: &mut Trial) {
    let Some(range) = question.range else {
        trial.absent.push(Absent { engine: ENGINE, needs: vec![question.memory_unnamed()] });
        return;
    };
    let pair = question.pair;
    let rows = |granted: &Stage| question.unmoved(ENGINE, granted);
    // One verification goes both ways, so both have to be open.
    let refused = [pair.write, pair.read].contains(&Permission::Refused);
    if !question.force && (refused || question.by_linux != Permission::Permitted) {
        trial.rows.extend(rows(&not_asked(question.by_linux)));
        return;
    }
    // From here on something may have to be put back; a signal is noticed between two steps.
    let interrupts = Interrupts::watch();
    let mut session = match Session::open(question.via, Wanted { initiator: question.from, target: question.to, range })
    {
        Ok(session) => session,
        Err(NoSession::NotReady(failure)) => {
            trial.absent.push(Absent { engine: ENGINE, needs: vec![failure.words()] });
            return;
        }
        Err(NoSession::NotGranted(failure)) => {
            trial.rows.extend(rows(&Stage::No(failure.words())));
            return;
        }
    };
    let granted = session.granted().words();
    let verified = session.verify(question.seed, &mut observing(interrupts.as_ref(), &mut Steps::new()));
    let closed = session.close();
    question.verified(ENGINE, granted, verified, trial);
    if let Err(failure) = closed {
        trial.failures.push(failure.words());
    }
}
