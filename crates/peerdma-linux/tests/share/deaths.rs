//! Processes that end, or are stopped, at the worst moment.

use super::child::Other;
use super::{Folder, attached, cooperative, exporter, frames, mapped, soon, until};
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Disturbance, Phase};
use peerdma_linux::share::{Ended, Happened, Importer, Standing, WaitError};
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[test]
fn an_importer_that_is_killed_has_let_go() {
    let folder = Folder::new("killed");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut other = Other::start("obedient", &folder.socket());
    let who = until(&mut exporter, attached);
    until(&mut exporter, mapped);
    other.signal(Signal::STOP);
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    other.kill();
    let reset = exporter.wait(reset, soon()).unwrap();
    assert_eq!(exporter.buffer().phase(), Phase::Revoked);
    let left = until(&mut exporter, |happened| match happened {
        Happened::HungUp { who, mappings, .. } => Some((*who, *mappings)),
        _ => None,
    });
    assert_eq!(left, (Some(who), 1), "it had not said that it unmapped");
    reset.done();
    assert_eq!((exporter.buffer().phase(), exporter.importers().count()), (Phase::Live, 0));
}

#[test]
fn the_wait_for_a_stopped_importer_ends_in_time_and_names_it_and_goes_on_when_it_does() {
    let folder = Folder::new("stopped");
    let mut exporter = exporter(&folder.socket(), frames());
    let other = Other::start("obedient", &folder.socket());
    until(&mut exporter, mapped);
    other.signal(Signal::STOP);
    while exporter.importers().next().unwrap().standing != Standing::Stopped {
        std::thread::yield_now();
    }
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    let WaitError::Late(late) = exporter.wait(reset, Instant::now() + Duration::from_millis(200)).unwrap_err() else {
        unreachable!("the importer is stopped")
    };
    let text = late.to_string();
    let named = format!("obedient in process {} (", other.pid());
    assert!(text.starts_with("reset must not happen yet: frames: ") && text.contains(&named), "{text}");
    assert!(text.contains("has not answered the notice to let go") && text.contains("has 1 mapping"), "{text}");
    other.signal(Signal::CONT);
    let reset = exporter.wait(late.disturbing, soon()).unwrap();
    assert_eq!(other.says(), "mapped");
    assert_eq!(other.says(), "let go");
    reset.done();
    until(&mut exporter, mapped);
    assert_eq!(other.says(), "mapped again");
}

#[test]
fn memory_of_an_exporter_that_was_killed_stays_readable_and_its_importers_are_told() {
    let folder = Folder::new("orphans");
    let mut other = Other::start("exporter", &folder.socket());
    assert_eq!(other.says(), "listening");
    let mut importer = Importer::attach(&folder.socket(), cooperative("orphan"), soon()).unwrap();
    let kept = importer.map(soon()).unwrap();
    other.kill();
    assert!(matches!(importer.next(soon()), Err(Ended::HungUp)));
    let mut bytes = [0; 5];
    kept.read(Bytes::ZERO, &mut bytes).unwrap();
    assert_eq!(&bytes, b"first");
    // Its path is still there; the next exporter takes it over.
    assert!(folder.socket().exists());
    drop(exporter(&folder.socket(), frames()));
    assert!(!folder.socket().exists());
}

#[test]
fn an_attachment_lives_until_the_last_copy_of_its_control_descriptor_is_closed() {
    let folder = Folder::new("passed-on");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut other = Other::start("passes-on", &folder.socket());
    let who = until(&mut exporter, attached);
    until(&mut exporter, mapped);
    // Both write to one pipe, and neither waits for the other.
    let said = [other.says(), other.says()];
    assert!(said.iter().any(|line| line == "holding"), "{said:?}");
    let third: u32 = said.iter().find_map(|line| line.strip_prefix("third ")).unwrap().parse().unwrap();
    other.kill();
    let guest = exporter.importers().next().unwrap();
    assert_eq!((guest.who, guest.pid, guest.standing), (who, other.pid(), Standing::Ended));
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    let reset = exporter.wait(reset, soon()).unwrap();
    let spoke = until(&mut exporter, |happened| match happened {
        Happened::PassedOn { who, pid } => Some((*who, *pid)),
        _ => None,
    });
    assert_eq!(spoke, (who, third), "the kernel names the process that spoke");
    let end = until(&mut exporter, |happened| match happened {
        Happened::HungUp { who, mappings, .. } => Some((*who, *mappings)),
        _ => None,
    });
    assert_eq!(end, (Some(who), 0));
    reset.done();
}
