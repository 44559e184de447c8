//! A device that goes, at every step of the life of its memory.
//!
//! What is done to it × how far that has come × what its importers reach it by × whether the kernel still answers for it: one
//! that was asked back answers until it is closed (Linux 7.2 `vfio_unregister_group_dev`), one that was pulled reads as all
//! ones. Whatever was under way, everything must be gone for everybody when it is over, and nobody may wait for ever.

use super::*;
use peerdma::buffer::shared::Held;
use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// Something that is done to the device: its words, what is done before, and what itself.
type Row = (&'static str, Option<fn() -> Deed<'static>>, fn() -> Deed<'static>);

const OFF: fn() -> Deed<'static> = || Deed::config(0x04, &[0x04, 0]).unwrap();
const ON: fn() -> Deed<'static> = || Deed::config(0x04, &[0x06, 0]).unwrap();
const D3: fn() -> Deed<'static> = || Deed::config(0x44, &[3]).unwrap();
const D0: fn() -> Deed<'static> = || Deed::config(0x44, &[0]).unwrap();
const MOVE: fn() -> Deed<'static> = || Deed::config(0x18, &[0x04, 0, 0, 0xe0]).unwrap();

const ROWS: [Row; 11] = [
    ("reset", None, || Deed::Reset),
    ("function-level reset, which is refused", None, || Deed::FunctionReset),
    ("hot reset", None, || Deed::HotReset(&[])),
    ("decoding off", None, OFF),
    ("decoding on", Some(OFF), ON),
    ("to D3", None, D3),
    ("to D0", Some(D3), D0),
    ("a BAR that moves", None, MOVE),
    ("sleep", None, || Deed::LowPower(None)),
    ("waking", Some(|| Deed::LowPower(None)), || Deed::Wake),
    ("closing", None, || Deed::Close),
];

/// How far a deed has come.
const STAGES: [Stage; 6] = [
    Stage::Before,
    Stage::Announced,
    Stage::Quiet,
    // Importers leave; it is done; importers come back.
    Stage::During(&["dma off"]),
    Stage::During(&["reset", "hot reset", "write", "sleep", "wake", "closed"]),
    Stage::During(&["mmap", "export", "dma "]),
];

#[derive(Clone, Copy, Debug)]
enum Stage {
    Before,
    Announced,
    Quiet,
    /// In the middle of one of these calls, on another thread.
    During(&'static [&'static str]),
}

/// How it goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The kernel asks for it, and it answers until it is closed.
    Asked,
    /// It is there no more.
    Pulled,
}

/// Everybody whom it concerns.
struct Scene {
    bench: Bench,
    window: CpuWindow<Fake>,
    way: Way,
}

impl Scene {
    fn new(files: bool, way: Way) -> Self {
        let bench = Bench::new(files);
        let window = bench.device.window("painter", range()).unwrap();
        Self { bench, window, way }
    }

    /// What the kernel does, and then whoever hears of it.
    fn goes(&self) -> Vec<Held> {
        goes(&self.bench.device, &self.bench.config, self.way)
    }

    /// Has it go on another thread in the middle of the next call that begins so, which goes on when that has
    /// begun, or when importers know. Gives who had not let go.
    fn goes_at(&self, word: &'static str, waits_for_news: bool) -> Receiver<Vec<Held>> {
        let (sender, held) = mpsc::channel();
        let (device, config, way) = (self.bench.device.clone(), self.bench.config.clone(), self.way);
        let buffer = self.bench.exported.buffer().clone();
        let between: Between = Box::new(move || {
            thread::spawn(move || sender.send(goes(&device, &config, way)));
            // No farther, as it may have to wait for this call, and the importer is told by whoever is telling it something.
            let has_begun = || buffer.report().causes.contains(&Disturbance::Removal);
            let is_told = || matches!(buffer.phase(), Phase::Draining | Phase::Dead);
            while !has_begun() || (waits_for_news && !is_told()) {
                thread::yield_now();
            }
        });
        *lock(&self.bench.log.then) = Some((word, between));
        held
    }

