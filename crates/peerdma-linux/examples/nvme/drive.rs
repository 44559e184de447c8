//! A controller with one pair of queues for administration and one for data, one command at a time.

use super::Outcome;
use super::bell::Ring;
use peerdma::addr::{Bytes, ProcVa};
use peerdma::dma::DeviceAddress;
use peerdma::dma::consumer::nvme::Prps;
use peerdma::pcie::PciAddr;
use peerdma_linux::pool::Buffer;
use peerdma_linux::vfio::{BarIndex, BarMapping, BarRange, Command, VfioDevice};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Registers (§3.1.3), and where doorbells begin.
const CAP: Bytes = Bytes::new(0);
const CC: Bytes = Bytes::new(0x14);
const CSTS: Bytes = Bytes::new(0x1c);
const AQA: Bytes = Bytes::new(0x24);
const ASQ: Bytes = Bytes::new(0x28);
const ACQ: Bytes = Bytes::new(0x30);
pub(crate) const DOORBELLS: Bytes = Bytes::new(0x1000);

/// Entries of each queue.
const DEPTH: u16 = 16;
/// Places in the block of the pool, a page each: both pairs of queues, an answer, a list.
pub(crate) const PAGE: Bytes = Bytes::new(0x1000);
const STEP: u64 = PAGE.as_u64();
const ANSWER: Bytes = Bytes::new(4 * STEP);
pub(crate) const LIST: Bytes = Bytes::new(5 * STEP);

/// How long a command, or the controller, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A controller that runs. Dropped, it is stopped, and reaches nothing from then on.
pub(crate) struct Drive<'a> {
    /// Its registers; keeps the device open.
    registers: BarMapping,
    device: VfioDevice,
    memory: &'a Buffer,
    start: DeviceAddress,
    /// Bytes between two doorbells.
    stride: u64,
    admin: Pair,
    data: Pair,
    model: String,
    longest: Bytes,
    blocks: u64,
    block: Bytes,
}

/// A submission queue and its completion queue.
#[derive(Clone, Copy)]
struct Pair {
    id: u16,
    tail: u16,
    head: u16,
    /// What new completions have in their phase bit.
    phase: bool,
}

impl Pair {
    const fn new(id: u16) -> Self {
        Self { id, tail: 0, head: 0, phase: true }
    }

    fn submissions(self) -> Bytes {
        Bytes::new(u64::from(self.id) * 2 * STEP)
    }

    fn completions(self) -> Bytes {
        Bytes::new((u64::from(self.id) * 2 + 1) * STEP)
    }
}

/// The address so far behind another.
pub(crate) fn beyond(start: DeviceAddress, offset: Bytes) -> Outcome<DeviceAddress> {
    Ok(start.checked_add(offset).ok_or("an address wraps")?)
}

impl<'a> Drive<'a> {
    /// Starts a controller whose queues lie in `memory`, which it sees from `start` on.
    pub(crate) fn start(device: VfioDevice, memory: &'a Buffer, start: DeviceAddress) -> Outcome<Self> {
        device.set_command(Command::MEMORY | Command::BUS_MASTER)?;
        let registers = BarIndex::new(0).and_then(|bar| BarRange::new(bar, Bytes::ZERO, Bytes::new(2 * STEP)));
        let registers = device.map(registers.ok_or("no such range")?)?;
        let cap = registers.load_u64(CAP)?;
        let (admin, data) = (Pair::new(0), Pair::new(1));
        let stride = 4 << (cap >> 32 & 0xf);
        let (model, longest, block) = (String::new(), Bytes::ZERO, Bytes::ZERO);
        let mut drive =
            Self { registers, device, memory, start, stride, admin, data, model, longest, blocks: 0, block };
        drive.enable()?;
        drive.identify(cap)?;
        drive.make_queues()?;
        Ok(drive)
    }

    /// §3.5.1, in the order that it gives.
    fn enable(&mut self) -> Outcome<()> {
        self.stop()?;
        self.memory.write(Bytes::ZERO, &vec![0; 4 * STEP as usize])?;
        let entries = u32::from(DEPTH - 1);
        self.registers.store_u32(AQA, entries << 16 | entries)?;
        self.registers.store_u64(ASQ, beyond(self.start, self.admin.submissions())?.as_u64())?;
        self.registers.store_u64(ACQ, beyond(self.start, self.admin.completions())?.as_u64())?;
        // Entries of 64 and 16 bytes, pages of 4 KiB, the NVM command set.
        self.registers.store_u32(CC, 6 << 16 | 4 << 20 | 1)?;
        self.wait_ready(true)
    }

