//! Transfers: data pointers by the library's builders, cut at what one command moves.

use super::super::io;
use super::ring::Request;
use super::{Driver, DriverError, Form, PAGE};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule};
use peerdma::dma::consumer::nvme::{Controller, ListPage};
use peerdma::dma::{Behind, DeviceAddress, Span};

/// Words of a page.
const WORDS: usize = PAGE as usize / 8;
/// Blocks that one command can name.
const MOST_BLOCKS: u64 = 1 << 16;

impl Driver<'_> {
    /// Submits one command that reads blocks from `first` on into ranges; the number that its completion
    /// will have. Does not wait.
    ///
    /// Its list lies in the driver's scratch memory until it has ended, so that it is one at a time: begin
    /// no other transfer before [`poll`](Self::poll) has given its completion.
    ///
    /// # Errors
    /// [`DriverError::TooLong`] beyond [`longest`](Self::longest); as [`submit`](Self::submit) and
    /// [`read`](Self::read). Nothing has been submitted then.
    pub fn start_read(
        &mut self,
        queue: u16,
        first: u64,
        into: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<u16, DriverError> {
        self.start((queue, io::READ), first, into, form)
    }

    /// As [`start_read`](Self::start_read), and writes ranges into blocks.
    ///
    /// # Errors
    /// As [`start_read`](Self::start_read).
    pub fn start_write(
        &mut self,
        queue: u16,
        first: u64,
        from: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<u16, DriverError> {
        self.start((queue, io::WRITE), first, from, form)
    }

    /// As [`start_read`](Self::start_read), and compares ranges with blocks.
    ///
    /// The drive reads the ranges for that, and its reads do not overtake what it wrote there before; so a
    /// compare that has ended says that an earlier read's bytes have arrived, which the read's own
    /// completion does not: that goes to another place, by another way.
    ///
    /// # Errors
    /// As [`start_read`](Self::start_read).
    pub fn start_compare(
        &mut self,
        queue: u16,
        first: u64,
        with: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<u16, DriverError> {
        self.start((queue, io::COMPARE), first, with, form)
    }

    fn start(
        &mut self,
        (queue, opcode): (u16, u8),
        first: u64,
        data: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<u16, DriverError> {
        let (total, most) = (self.whole_blocks(data)?, self.most());
        if total > most {
            return Err(DriverError::TooLong { len: Bytes::new(total), most: Bytes::new(most) });
        }
        let request = Request::new(opcode).blocks(first, (total / self.block) as u32);
        let request = self.with_data(request, &spans(data, 0, total), form)?;
        self.submit(queue, request)
    }

    /// Most bytes of one command.
    fn most(&self) -> u64 {
        self.longest.min(MOST_BLOCKS * self.block)
    }

    /// How many bytes the ranges have, which is a multiple of the block size.
    fn whole_blocks(&self, data: &[AddrRange<BusAddr>]) -> Result<u64, DriverError> {
        let total = data.iter().try_fold(Bytes::ZERO, |sum, range| sum.checked_add(range.len()));
        let total = total.unwrap_or(Bytes::new(u64::MAX));
        if total == Bytes::ZERO || total.as_u64() % self.block != 0 {
            return Err(DriverError::NotBlocks { len: total, block: Bytes::new(self.block) });
        }
        Ok(total.as_u64())
    }

    /// Moves data in as many commands as it takes, one after the other.
    pub(super) fn transfer(
        &mut self,
        (queue, opcode): (u16, u8),
        first: u64,
        data: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<(), DriverError> {
        let (total, most, block) = (self.whole_blocks(data)?, self.most(), self.block);
        let mut done = 0;
        while done < total {
            let len = (total - done).min(most);
            let spans = spans(data, done, len);
            let at = first.saturating_add(done / block);
            let request = Request::new(opcode).blocks(at, (len / block) as u32);
            let request = self.with_data(request, &spans, form)?;
            self.perform(queue, request)?;
            done += len;
        }
        Ok(())
    }

    /// Writes the data pointer of a command, and the lists behind it.
    fn with_data(&self, request: Request, spans: &[Span], form: Form) -> Result<Request, DriverError> {
        let controller = Controller::new(Granule::PAGE_4K).ok_or(DriverError::Gone)?;
        // The first page is for admin commands; no list is longer than one entry for each page or span.
        let pages = (self.scratch.len().as_u64() / PAGE - 1).min(1 + self.longest / PAGE + spans.len() as u64);
        let mut words = vec![0; pages as usize * WORDS];
        let mut list: Vec<_> = words
            .chunks_exact_mut(WORDS)
            .enumerate()
            .map(|(index, words)| ListPage { address: self.list_page(index as u64), words })
            .collect();
        let spans = spans.iter().copied();
        let (request, used) = match form {
            Form::Prps => {
                let prps = controller.prps(spans, &mut list)?;
                let second = prps.prp2().map_or(0, |second| second.as_u64());
                let request = request.at(BusAddr::new(prps.prp1().as_u64()), BusAddr::new(second));
                (request, prps.list_pages())
            }
            Form::Sgl => {
                let sgl = controller.sgl(spans, &mut list)?;
                (request.listed(sgl.entry().to_bytes()), sgl.segments())
            }
        };
        // Words are little-endian as they lie in memory.
        let bytes: Vec<u8> = words.iter().take(used * WORDS).flat_map(|word| word.to_ne_bytes()).collect();
        self.scratch.write(Bytes::new(PAGE), &bytes)?;
        Ok(request)
    }

    /// Where the drive finds a page for lists.
    fn list_page(&self, index: u64) -> DeviceAddress {
        let address = self.scratch.device_at(Bytes::new((1 + index) * PAGE));
        DeviceAddress::Bus { address, bridge: None }
    }
}

/// The part of the data from `skip` on, `len` bytes of it.
fn spans(data: &[AddrRange<BusAddr>], skip: u64, len: u64) -> Vec<Span> {
    let (mut skip, mut left, mut at) = (skip, len, 0);
    let mut spans = Vec::new();
    for range in data {
        let here = range.len().as_u64();
        let passed = skip.min(here);
        skip -= passed;
        let len = (here - passed).min(left);
        if len == 0 {
            continue;
        }
        // Inside the range, which does not wrap.
        let address = BusAddr::new(range.start().as_u64() + passed);
        spans.push(Span {
            at: Bytes::new(at),
            address: DeviceAddress::Bus { address, bridge: None },
            len: Bytes::new(len),
            behind: Behind::Memory,
            snooped: true,
            prot: Prot::ReadWrite,
            bounced: false,
        });
        at += len;
        left -= len;
    }
    spans
}
