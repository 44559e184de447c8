//! Peers that break the protocol: each is cut off by name, and nobody else notices.

use super::child::{Other, send_signal};
use super::{Folder, attached, exporter, frames, mapped, raw, soon, until};
use peerdma::buffer::life::Disturbance;
use peerdma::buffer::wire::{Declare, Ending, Hello, Map, Message, Noted, RequestId, Violation};
use peerdma_linux::share::{AttachError, Exporter, Happened, Importer, WaitError};
use rustix::process::Signal;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

fn violation(happened: &Happened) -> Option<(Violation, u32)> {
    match happened {
        Happened::CutOff { violation, mappings, .. } => Some((violation.clone(), *mappings)),
        _ => None,
    }
}

/// Says something by hand on a new connection; what the exporter finds wrong with it, and what it answers.
fn offended(exporter: &mut Exporter, bytes: &[u8], descriptors: usize) -> (Violation, Option<Message>) {
    let socket = raw::connection(exporter.listener().path());
    let along = vec![socket.as_fd(); descriptors];
    raw::send(socket.as_fd(), bytes, &along).unwrap();
    let (violation, _) = until(exporter, violation);
    (violation, raw::receive(socket.as_fd()))
}

#[test]
fn what_is_no_message_is_answered_with_the_reason_and_hurts_nobody_else() {
    let folder = Folder::new("garbage");
    let mut exporter = exporter(&folder.socket(), frames());
    let good = Other::start("obedient", &folder.socket());
    until(&mut exporter, mapped);
    let hello = Message::Hello(Hello::new()).encode();
    let wrong: [(&[u8], usize, Ending); 7] = [
        (b"GET / HTTP/1.1\r\n", 0, Ending::Malformed),
        (&hello[..5], 0, Ending::Malformed),
        (&hello[..hello.len() - 1], 0, Ending::Malformed),
        (&[0; 5000], 0, Ending::Malformed),
        (&[0x42, 0, 0, 0, 8, 0, 0, 0], 0, Ending::Malformed),
        (&hello, 1, Ending::Descriptors),
        (&hello, 16, Ending::Descriptors),
    ];
    for (bytes, descriptors, ending) in wrong {
        let (violation, answer) = offended(&mut exporter, bytes, descriptors);
        assert_eq!(violation.ending(), ending, "{violation}");
        assert!(matches!(&answer, Some(Message::Goodbye(said)) if said.ending == ending), "{violation}: {answer:?}");
    }
    let early = Message::Map(Map { request: RequestId::new(1) }).encode();
    assert_eq!(offended(&mut exporter, &early, 0).0.ending(), Ending::OutOfTurn);
    let nothing = raw::connection(&folder.socket());
    raw::send(nothing.as_fd(), &[], &[]).unwrap();
    until(&mut exporter, |happened| matches!(happened, Happened::HungUp { who: None, .. }).then_some(()));
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    drop(exporter.wait(reset, soon()).unwrap());
    assert_eq!((good.says(), good.says()), ("mapped".to_string(), "let go".to_string()));
}

#[test]
fn an_importer_of_another_version_is_refused_with_both_ranges() {
    let folder = Folder::new("version");
    let mut exporter = exporter(&folder.socket(), frames());
    let other = Other::start("of-another-version", &folder.socket());
    let why = until(&mut exporter, |happened| match happened {
        Happened::Refused { rule, why, .. } if rule == "version" => Some(why.clone()),
        _ => None,
    });
    assert_eq!(why, "it speaks versions 7 to 9");
    let said = other.says();
    assert!(said.contains("versions 1 to 1 and the importer 7 to 9"), "{said}");
    assert_eq!(other.says(), "hung up");
}

