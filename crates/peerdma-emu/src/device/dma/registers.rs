//! Registers of the DMA engine, in BAR 0, each of 8 bytes.
//!
//! A job is written into the registers from [`SOURCE`] to [`CONTROL`] and started by a write to
//! [`COMMAND`]. They must not change before [`STATUS`] says that the job has ended; a command
//! that is written meanwhile is dropped.

use peerdma::addr::Bytes;

/// Where a copy reads.
pub const SOURCE: Bytes = Bytes::new(0x00);
/// Where a copy or a fill writes, and where an AtomicOp goes.
pub const DESTINATION: Bytes = Bytes::new(0x08);
/// How many bytes a copy or a fill moves; any number.
pub const LENGTH: Bytes = Bytes::new(0x10);
/// What a fill repeats (8 bytes), what a doorbell is rung with, what an AtomicOp adds or puts.
pub const VALUE: Bytes = Bytes::new(0x18);
/// What a compare-and-swap expects.
pub const EXPECTED: Bytes = Bytes::new(0x20);
/// Which address a doorbell has.
pub const BELL: Bytes = Bytes::new(0x28);
/// How requests are sent: the bits below.
pub const CONTROL: Bytes = Bytes::new(0x30);
/// Starts a job: one of the commands below.
pub const COMMAND: Bytes = Bytes::new(0x38);
/// How the job stands; bits 7:0 are one of the states below, bits 15:8 why it failed.
pub const STATUS: Bytes = Bytes::new(0x40);
/// How many bytes the job has moved.
pub const MOVED: Bytes = Bytes::new(0x48);
/// What an AtomicOp found.
pub const RESULT: Bytes = Bytes::new(0x50);
/// How many jobs have ended since the reset.
pub const FINISHED: Bytes = Bytes::new(0x58);
/// How long all registers are.
pub const LEN: Bytes = Bytes::new(0x60);

/// Copies.
pub const COPY: u64 = 1;
/// Fills with [`VALUE`].
pub const FILL: u64 = 2;
/// Copies, then writes [`VALUE`] to [`BELL`].
pub const COPY_THEN_RING: u64 = 3;
/// Writes [`VALUE`] to [`BELL`].
pub const RING: u64 = 4;
/// Adds [`VALUE`].
pub const FETCH_ADD: u64 = 5;
/// Puts [`VALUE`].
pub const SWAP: u64 = 6;
/// Puts [`VALUE`] where [`EXPECTED`] stands.
pub const COMPARE_SWAP: u64 = 7;

/// State: nothing was ever asked.
pub const IDLE: u64 = 0;
/// State: at work.
pub const BUSY: u64 = 1;
/// State: all done.
pub const DONE: u64 = 2;
/// State: ended by a failure.
pub const FAILED: u64 = 3;

/// Control, bits 19:0: the PASID.
pub const PASID: u64 = 0xf_ffff;
/// Control: requests name the PASID.
pub const WITH_PASID: u64 = 1 << 20;
/// Control: Relaxed Ordering.
pub const RELAXED: u64 = 1 << 21;
/// Control: No Snoop.
pub const NO_SNOOP: u64 = 1 << 22;
/// Control: with the rights of a supervisor; with a PASID only.
pub const PRIVILEGED: u64 = 1 << 23;
/// Control: asks for the translation of each address (ATS), and sends what came of it.
pub const TRANSLATE: u64 = 1 << 24;
/// Control: sends the addresses as they are and says that they are translated.
pub const TRANSLATED: u64 = 1 << 25;
/// Control: doorbells and AtomicOps are 4 bytes wide, not 8.
pub const NARROW: u64 = 1 << 26;
/// Control: reads the payload's last byte before it rings.
pub const READ_BACK: u64 = 1 << 27;
/// Control: from within the trusted device interface.
pub const TRUSTED: u64 = 1 << 28;
/// Control: interrupts when the job has ended.
pub const INTERRUPT: u64 = 1 << 31;
/// Control: lowest of the 16 bits that are the vector.
pub const VECTOR_SHIFT: u32 = 32;
