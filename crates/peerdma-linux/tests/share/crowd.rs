//! Many importers that write without pause, while the memory is taken from them again and again. The memory is
//! the witness: what the exporter stamped while it was told that nobody has it mapped must stay as it is.

use super::child::Other;
use super::{Folder, SIZE, exporter, frames, soon};
use peerdma::addr::Bytes;
use peerdma::buffer::life::Disturbance;
use peerdma_linux::share::{Exporter, Happened};
use std::time::{Duration, Instant};

const ROUNDS: u8 = 40;

fn all(exporter: &Exporter) -> Vec<u8> {
    let mut bytes = vec![0; SIZE.as_u64() as usize];
    exporter.memory().read(Bytes::ZERO, &mut bytes).unwrap();
    bytes
}

#[test]
fn nobody_writes_while_the_memory_is_away_whoever_comes_goes_or_dies() {
    let folder = Folder::new("crowd");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut crowd: Vec<Other> = (0..4).map(|_| Other::start("scribbler", &folder.socket())).collect();
    let (mut attached, mut hung_up, mut written) = (0, 0, 0);
    let mut count = |exporter: &mut Exporter, until: Instant| {
        while let Some(happened) = exporter.serve(until).unwrap() {
            match happened {
                Happened::Attached { .. } => attached += 1,
                Happened::HungUp { who: Some(_), .. } => hung_up += 1,
                Happened::CutOff { peer, violation, .. } => unreachable!("{peer} {violation}"),
                _ => {}
            }
        }
        (attached, hung_up)
    };
    for round in 1..=ROUNDS {
        // Until somebody has written over the last stamp.
        let end = soon();
        while exporter.importers().count() > 0 && all(&exporter).iter().all(|byte| *byte == round - 1) {
            assert!(Instant::now() < end, "nobody writes");
            count(&mut exporter, Instant::now());
        }
        written += usize::from(!all(&exporter).iter().all(|byte| *byte == round - 1));
        let announced = exporter.buffer().begin(Disturbance::Reset).unwrap();
        if round.is_multiple_of(8) {
            // One is killed while it is asked to let go, and another comes.
            crowd[usize::from(round) % 4] = Other::start("scribbler", &folder.socket());
        }
        let quiet = exporter.wait(announced, soon()).unwrap();
        let stamp = vec![round; SIZE.as_u64() as usize];
        exporter.memory().write(Bytes::ZERO, &stamp).unwrap();
        count(&mut exporter, Instant::now() + Duration::from_millis(2));
        assert!(all(&exporter) == stamp, "somebody wrote in round {round}, when nobody had it mapped");
        quiet.done();
    }
    drop(crowd);
    let end = soon();
    while exporter.importers().next().is_some() {
        assert!(Instant::now() < end, "whoever has ended is gone");
        count(&mut exporter, Instant::now() + Duration::from_millis(5));
    }
    let (attached, hung_up) = count(&mut exporter, Instant::now());
    assert_eq!(attached, hung_up, "everybody was killed in the end");
    assert!(
        attached >= 1 && written > usize::from(ROUNDS) / 2,
        "{attached} attached, {written} rounds were written in"
    );
}