/// Who was cut off still has what it has: nothing takes a mapping of a memfd away but the end of its process.
#[test]
fn a_flooder_is_cut_off_and_stays_in_the_way_until_its_process_has_ended() {
    let folder = Folder::new("flood");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut other = Other::start("flooder", &folder.socket());
    let who = until(&mut exporter, attached);
    let (what, mappings) = until(&mut exporter, violation);
    assert!(matches!(what, Violation::Flood { .. }) && mappings > 0, "{what}");
    assert_eq!(other.says(), "cut off");
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    let waited = exporter.wait(reset, Instant::now() + Duration::from_millis(50));
    let WaitError::Late(late) = waited.unwrap_err() else { unreachable!("it has mappings") };
    assert!(late.to_string().contains(&format!("in process {}", other.pid())), "{late}");
    other.kill();
    drop(exporter.wait(late.disturbing, soon()).unwrap());
    let ended = until(&mut exporter, |happened| match happened {
        Happened::Ended { who } => Some(*who),
        _ => None,
    });
    assert_eq!((ended, exporter.importers().count()), (who, 0));
}

/// The end of a process proves nothing while another holds its control descriptor: a fork has its mappings too.
#[test]
fn who_was_cut_off_stays_in_the_way_until_nothing_is_left_of_it() {
    let folder = Folder::new("heirs");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut other = Other::start("breaks-and-passes-on", &folder.socket());
    let who = until(&mut exporter, attached);
    assert!(matches!(until(&mut exporter, violation), (Violation::Malformed(_), 1)));
    let third: u32 = other.says().strip_prefix("third ").unwrap().parse().unwrap();
    exporter.serve(Instant::now()).unwrap();
    assert_eq!(other.says(), "told");
    other.kill();
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    let waited = exporter.wait(reset, Instant::now() + Duration::from_millis(100));
    let WaitError::Late(late) = waited.unwrap_err() else { unreachable!("a third process is left") };
    send_signal(third, Signal::KILL);
    drop(exporter.wait(late.disturbing, soon()).unwrap());
    let ended = until(&mut exporter, |happened| match happened {
        Happened::Ended { who } => Some(*who),
        _ => None,
    });
    assert_eq!((ended, exporter.importers().count()), (who, 0));
}

#[test]
fn an_author_may_vouch_for_who_was_cut_off() {
    let folder = Folder::new("vouch");
    let mut exporter = exporter(&folder.socket(), frames());
    let path = folder.socket();
    let peer = thread::spawn(move || {
        let control = raw::attach(&path);
        raw::send(control.as_fd(), &Message::Map(Map { request: RequestId::new(1) }).encode(), &[]).unwrap();
        assert!(matches!(raw::receive(control.as_fd()), Some(Message::Granted(_))));
        let lie = Message::Noted(Noted { notice: peerdma::buffer::life::NoticeId::new(77) });
        raw::send(control.as_fd(), &lie.encode(), &[]).unwrap();
        raw::receive(control.as_fd())
    });
    let who = until(&mut exporter, attached);
    assert!(!exporter.vouch_for(who), "nobody has to vouch for an importer that answers");
    assert!(matches!(until(&mut exporter, violation), (Violation::Untrue { kind: "noted", .. }, 1)));
    assert!(matches!(peer.join().unwrap(), Some(Message::Goodbye(said)) if said.ending == Ending::Untrue));
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    assert!(exporter.vouch_for(who));
    drop(exporter.wait(reset, soon()).unwrap());
}

#[test]
fn those_who_connect_and_say_nothing_do_not_keep_others_out() {
    let folder = Folder::new("silent");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(raw::connection(&folder.socket()));
        exporter.serve(Instant::now()).unwrap();
    }
    let path = folder.socket();
    let importer = thread::spawn(move || Importer::attach(&path, super::cooperative("viewer"), soon()).map(|_| ()));
    until(&mut exporter, attached);
    importer.join().unwrap().unwrap();
}

#[test]
fn attaching_to_nobody_or_to_somebody_who_does_not_serve_ends() {
    let folder = Folder::new("nobody");
    let declare = || Declare::of_process("viewer", peerdma::access::Prot::Read);
    let nobody = Importer::attach(&folder.socket(), declare(), soon());
    assert!(matches!(nobody, Err(AttachError::Nobody { .. })));
    let _busy = exporter(&folder.socket(), frames());
    let late = Importer::attach(&folder.socket(), declare(), Instant::now() + Duration::from_millis(50));
    assert!(matches!(late, Err(AttachError::Late)));
}
