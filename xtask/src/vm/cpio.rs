//! Writes cpio archives of the "newc" kind, the one that Linux unpacks as its first root.
//!
//! Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. By hand,
//! since the program `cpio` reads a folder, and device nodes and owners in a folder
//! take root.

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: Vec<String>,
}

impl Archive {
    /// Adds a file with its permission bits; missing folders above it are added too.
    pub(super) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.folders_above(path);
        self.entry(path, 0o100_000 | mode, contents, (0, 0));
    }

    /// Adds a folder and those above it.
    pub(super) fn folder(&mut self, path: &str) {
        self.folders_above(&format!("{path}/"));
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.folders_above(path);
        self.entry(path, 0o020_600, &[], (major, minor));
    }

    /// The whole archive, with its trailer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn folders_above(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            if !folder.is_empty() && !self.folders.iter().any(|known| known == folder) {
                self.folders.push(folder.into());
                self.entry(folder, 0o040_755, &[], (0, 0));
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let size = u32::try_from(contents.len()).expect("a file of the guest is below 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("a path of the guest is short");
        let links = if mode & 0o040_000 == 0 { 1 } else { 2 };
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    /// Names and contents start at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_program_cpio_reads_what_is_written() {
        if !super::super::process::found("cpio") {
            let _ = writeln!(std::io::stderr(), "SKIPPED cpio: the program cpio is not installed");
            return;
        }
        let mut archive = Archive::default();
        archive.file("bin/deep/a", 0o755, b"contents");
        archive.file("bin/b", 0o644, b"");
        archive.folder("out");
        let mut child = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let listed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(names, ["bin", "bin/deep", "bin/deep/a", "bin/b", "out"]);
        assert!(listed.lines().nth(2).unwrap().starts_with("-rwxr-xr-x"), "{listed}");
    }

    #[test]
    fn names_and_contents_start_at_multiples_of_four() {
        for length in 0..9 {
            let mut archive = Archive::default();
            archive.file(&"x".repeat(length + 1), 0o600, &vec![7; length]);
            assert_eq!(archive.finish().len() % 4, 0);
        }
    }
}
