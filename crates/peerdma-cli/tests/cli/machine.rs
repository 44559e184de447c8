//! A small machine as a copied sysfs tree, written anew for each test.
//!
//! ```text
//! pci0000:00  00:00.0 host bridge 8086:09a2
//!             00:01.0 root port, ACS SV RR CR UF
//!               01:00.0 upstream port (no ACS)
//!                 02:00.0 downstream port, ACS clear ── 03:00.0 nvme0 (BAR0 16 KiB)
//!                 02:01.0 downstream port, ACS clear ── 04:00.0 mlx5_0 (BAR0 32 MiB)
//!             00:02.0 root port, no ACS ── 05:00.0 card1 (BAR2 64 GiB)
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// One function of the machine: address, path below the root bus, registers.
pub(crate) struct Function {
    pub(crate) address: &'static str,
    pub(crate) path: &'static str,
    pub(crate) config: Vec<u8>,
    pub(crate) names: &'static [&'static str],
    pub(crate) bar: Option<(usize, u64, u64)>,
}

/// PCIe functions get 4096 bytes; `acs` is the control word, if there is the capability.
fn express(id: (u16, u16), class: u32, header: u8, port_type: u8, acs: Option<u16>, buses: Option<[u8; 3]>) -> Vec<u8> {
    let mut config = vec![0u8; 4096];
    config[0..2].copy_from_slice(&id.0.to_le_bytes());
    config[2..4].copy_from_slice(&id.1.to_le_bytes());
    config[4] = 0x06;
    config[6] = 0x10;
    config[9..12].copy_from_slice(&class.to_le_bytes()[..3]);
    config[0x0e] = header;
    config[0x34] = 0x40;
    config[0x40] = 0x10;
    config[0x42] = 2 | port_type << 4;
    // Device Serial Number first, which captures must blank.
    let next: u32 = if acs.is_some() { 0x140 } else { 0 };
    config[0x100..0x104].copy_from_slice(&(next << 20 | 0x1_0003).to_le_bytes());
    config[0x104..0x10c].copy_from_slice(b"SERIALNO");
    if let Some(control) = acs {
        config[0x140..0x144].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
        config[0x144..0x146].copy_from_slice(&0x001f_u16.to_le_bytes());
        config[0x146..0x148].copy_from_slice(&control.to_le_bytes());
    }
    if let Some(buses) = buses {
        config[0x18..0x1b].copy_from_slice(&buses);
    }
    config
}

fn with_bar(mut config: Vec<u8>, index: usize, address: u64) -> Vec<u8> {
    let at = 0x10 + 4 * index;
    config[at..at + 8].copy_from_slice(&(address | 0xc).to_le_bytes());
    config
}

/// A port that passes `first..=last` down in its prefetchable window, and nothing in the other.
fn with_window(mut config: Vec<u8>, first: u64, last: u64) -> Vec<u8> {
    config[0x20..0x24].copy_from_slice(&0x0000_fff0_u32.to_le_bytes());
    for (low, high, address) in [(0x24, 0x28, first), (0x26, 0x2c, last)] {
        // Bits 31:20 of the address, and that it has 64 bits.
        let word = (address >> 16) as u16 & 0xfff0 | 1;
        config[low..low + 2].copy_from_slice(&word.to_le_bytes());
        config[high..high + 4].copy_from_slice(&((address >> 32) as u32).to_le_bytes());
    }
    config
}