    /// Everything that must be so when it has gone, and everybody has let go.
    fn is_over(&mut self, import: &DmaImport<Space, Fake>) {
        assert_eq!(import.state(), ImportState::Gone);
        assert_eq!(self.bench.exported.buffer().phase(), Phase::Dead);
        assert!(lock(&self.bench.space).mapped.is_empty(), "nothing is left in the space");
        self.is_closed();
    }

    /// What is so even while somebody holds on.
    fn is_closed(&mut self) {
        assert!(matches!(self.window.load_u32(Bytes::ZERO), Err(WindowError::Closed { .. })));
        assert_eq!(self.window.window(), None, "a mapping would keep the device open");
        let device = &self.bench.device;
        for (words, _, deed) in ROWS {
            assert!(matches!(device.perform(deed(), LONG), Err(DeedError::Closed { .. })), "{words}");
        }
        assert!(device.window("late", range()).is_err() && device.with(|_| ()).is_none());
        assert!(device.export("late", range(), Owner::Device(OwnerId::new(1))).is_err());
        let closed = lock(&self.bench.log.lines).iter().filter(|line| *line == "closed").count();
        assert_eq!(closed, 1, "it was given back");
    }

    /// Another card in the same slot, at the same addresses.
    fn starts_anew(self, files: bool) {
        let (old, space) = (self.bench, |bench: &Bench| bench.space.clone());
        let mut bench = Bench::new(files);
        bench.space = space(&old);
        let import = bench.import(Need::Required, ()).unwrap();
        assert!(matches!(import.state(), ImportState::Mapped(_)));
        bench.device.perform(Deed::Reset, LONG).unwrap();
        assert!(matches!(import.state(), ImportState::Mapped(_)));
    }
}

fn goes(device: &SharedDevice<Fake>, config: &Mutex<Vec<u8>>, way: Way) -> Vec<Held> {
    if matches!(way, Way::Pulled) {
        lock(config).fill(0xff);
    }
    device.removed()
}

/// Fails, rather than to hang, unless it ends.
fn ends<T: Send + 'static>(words: &str, what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, ended) = mpsc::channel();
    let running = thread::spawn(move || sender.send(what()).is_ok());
    match ended.recv_timeout(LONG) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{words}: somebody waits for ever"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match running.join() {
            Err(cause) => {
                eprintln!("at: {words}");
                std::panic::resume_unwind(cause)
            }
            Ok(_) => panic!("{words}: it ended without a word"),
        },
    }
}

/// Both kinds of space, and both ways to go.
fn every(mut each: impl FnMut(bool, Way)) {
    for files in [false, true] {
        [Way::Asked, Way::Pulled].into_iter().for_each(|way| each(files, way));
    }
}

/// Whether it was in the middle of that, as far as the deed has such a step.
fn at_one_step(files: bool, way: Way, (words, before, deed): Row, stage: Stage) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    let calls = if let Stage::During(calls) = stage { calls } else { &[""] };
    for &call in calls {
        let title = format!("{words}, {stage:?} {call}, {files}, {way:?}");
        let was_reached = ends(&title, move || {
            let mut scene = Scene::new(files, way);
            let import = scene.bench.import(Need::Required, ()).unwrap();
            scene.window.write(Bytes::ZERO, &[7; 4]).unwrap();
            if let Some(before) = before {
                scene.bench.device.perform(before(), LONG).unwrap();
            }
            let device = scene.bench.device.clone();
            let reached = match stage {
                Stage::Before => scene.goes().is_empty(),
                Stage::Announced => {
                    let announced = device.announce(deed()).unwrap();
                    assert!(scene.goes().is_empty());
                    assert!(matches!(announced.wait(LONG).unwrap().act(), Err(DeedError::Closed { .. })));
                    true
                }
                Stage::Quiet => {
                    let quiet = device.announce(deed()).unwrap().wait(LONG).unwrap();
                    assert!(scene.goes().is_empty());
                    assert!(matches!(quiet.act(), Err(DeedError::Closed { .. })));
                    true
                }
                Stage::During(..) => {
                    let gone = scene.goes_at(call, false);
                    // Done, refused or too late: whichever it is, it comes to an end.
                    let _ = device.perform(deed(), LONG);
                    let was_reached = lock(&scene.bench.log.then).take().is_none();
                    if was_reached {
                        drop(gone.recv_timeout(LONG).unwrap())
                    } else {
                        drop(scene.goes())
                    }
                    was_reached
                }
            };
            scene.is_over(&import);
            drop(import);
            scene.starts_anew(files);
            reached
        });
        if was_reached {
            reached.insert(call);
        }
    }
    reached
}