    fn stop(&self) -> Outcome<()> {
        self.registers.store_u32(CC, 0)?;
        self.wait_ready(false)
    }

    fn wait_ready(&self, ready: bool) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.registers.load_u32(CSTS)?;
            if status == u32::MAX {
                return Err("the controller answers no more".into());
            }
            if status & 2 != 0 && ready {
                return Err("the controller reports a fatal status (CSTS.CFS)".into());
            }
            if (status & 1 == 1) == ready {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the controller does not become ready = {ready}").into());
            }
            std::thread::yield_now();
        }
    }

    fn identify(&mut self, cap: u64) -> Outcome<()> {
        let controller = self.answer(0, 1)?;
        let text = controller.get(24..64).ok_or("a short answer")?;
        self.model = String::from_utf8_lossy(text).trim().to_string();
        // In units of the smallest page that it takes; 0 is without limit (figure 275).
        let shift = controller.get(77).copied().unwrap_or(0);
        let unit = 4096_u64 << (cap >> 48 & 0xf);
        let longest = if shift == 0 { None } else { unit.checked_mul(1_u64.checked_shl(shift.into()).unwrap_or(0)) };
        self.longest = Bytes::new(longest.unwrap_or(u64::MAX));
        let namespace = self.answer(1, 0)?;
        let field = |at: usize, len: usize| namespace.get(at..at + len).ok_or("a short answer");
        self.blocks = u64::from_le_bytes(field(0, 8)?.try_into()?);
        let format = usize::from(field(26, 1)?[0] & 0xf);
        let shift = field(128 + 4 * format + 2, 1)?[0];
        self.block =
            Bytes::new(1_u64.checked_shl(shift.into()).filter(|size| *size <= STEP).ok_or("a block size of its own")?);
        Ok(())
    }

    /// The page that Identify of this kind gives.
    fn answer(&mut self, namespace: u32, kind: u32) -> Outcome<Vec<u8>> {
        let prp = beyond(self.start, ANSWER)?.as_u64();
        self.admin(Entry { opcode: 6, namespace, prps: [prp, 0], words: [kind, 0, 0] })?;
        let mut page = vec![0; STEP as usize];
        self.memory.read(ANSWER, &mut page)?;
        Ok(page)
    }

    /// One pair, without interrupts.
    fn make_queues(&mut self) -> Outcome<()> {
        let size = u32::from(DEPTH - 1) << 16 | u32::from(self.data.id);
        let completions = beyond(self.start, self.data.completions())?.as_u64();
        self.admin(Entry { opcode: 5, namespace: 0, prps: [completions, 0], words: [size, 1, 0] })?;
        let submissions = beyond(self.start, self.data.submissions())?.as_u64();
        let words = [size, u32::from(self.data.id) << 16 | 1, 0];
        self.admin(Entry { opcode: 1, namespace: 0, prps: [submissions, 0], words })
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn longest(&self) -> Bytes {
        self.longest
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(crate) fn block(&self) -> Bytes {
        self.block
    }

    /// Reads blocks from number `first` on, to where `prps` says.
    pub(crate) fn read(&mut self, first: u64, prps: &Prps, len: Bytes) -> Outcome<()> {
        self.transfer(2, first, prps, len)
    }

    /// Writes blocks from number `first` on, from where `prps` says.
    pub(crate) fn write(&mut self, first: u64, prps: &Prps, len: Bytes) -> Outcome<()> {
        self.transfer(1, first, prps, len)
    }

    /// The same, but the drive is told of the command by `ring`.
    pub(crate) fn read_rung(&mut self, first: u64, prps: &Prps, len: Bytes, ring: &mut Ring<'_>) -> Outcome<()> {
        let entry = self.moving(2, first, prps, len)?;
        let mut pair = self.data;
        let doorbell = Bytes::new(u64::from(pair.id) * 2 * self.stride);
        let done = self.put(&mut pair, &entry).and_then(|()| ring(doorbell, pair.tail));
        let done = done.and_then(|()| self.completion(&mut pair, entry.opcode));
        self.data = pair;
        done
    }

    /// Its address.
    pub(crate) fn address(&self) -> PciAddr {
        self.device.address()
    }

    /// Where its page of doorbells is mapped.
    pub(crate) fn doorbells(&self) -> Outcome<ProcVa> {
        let range = BarIndex::new(0).and_then(|bar| BarRange::new(bar, DOORBELLS, PAGE)).ok_or("no such range")?;
        Ok(self.registers.process_range(range).ok_or("the mapping lacks its doorbells")?.start())
    }

    /// Has what was written be on the medium.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        self.data(Entry { opcode: 0, namespace: 1, prps: [0; 2], words: [0; 3] })
    }

    fn transfer(&mut self, opcode: u8, first: u64, prps: &Prps, len: Bytes) -> Outcome<()> {
        let entry = self.moving(opcode, first, prps, len)?;
        self.data(entry)
    }

    /// A command that moves data.
    fn moving(&self, opcode: u8, first: u64, prps: &Prps, len: Bytes) -> Outcome<Entry> {
        if prps.len() != len {
            return Err(format!("the data has {}, and the command is for {len}", prps.len()).into());
        }
        let count = u32::try_from(len.as_u64() / self.block.as_u64())?.checked_sub(1).ok_or("no blocks")?;
        let prps = [prps.prp1().as_u64(), prps.prp2().map_or(0, DeviceAddress::as_u64)];
        Ok(Entry { opcode, namespace: 1, prps, words: [first as u32, (first >> 32) as u32, count] })
    }

    fn admin(&mut self, entry: Entry) -> Outcome<()> {
        let mut pair = self.admin;
        let done = self.submit(&mut pair, entry);
        self.admin = pair;
        done
    }

    fn data(&mut self, entry: Entry) -> Outcome<()> {
        let mut pair = self.data;
        let done = self.submit(&mut pair, entry);
        self.data = pair;
        done
    }

    fn submit(&self, pair: &mut Pair, entry: Entry) -> Outcome<()> {
        self.put(pair, &entry)?;
        self.ring(u64::from(pair.id) * 2, pair.tail)?;
        self.completion(pair, entry.opcode)
    }

    /// Puts an entry where the drive looks when it is told.
    fn put(&self, pair: &mut Pair, entry: &Entry) -> Outcome<()> {
        let place = Bytes::new(pair.submissions().as_u64() + u64::from(pair.tail) * 64);
        self.memory.write(place, &entry.to_bytes(pair.tail))?;
        pair.tail = (pair.tail + 1) % DEPTH;
        // The drive reads the entry after it sees the doorbell.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Waits for the one command that is under way.
    fn completion(&self, pair: &mut Pair, opcode: u8) -> Outcome<()> {
        let place = Bytes::new(pair.completions().as_u64() + u64::from(pair.head) * 16);
        let until = Instant::now() + PATIENCE;
        let status = loop {
            let mut word = [0; 4];
            self.memory.read(Bytes::new(place.as_u64() + 12), &mut word)?;
            let word = u32::from_le_bytes(word);
            if (word >> 16 & 1 == 1) == pair.phase {
                break word >> 17;
            }
            if Instant::now() > until {
                return Err(format!("the drive does not answer command {:#04x}", opcode).into());
            }
            std::thread::yield_now();
        };
        // What the drive wrote before the completion is read after it.
        fence(Ordering::SeqCst);
        pair.head = (pair.head + 1) % DEPTH;
        pair.phase ^= pair.head == 0;
        self.ring(u64::from(pair.id) * 2 + 1, pair.head)?;
        match status & 0x7ff {
            0 => Ok(()),
            status => {
                Err(format!("the drive refuses command {:#04x} with status {status:#05x} (figure 92)", opcode).into())
            }
        }
    }

    fn ring(&self, doorbell: u64, value: u16) -> Outcome<()> {
        Ok(self.registers.store_u32(Bytes::new(DOORBELLS.as_u64() + doorbell * self.stride), value.into())?)
    }
}

impl Drop for Drive<'_> {
    fn drop(&mut self) {
        // Whether it stops or not, without bus mastering it reaches nothing.
        let _ = self.stop();
        let _ = self.device.clear_command(Command::BUS_MASTER);
    }
}

/// A submission queue entry, as far as it is used (figure 87).
struct Entry {
    opcode: u8,
    namespace: u32,
    prps: [u64; 2],
    words: [u32; 3],
}

impl Entry {
    fn to_bytes(&self, id: u16) -> [u8; 64] {
        let mut bytes = [0; 64];
        let mut put = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        };
        put(0, &[self.opcode, 0]);
        put(2, &id.to_le_bytes());
        put(4, &self.namespace.to_le_bytes());
        put(24, &self.prps[0].to_le_bytes());
        put(32, &self.prps[1].to_le_bytes());
        for (nth, word) in self.words.iter().enumerate() {
            put(40 + 4 * nth, &word.to_le_bytes());
        }
        bytes
    }
}