/// The machine above.
pub(crate) fn functions() -> Vec<Function> {
    let plain = |address, path, config| Function { address, path, config, names: &[], bar: None };
    let device = |address, path, config: Vec<u8>, names, bar: (usize, u64, u64)| Function {
        address,
        path,
        config: with_bar(config, bar.0, bar.1),
        names,
        bar: Some(bar),
    };
    let mut host = vec![0u8; 256];
    host[0..4].copy_from_slice(&[0x86, 0x80, 0xa2, 0x09]);
    host[11] = 0x06;
    vec![
        plain("0000:00:00.0", "", host),
        plain(
            "0000:00:01.0",
            "",
            with_window(
                express((0x8086, 0x352a), 0x060400, 1, 4, Some(0x1d), Some([0, 1, 4])),
                0x40_0000_0000,
                0x41_01ff_ffff,
            ),
        ),
        plain(
            "0000:01:00.0",
            "0000:00:01.0",
            with_window(
                express((0x10b5, 0x9797), 0x060400, 1, 5, None, Some([1, 2, 4])),
                0x40_0000_0000,
                0x41_01ff_ffff,
            ),
        ),
        plain(
            "0000:02:00.0",
            "0000:00:01.0/0000:01:00.0",
            with_window(
                express((0x10b5, 0x9797), 0x060400, 1, 6, Some(0), Some([2, 3, 3])),
                0x40_0000_0000,
                0x40_000f_ffff,
            ),
        ),
        plain(
            "0000:02:01.0",
            "0000:00:01.0/0000:01:00.0",
            with_window(
                express((0x10b5, 0x9797), 0x060400, 1, 6, Some(0), Some([2, 4, 4])),
                0x41_0000_0000,
                0x41_01ff_ffff,
            ),
        ),
        device(
            "0000:03:00.0",
            "0000:00:01.0/0000:01:00.0/0000:02:00.0",
            express((0x144d, 0xa80a), 0x010802, 0, 0, None, None),
            &["nvme/nvme0"],
            (0, 0x40_0000_0000, 16 << 10),
        ),
        device(
            "0000:04:00.0",
            "0000:00:01.0/0000:01:00.0/0000:02:01.0",
            express((0x15b3, 0x1021), 0x020000, 0, 0, None, None),
            &["infiniband/mlx5_0", "net/enx00aabbccddee"],
            (0, 0x41_0000_0000, 32 << 20),
        ),
        plain(
            "0000:00:02.0",
            "",
            with_window(
                express((0x8086, 0x352a), 0x060400, 1, 4, None, Some([0, 5, 5])),
                0x50_0000_0000,
                0x5f_ffff_ffff,
            ),
        ),
        device(
            "0000:05:00.0",
            "0000:00:02.0",
            express((0x10de, 0x2330), 0x030200, 0, 0, None, None),
            &["drm/card1"],
            (2, 0x50_0000_0000, 64 << 30),
        ),
    ]
}

/// How much of config space the copy holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    User,
}

/// A folder that is removed with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("peerdma-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes `sys` and `proc` of the machine into `root`.
pub(crate) fn write_tree(root: &Path, read_as: As) {
    let devices = root.join("sys/bus/pci/devices");
    fs::create_dir_all(&devices).unwrap();
    for function in functions() {
        let below = if function.path.is_empty() { String::new() } else { format!("{}/", function.path) };
        let real = format!("pci0000:00/{below}{}", function.address);
        let folder = root.join("sys/devices").join(&real);
        fs::create_dir_all(&folder).unwrap();
        symlink(format!("../../../devices/{real}"), devices.join(function.address)).unwrap();
        let len = if read_as == As::Root { function.config.len() } else { 64 };
        fs::write(folder.join("config"), &function.config[..len]).unwrap();
        let mut resource = String::new();
        for index in 0..7 {
            let line = match function.bar {
                Some((bar, start, len)) if bar == index => {
                    format!("{start:#018x} {:#018x} 0x000000000014220c\n", start + len - 1)
                }
                _ => "0x0000000000000000 0x0000000000000000 0x0000000000000000\n".to_string(),
            };
            resource.push_str(&line);
        }
        fs::write(folder.join("resource"), resource).unwrap();
        for name in function.names {
            fs::create_dir_all(folder.join(name)).unwrap();
            // Archives of sysfs hold files in these folders.
            fs::write(folder.join(name).join("uevent"), "").unwrap();
        }
    }
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::write(root.join("proc/cpuinfo"), "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n").unwrap();
    fs::write(root.join("proc/version"), "Linux version 7.2.13 (builder@host) (gcc) #1 SMP\n").unwrap();
    fs::write(root.join("proc/cmdline"), "quiet pci=disable_acs_redir=0000:02:00.0 BOOTIF=01-00-aa-bb-cc-dd-ee\n")
        .unwrap();
}

/// The machine as `lspci -xxxx -n -D` would print it.
pub(crate) fn hex_dump() -> String {
    let mut text = String::new();
    for function in functions() {
        let config = &function.config;
        let word = |at: usize| u16::from_le_bytes([config[at], config[at + 1]]);
        text.push_str(&format!("{} {:04x}: {:04x}:{:04x}\n", function.address, word(0x0a), word(0), word(2)));
        for (line, bytes) in config.chunks(16).enumerate() {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("{:02x}: {}\n", line * 16, bytes.join(" ")));
        }
        text.push('\n');
    }
    text
}

/// Runs the program.
pub(crate) fn peerdma(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peerdma")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

/// Runs the program with a standard output that nobody reads: every write is EPIPE from the start.
pub(crate) fn peerdma_unread(arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerdma"));
    command.args(arguments).env("NO_COLOR", "1").stdout(writer).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// Standard output of a run with the wanted exit code.
pub(crate) fn stdout_of(arguments: &[&str], code: i32) -> String {
    let output = peerdma(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}\n{errors}");
    text
}

/// The JSON of a run with the wanted exit code.
pub(crate) fn json_of(arguments: &[&str], code: i32) -> serde_json::Value {
    serde_json::from_str(&stdout_of(arguments, code)).unwrap()
}
