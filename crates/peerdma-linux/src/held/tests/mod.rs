//! Claims about what is read of processes, written and live.

mod live;
mod written;

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of its own, gone with the test.
struct Proc {
    path: PathBuf,
}

impl Proc {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("peerdma-held-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A process as Linux 6.18 shows it, in the lines that matter.
    fn process(&self, pid: u32, uid: u32, (locked, pinned): (u64, u64), limit: &str) {
        let status = format!(
            "Name:\tworker {pid}\nState:\tS (sleeping)\nUid:\t{uid}\t0\t0\t0\nVmPeak:\t    2320 kB\n\
             VmLck:\t{locked:8} kB\nVmPin:\t{pinned:8} kB\nCapEff:\t0000000000000000\n"
        );
        self.file(&format!("{pid}/status"), &status);
        let limits = format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max locked memory         {limit:<20} unlimited            bytes     \n"
        );
        self.file(&format!("{pid}/limits"), &limits);
        fs::create_dir_all(self.path.join(format!("{pid}/fd"))).unwrap();
    }

    /// A ring as its fourth descriptor.
    fn ring(&self, pid: u32, buffers: &[&str]) {
        std::os::unix::fs::symlink("anon_inode:[io_uring]", self.path.join(format!("{pid}/fd/3"))).unwrap();
        let lines: Vec<String> = buffers.iter().enumerate().map(|(at, it)| format!("{at:5}: {it}\n")).collect();
        let count = buffers.len();
        let info = format!("pos:\t0\nSqMask:\t0x0\nUserFiles:\t0\nUserBufs:\t{count}\n{}PollList:\n", lines.concat());
        self.file(&format!("{pid}/fdinfo/3"), &info);
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