#[test]
fn a_device_may_go_at_every_step_of_whatever_is_done_to_it() {
    every(|files, way| {
        let mut all = BTreeSet::new();
        for row in ROWS {
            for stage in STAGES {
                for call in at_one_step(files, way, row, stage) {
                    all.insert((row.0, call));
                }
            }
        }
        // A step that no deed came by would have claimed nothing.
        let came_by: BTreeSet<&str> = all.iter().map(|(_, call)| *call).collect();
        let by = if files { "export" } else { "mmap" };
        let expected = ["", "closed", "dma ", "dma off", "hot reset", "reset", "sleep", "wake", "write", by];
        assert_eq!(came_by, BTreeSet::from(expected));
        for leaves_and_comes_back in ["reset", "hot reset", "a BAR that moves"] {
            for call in ["dma off", "dma ", by] {
                assert!(all.contains(&(leaves_and_comes_back, call)), "{leaves_and_comes_back} {call}: {all:?}");
            }
        }
    });
}

#[test]
fn a_device_may_go_while_its_memory_is_away() {
    every(|files, way| {
        for (words, _, away) in ROWS {
            let title = format!("after {words}, {files}, {way:?}");
            ends(&title, move || {
                let mut scene = Scene::new(files, way);
                let import = scene.bench.import(Need::Required, ()).unwrap();
                // Refused, or of no consequence: whatever it left behind.
                let _ = scene.bench.device.perform(away(), LONG);
                assert!(scene.goes().is_empty());
                scene.is_over(&import);
                scene.starts_anew(files);
            });
        }
    });
}

#[test]
fn a_device_may_go_while_somebody_attaches() {
    every(|files, way| {
        for need in [Need::Required, Need::BestEffort] {
            for call in ["mmap", "export", "dma "] {
                let title = format!("attaching, {call}, {need:?}, {files}, {way:?}");
                ends(&title, move || {
                    let mut scene = Scene::new(files, way);
                    said(&scene.bench.log);
                    let gone = scene.goes_at(call, true);
                    let attached = scene.bench.import(need, ());
                    if lock(&scene.bench.log.then).take().is_none() {
                        gone.recv_timeout(LONG).unwrap();
                    } else {
                        // This kind of space takes the other of the two.
                        assert!(call != "dma " && attached.is_ok());
                        assert!(scene.goes().is_empty());
                        return scene.is_over(&attached.unwrap());
                    }
                    match (need, attached) {
                        // Whether it was over before the import was complete.
                        (Need::Required, Err(ImportError::Closed)) => {}
                        (_, Ok(import)) => scene.is_over(&import),
                        (_, Err(error)) => panic!("{error}"),
                    }
                    assert!(
                        lock(&scene.bench.space).mapped.is_empty()
                            && scene.bench.exported.buffer().phase() == Phase::Dead
                    );
                    scene.is_closed();
                    let late = scene.bench.import(Need::BestEffort, ());
                    assert!(matches!(late, Err(ImportError::Attach(_))), "{late:?}");
                    scene.starts_anew(files);
                });
            }
        }
    });
}

