//! Settings of the machine, which tests change only where they are asked to, one at a time, and put back.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Write;

/// Asks for it: `PEERDMA_TEST_SETTINGS=1 cargo test -p peerdma-linux`, as root, with `--test-threads=1`
/// since other tests find the settings changed too.
const ASKED: &str = "PEERDMA_TEST_SETTINGS";
pub(super) const REASON: &str =
    "it takes settings of the machine; PEERDMA_TEST_SETTINGS=1 lets root's tests change them";

/// A setting with a number, changed for as long as this lives; one at a time, of all programs.
pub(super) struct Changed {
    file: &'static str,
    back: fn(u64, u64) -> u64,
    by: u64,
    _turn: File,
}

impl Changed {
    fn new(file: &'static str, to: fn(u64, u64) -> u64, back: fn(u64, u64) -> u64, by: u64) -> Option<Self> {
        std::env::var_os(ASKED)?;
        let lock = std::env::temp_dir().join("peerdma-settings.lock");
        let turn = File::options().create(true).truncate(false).write(true).open(lock).ok()?;
        flock(&turn, FlockOperation::LockExclusive).ok()?;
        write(file, |now| to(now, by)).then_some(Self { file, back, by, _turn: turn })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        write(self.file, |now| (self.back)(now, self.by));
    }
}

fn write(file: &str, to: impl Fn(u64) -> u64) -> bool {
    let Some(now) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) else { return false };
    let open = File::options().write(true).open(file);
    open.and_then(|mut file| file.write_all(to(now).to_string().as_bytes())).is_ok()
}

/// Huge pages in the pool beyond those that are there.
pub(super) struct MoreHugePages;

impl MoreHugePages {
    pub(super) fn of(count: u64) -> Option<Changed> {
        Changed::new("/proc/sys/vm/nr_hugepages", |now, by| now + by, |now, by| now.saturating_sub(by), count)
    }
}

/// io_uring forbidden to everybody.
pub(super) struct NoIoUring;

impl NoIoUring {
    pub(super) fn now() -> Option<Changed> {
        Changed::new("/proc/sys/kernel/io_uring_disabled", |_, _| 2, |_, _| 0, 0)
    }
}
