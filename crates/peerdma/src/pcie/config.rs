//! Where configuration registers are read from.
//!
//! Every input (sysfs, hex dumps, captures, later the emulated platform's ports)
//! offers its bytes through [`ConfigSpace`], which can say "not here" for any of
//! them: an unprivileged reader gets 64 bytes, some copies hold 256.

use alloc::vec::Vec;

/// Readable configuration registers of one function.
pub trait ConfigSpace {
    /// The byte at `offset` (0 to 4095), or `None` where the input does not hold it.
    fn byte(&self, offset: u16) -> Option<u8>;

    /// What is known about where this function's configuration space ends.
    fn size(&self) -> ConfigSize;

    /// The little-endian word at `offset`.
    fn word(&self, offset: u16) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte(offset)?, self.byte(offset.checked_add(1)?)?]))
    }

    /// The little-endian double word at `offset`.
    fn dword(&self, offset: u16) -> Option<u32> {
        let low = self.word(offset)?;
        let high = self.word(offset.checked_add(2)?)?;
        Some(u32::from(high) << 16 | u32::from(low))
    }
}

/// What is known about the size of a configuration space, apart from the bytes at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConfigSize {
    /// Nothing: the bytes at hand may be a part of it.
    #[default]
    Unknown,
    /// A copy holds 256 bytes where copies of other functions beside it hold 4096.
    /// Good for functions that show no PCIe capability; for one that does, the
    /// copy may as well have been cut.
    Copied256,
    /// The length of the live sysfs file, which is the kernel's own `cfg_size`
    /// whatever the reader's privilege.
    Kernel(u16),
}

/// Configuration bytes from offset 0 on, as files and dumps hold them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfigBytes {
    bytes: Vec<u8>,
    size: ConfigSize,
}

impl ConfigBytes {
    /// Takes the bytes from offset 0 on; anything past 4096 is ignored.
    pub fn new(mut bytes: Vec<u8>, size: ConfigSize) -> Self {
        bytes.truncate(4096);
        Self { bytes, size }
    }

    /// As [`new`](Self::new), for files out of archives: archivers pad a file that
    /// turned out shorter than announced (64 bytes read of 4096) with zeros.
    ///
    /// Bytes past 64 are dropped if all are zero although the function announces
    /// a capability list there, since a list cannot start with zero bytes and be
    /// worth announcing; or although there are 4096 of them.
    pub fn from_copied_file(bytes: Vec<u8>) -> Self {
        const STATUS: usize = 0x06;
        const HAS_LIST: u8 = 0x10;
        let announces_list = bytes.get(STATUS).is_some_and(|status| status & HAS_LIST != 0);
        // 4096 bytes without a list are a host bridge's, whose extended space counts.
        let could_hold_more = announces_list || bytes.len() == 4096;
        let padded = could_hold_more && bytes.len() > 64 && bytes[64..].iter().all(|&byte| byte == 0);
        let mut bytes = bytes;
        if padded {
            bytes.truncate(64);
        }
        Self::new(bytes, ConfigSize::Unknown)
    }

    /// The bytes at hand, from offset 0 on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl ConfigSpace for ConfigBytes {
    fn byte(&self, offset: u16) -> Option<u8> {
        self.bytes.get(usize::from(offset)).copied()
    }

    fn size(&self) -> ConfigSize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn zero_padding_of_an_archive_is_not_taken_for_registers() {
        let mut bytes = vec![0u8; 4096];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        let padded = ConfigBytes::from_copied_file(bytes.clone());
        assert_eq!(padded.bytes().len(), 64);
        bytes[0x40] = 0x10;
        let whole = ConfigBytes::from_copied_file(bytes);
        assert_eq!(whole.bytes().len(), 4096);
    }

    #[test]
    fn a_word_that_straddles_the_end_is_not_there() {
        let config = ConfigBytes::new(vec![0x86, 0x80, 0xa2], ConfigSize::Unknown);
        assert_eq!(config.word(0), Some(0x8086));
        assert_eq!(config.word(2), None);
        assert_eq!(config.dword(0xffff), None);
    }
}
