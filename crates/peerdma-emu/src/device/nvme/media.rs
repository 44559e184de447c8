//! What a drive keeps its blocks in.

use crate::memory::{Memory, Outside};
use crate::wire::Atomic;
use peerdma::addr::Bytes;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// Length of a logical block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BlockSize {
    /// 512 bytes.
    #[default]
    Short,
    /// 4096 bytes.
    Long,
}

impl BlockSize {
    /// The length.
    pub const fn bytes(self) -> Bytes {
        Bytes::new(1 << self.shift())
    }

    pub(super) const fn shift(self) -> u32 {
        match self {
            Self::Short => 9,
            Self::Long => 12,
        }
    }
}

/// The blocks of a namespace, in any memory.
#[derive(Clone, Debug)]
pub struct Media {
    pub(super) memory: Arc<dyn Memory>,
    pub(super) block: BlockSize,
}

impl Media {
    /// As many whole blocks as the memory has.
    pub fn new(memory: Arc<dyn Memory>, block: BlockSize) -> Self {
        Self { memory, block }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.memory.len().as_u64() >> self.block.shift()
    }

    /// Where blocks lie, and how many bytes they are; `None` where not all of them are there.
    pub(super) fn range(&self, first: u64, count: u64) -> Option<(Bytes, u64)> {
        let end = first.checked_add(count)?;
        // Smaller than the memory, so the shifts lose nothing.
        (end <= self.blocks()).then(|| (Bytes::new(first << self.block.shift()), count << self.block.shift()))
    }
}

/// A file as memory, so that a drive's blocks outlive the machine.
///
/// What is written is in the file at once, and on the disk when the system puts it there.
/// Should the file become shorter meanwhile, what is gone reads as zeros.
#[derive(Debug)]
pub struct FileMedia {
    /// Shared for reads, exclusive for writes, which makes each of them one to the others.
    file: RwLock<File>,
    len: Bytes,
}

impl FileMedia {
    /// Opens a file that is there, as long as it is.
    ///
    /// # Errors
    /// That of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = Bytes::new(file.metadata()?.len());
        Ok(Self { file: RwLock::new(file), len })
    }

    /// Creates a file of `len` bytes, all zeros; one that is there is refused.
    ///
    /// # Errors
    /// That of the system.
    pub fn create(path: &Path, len: Bytes) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(len.as_u64())?;
        Ok(Self { file: RwLock::new(file), len })
    }

    fn outside(&self, at: Bytes, len: usize) -> Outside {
        Outside { at, len: Bytes::new(len as u64), size: self.len }
    }
}

/// Fills a buffer from a file; what lies past its end is zeros.
fn read_at(file: &File, at: u64, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => {
                into[done..].fill(0);
                break;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An error of the system is told as [`Outside`], the only one that a memory has.
impl Memory for FileMedia {
    fn len(&self) -> Bytes {
        self.len
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        Outside::check(at, into.len(), self.len)?;
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        read_at(&file, at.as_u64(), into).map_err(|_| self.outside(at, into.len()))
    }

    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        Outside::check(at, from.len(), self.len)?;
        let file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        file.write_all_at(from, at.as_u64()).map_err(|_| self.outside(at, from.len()))
    }

    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        let len = atomic.len().as_u64() as usize;
        Outside::check(at, len, self.len)?;
        if !at.as_u64().is_multiple_of(len as u64) {
            return Err(self.outside(at, len));
        }
        let file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 8];
        let change = |bytes: &mut [u8; 8]| {
            read_at(&file, at.as_u64(), &mut bytes[..len])?;
            let found = u64::from_le_bytes(*bytes);
            file.write_all_at(&atomic.apply(found).to_le_bytes()[..len], at.as_u64())?;
            Ok(found)
        };
        change(&mut bytes).map_err(|_: io::Error| self.outside(at, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Striped;
    use crate::wire::Operand;

    #[test]
    fn a_file_keeps_what_was_written_for_the_next_to_open_it() {
        let path = std::env::temp_dir().join(format!("peerdma-media-{}", std::process::id()));
        let media = FileMedia::create(&path, Bytes::new(8192)).unwrap();
        assert!(FileMedia::create(&path, Bytes::new(1)).is_err(), "a file that is there is not overwritten");
        media.write(Bytes::new(4095), &[1, 2, 3]).unwrap();
        assert_eq!(media.atomic(Bytes::new(4096), Atomic::FetchAdd(Operand::Word(1))), Ok(0x302));
        assert!(media.write(Bytes::new(8191), &[1, 2]).is_err());
        assert!(media.atomic(Bytes::new(4097), Atomic::FetchAdd(Operand::Word(1))).is_err());
        drop(media);
        let media = FileMedia::open(&path).unwrap();
        let shorter = OpenOptions::new().write(true).open(&path).unwrap();
        shorter.set_len(4097).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut bytes = [9; 4];
        media.read(Bytes::new(4094), &mut bytes).unwrap();
        assert_eq!((media.len(), bytes), (Bytes::new(8192), [0, 1, 3, 0]));
    }

    #[test]
    fn blocks_past_the_end_are_not_there_whatever_their_number() {
        let media = Media::new(Arc::new(Striped::new(Bytes::new(4096 + 511))), BlockSize::Short);
        assert_eq!(media.blocks(), 8);
        assert_eq!(media.range(7, 1), Some((Bytes::new(3584), 512)));
        for (first, count) in [(7, 2), (8, 1), (u64::MAX, 1), (u64::MAX >> 9, 1 << 60)] {
            assert_eq!(media.range(first, count), None, "{first} {count}");
        }
    }
}
