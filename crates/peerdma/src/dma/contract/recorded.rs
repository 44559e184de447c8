//! The recording space as a fixture of the contract suite.

use super::{Access, Fixture, Lent};
use crate::access::MemAttrs;
use crate::addr::{AddrRange, Bytes, Iova, ProcVa};
use crate::dma::io_space::{Source, SourceKind};
use crate::dma::recording::{FileId, FileKind, ProcessKind, RecordingSpace};

/// Where the process's memory lies.
const MEMORY: ProcVa = ProcVa::new(0x7f00_0000_0000);

/// How much of it there is, and how long the file is.
const LENGTH: Bytes = Bytes::new(1 << 16);

/// A [`RecordingSpace`] with some memory and a dma-buf; it answers every question.
#[derive(Clone, Debug)]
pub struct Recorded {
    space: RecordingSpace,
    file: FileId,
}

impl Recorded {
    /// Adds memory and a file to a space for the suite to map.
    pub fn new(mut space: RecordingSpace) -> Self {
        if let Some(range) = AddrRange::new(MEMORY, LENGTH) {
            space.add_process(range, ProcessKind::Memory);
        }
        let file = space.add_file(FileKind::VfioDmabuf, LENGTH);
        Self { space, file }
    }

    /// The space, with all that it recorded.
    pub fn into_space(self) -> RecordingSpace {
        self.space
    }
}

impl Fixture for Recorded {
    type Space = RecordingSpace;

    fn space(&mut self) -> &mut RecordingSpace {
        &mut self.space
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<FileId>> {
        let (source, attrs) = match kind {
            SourceKind::Physical => return None,
            SourceKind::Process => (Source::Process(MEMORY), MemAttrs::empty()),
            SourceKind::File => (Source::File { file: self.file, offset: Bytes::ZERO }, MemAttrs::MMIO),
        };
        Some(Lent { source, len: LENGTH, attrs })
    }

    fn reaches(&mut self, iova: Iova, source: &Source<FileId>, access: Access) -> Option<bool> {
        let at = self.space.translate(iova);
        Some(at.is_some_and(|at| at.source == *source && access.is_permitted_by(at.prot)))
    }
}
