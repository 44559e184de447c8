//! What the controller says of itself: Identify data and log pages (NVMe Base 2.0 §5.16, §5.17).

use super::io::LONGEST_LOG2_PAGES;
use super::media::Media;
use super::registers::VERSION;

/// Bytes of each Identify data structure.
pub(super) const LEN: usize = 4096;
/// Requests for events that are held.
pub(super) const EVENTS: usize = 4;

/// Who the controller is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) serial: String,
    pub(super) vendor: u16,
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Text in ASCII, filled with spaces.
fn put_text(data: &mut [u8], at: usize, len: usize, text: &str) {
    data[at..at + len].fill(b' ');
    let printable = text.bytes().filter(|byte| (0x20..0x7f).contains(byte));
    for (place, byte) in data[at..at + len].iter_mut().zip(printable) {
        *place = byte;
    }
}

impl Identity {
    /// A number for the namespace that follows from the serial number (FNV-1a).
    fn eui64(&self) -> [u8; 8] {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        self.serial.bytes().fold(0xcbf2_9ce4_8422_2325, hash).to_be_bytes()
    }

    /// Identify Controller.
    pub(super) fn controller(&self) -> Vec<u8> {
        let mut data = vec![0; LEN];
        put(&mut data, 0, &self.vendor.to_le_bytes());
        put(&mut data, 2, &self.vendor.to_le_bytes());
        put_text(&mut data, 4, 20, &self.serial);
        put_text(&mut data, 24, 40, "peerdma emulated drive");
        put_text(&mut data, 64, 8, "1");
        data[77] = LONGEST_LOG2_PAGES;
        put(&mut data, 80, &VERSION.to_le_bytes());
        // CNTRLTYPE: an I/O controller.
        data[111] = 1;
        // ACL: one Abort at a time, since each is done at once.
        data[258] = 0;
        data[259] = EVENTS as u8 - 1;
        // FRMW: one slot of firmware, which is read only.
        data[260] = 0x03;
        // LPA: log pages have lengths and offsets of 32 bits.
        data[261] = 0x04;
        // WCTEMP and CCTEMP, kelvins.
        put(&mut data, 266, &353_u16.to_le_bytes());
        put(&mut data, 268, &363_u16.to_le_bytes());
        // SQES and CQES: 64 and 16 bytes, no others.
        data[512] = 0x66;
        data[513] = 0x44;
        put(&mut data, 516, &1_u32.to_le_bytes());
        // ONCS: Compare and Write Zeroes.
        put(&mut data, 520, &0x9_u16.to_le_bytes());
        // SGLS: supported without alignment, with bit buckets.
        put(&mut data, 536, &(1_u32 | 1 << 16).to_le_bytes());
        // A name in the form that Linux gives drives without one, ended by the zeros behind it.
        let serial: String = self.serial.chars().filter(char::is_ascii_graphic).take(20).collect();
        let name = format!("nqn.2014.08.org.nvmexpress:{0:04x}{0:04x}{serial}", self.vendor);
        put(&mut data, 768, name.as_bytes());
        data
    }

    /// Identify Namespace.
    pub(super) fn namespace(&self, media: &Media) -> Vec<u8> {
        let mut data = vec![0; LEN];
        // Size, capacity and use: all blocks are there.
        for at in [0, 8, 16] {
            put(&mut data, at, &media.blocks().to_le_bytes());
        }
        put(&mut data, 120, &self.eui64());
        // The one format: no metadata, the length of a block as a power of two.
        data[130] = media.block.shift() as u8;
        data
    }

    /// The list of namespaces above a number.
    pub(super) fn namespaces_above(number: u32) -> Vec<u8> {
        let mut data = vec![0; LEN];
        if number == 0 {
            data[0] = 1;
        }
        data
    }

    /// The list of the namespace's names: its EUI-64.
    pub(super) fn names(&self) -> Vec<u8> {
        let mut data = vec![0; LEN];
        put(&mut data, 0, &[1, 8, 0, 0]);
        put(&mut data, 4, &self.eui64());
        data
    }
}

/// A log page; `None` for those that are not there.
pub(super) fn log_page(number: u8) -> Option<Vec<u8>> {
    let mut data = vec![0; 512];
    match number {
        // Error Information: of the one entry nothing was ever reported.
        0x01 => data.truncate(64),
        // SMART: 300 K, all of the spare blocks left, a threshold of 10 %.
        0x02 => put(&mut data, 1, &[0x2c, 0x01, 100, 10]),
        // Firmware Slot: slot 1 is active.
        0x03 => {
            data[0] = 1;
            put_text(&mut data, 8, 8, "1");
        }
        _ => return None,
    }
    Some(data)
}