/// An engine that runs on is named, and when it has stopped what it reached is taken from it.
#[test]
fn who_does_not_let_go_of_a_device_that_goes_is_named_until_it_has() {
    every(|files, way| {
        for (words, before, deed) in ROWS {
            for announced in [false, true] {
                let title = format!("holding on, {words}, announced {announced}, {files}, {way:?}");
                ends(&title, move || {
                    let mut scene = Scene::new(files, way);
                    let idle = Arc::new(AtomicBool::new(true));
                    let import = scene.bench.import(Need::Required, Busy(idle.clone())).unwrap();
                    if let Some(before) = before {
                        scene.bench.device.perform(before(), LONG).unwrap();
                    }
                    let holds = matches!(import.state(), ImportState::Mapped(_));
                    idle.store(false, Ordering::Relaxed);
                    let device = scene.bench.device.clone();
                    let told = announced.then(|| device.announce(deed()).unwrap());
                    let held = scene.goes();
                    let names: Vec<_> = held.iter().filter_map(|held| held.holder.as_ref()).collect();
                    assert_eq!(names.len(), usize::from(holds), "{held:?}");
                    assert!(names.iter().all(|holder| holder.name == "edu"));
                    // Whoever waits does so as long as it said.
                    match told.map(|told| told.wait(SHORT).map(drop)) {
                        Some(Err(DeedError::Late { held: late, .. })) => assert_eq!(late, held),
                        waited => assert!(matches!(waited, None | Some(Ok(()))) && !(holds && announced), "{waited:?}"),
                    }
                    if holds {
                        assert!(matches!(import.state(), ImportState::Stopping(_)), "{import:?}");
                        assert_eq!(scene.goes(), held, "whoever asks again hears the same");
                        scene.is_closed();
                        assert_eq!(lock(&scene.bench.space).mapped.len(), 1);
                        idle.store(true, Ordering::Relaxed);
                        assert!(scene.goes().is_empty(), "it has stopped");
                    }
                    scene.is_over(&import);
                    scene.starts_anew(files);
                });
            }
        }
    });
}

/// A space that keeps a mapping of memory that is gone is not passed over either.
#[test]
fn a_space_that_does_not_unmap_what_is_gone_is_named_until_it_does() {
    every(|files, way| {
        ends("stuck", move || {
            let mut scene = Scene::new(files, way);
            let import = scene.bench.import(Need::Required, ()).unwrap();
            scene.bench.broken.store(true, Ordering::Relaxed);
            assert!(scene.goes().iter().any(|held| held.to_string().contains("edu")));
            assert!(matches!(import.state(), ImportState::Stuck(ImportError::Unmap(_))));
            scene.is_closed();
            scene.bench.broken.store(false, Ordering::Relaxed);
            assert!(scene.goes().is_empty());
            scene.is_over(&import);
            scene.starts_anew(files);
        });
    });
}

/// One that is made meanwhile must not keep the device open either.
#[test]
fn windows_that_are_opened_and_used_while_a_device_goes_are_closed() {
    every(|files, way| {
        for call in ["mmap", ""] {
            ends(&format!("windows, `{call}`"), move || {
                let mut scene = Scene::new(files, way);
                let gone = if call.is_empty() { None } else { Some(scene.goes_at(call, false)) };
                let late = thread::scope(|scope| {
                    let device = &scene.bench.device;
                    let mut others: Vec<_> = (0..2)
                        .map(|at| device.window(&format!("reader {at}"), range()))
                        .filter_map(Result::ok)
                        .collect();
                    for mut window in others.drain(..) {
                        scope.spawn(move || {
                            loop {
                                match window.load_u32(Bytes::ZERO) {
                                    Ok(_) | Err(WindowError::Away { .. }) => thread::yield_now(),
                                    Err(WindowError::Closed { .. }) => break,
                                    Err(other) => panic!("{other}"),
                                }
                            }
                        });
                    }
                    match &gone {
                        Some(gone) => drop(gone.recv_timeout(LONG).unwrap()),
                        None => drop(scene.goes()),
                    }
                    device.window("late", range())
                });
                assert!(late.is_err());
                scene.is_closed();
            });
        }
    });
}
