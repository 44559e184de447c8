use super::*;
use crate::drive::Drive;
use std::fs::{self, OpenOptions};

/// A pool and a disk that are ordinary files, which map and move as those of devices do.
struct Bench {
    folder: PathBuf,
    drive: Drive,
    memory: P2pMemory,
}

/// What the disk holds in every byte.
const HELD: u8 = 0x5a;
const ROOM: usize = 1 << 20;

impl Bench {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("peerdma-witness-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (pool, disk) = (folder.join("allocate"), folder.join("disk"));
        fs::write(&pool, vec![7; 3 * PAGE]).unwrap();
        fs::write(&disk, vec![HELD; ROOM]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&disk).unwrap();
        let drive = Drive { path: disk, file, room: Bytes::new(ROOM as u64) };
        let memory = P2pMemory::allocate(&pool, Witness::MEMORY).unwrap();
        Self { folder, drive, memory }
    }

    fn witness(&mut self) -> Witness<'_> {
        Witness::new(&self.drive, &mut self.memory, 1).unwrap()
    }

    fn disk_is_as_it_was(&self) -> bool {
        fs::read(&self.drive.path).unwrap() == vec![HELD; ROOM]
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn refused(errno: i32) -> io::Result<Bytes> {
    Err(io::Error::from_raw_os_error(errno))
}

#[test]
fn blocks_that_come_and_go_are_seen_and_the_disk_is_put_back() {
    let mut bench = Bench::new("both");
    let answer = bench.witness().writes().unwrap();
    assert!(matches!(answer, Answer::Moved(delivery) if delivery.is_delivered()), "{answer:?}");
    let reading = bench.witness().reads().unwrap();
    assert!(matches!(reading.answer, Answer::Moved(delivery) if delivery.is_delivered()), "{reading:?}");
    assert!(reading.restored && bench.disk_is_as_it_was());
}

/// As QEMU's drives do: the command succeeds and no byte came.
#[test]
fn a_transfer_that_is_reported_and_lost_is_not_taken_for_one() {
    let mut bench = Bench::new("lost");
    let answer = bench.witness().writes_by(|_| Ok(LEN)).unwrap();
    let lost = |answer| matches!(answer, Answer::Moved(delivery) if delivery.untouched && !delivery.is_delivered());
    assert!(lost(answer), "{answer:?}");
    let reading = bench.witness().reads_by(|_| Ok(LEN)).unwrap();
    assert!(lost(reading.answer) && reading.restored, "{reading:?}");
    assert!(bench.disk_is_as_it_was());
}

#[test]
fn a_refusal_is_told_from_a_failure_and_the_disk_is_put_back_after_both() {
    let mut bench = Bench::new("refused");
    for (number, kernel_refuses) in [(22, true), (121, true), (5, false), (11, false)] {
        let expected = |answer| match answer {
            Answer::Refused { errno } => kernel_refuses && errno.number() == number,
            Answer::Failed { errno } => !kernel_refuses && errno.number() == number,
            Answer::Moved(_) => false,
        };
        assert!(expected(bench.witness().writes_by(|_| refused(number)).unwrap()), "{number}");
        let reading = bench.witness().reads_by(|_| refused(number)).unwrap();
        assert!(expected(reading.answer) && reading.restored, "{number}");
    }
    let short = bench.witness().writes_by(|_| Ok(Bytes::new(512))).unwrap();
    assert!(matches!(short, Answer::Failed { .. }), "{short:?}");
    assert!(bench.disk_is_as_it_was());
}

#[test]
fn bytes_beside_the_page_that_change_are_seen_in_either_place() {
    let mut bench = Bench::new("beside");
    let answer = bench.witness().writes_by(|memory| {
        memory.write(Bytes::new(2 * PAGE as u64), &[0xee]).unwrap();
        Ok(LEN)
    });
    let Answer::Moved(delivery) = answer.unwrap() else { panic!("nothing was refused") };
    assert_eq!(delivery.damage.map(|damage| damage.distance), Some(Bytes::new(1)));
    let path = bench.drive.path.clone();
    let reading = bench.witness().reads_by(|_| {
        let mut disk = fs::read(&path).unwrap();
        disk[AT.as_u64() as usize - 1] = 0xee;
        fs::write(&path, disk).unwrap();
        Ok(LEN)
    });
    let Answer::Moved(delivery) = reading.unwrap().answer else { panic!("nothing was refused") };
    assert_eq!(delivery.damage.map(|damage| (damage.distance, damage.was)), Some((Bytes::new(1), HELD)));
}

#[test]
fn a_page_that_somebody_else_changes_says_nothing() {
    let mut bench = Bench::new("changing");
    let path = bench.drive.path.clone();
    let outcome = bench.witness().writes_by(|_| {
        fs::write(&path, vec![1; ROOM]).unwrap();
        Ok(LEN)
    });
    assert!(matches!(outcome, Err(WitnessError::Changing { .. })), "{outcome:?}");
}

#[test]
fn a_disk_that_is_too_short_is_refused_before_anything_is_moved() {
    let mut bench = Bench::new("short");
    bench.drive.room = Bytes::new(512 << 10);
    let error = Witness::new(&bench.drive, &mut bench.memory, 1).unwrap_err();
    assert!(error.to_string().contains("name another drive"), "{error}");
}
