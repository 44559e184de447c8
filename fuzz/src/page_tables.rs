//! Page tables: operations held against an oracle, and walks through hostile tables.

#[expect(dead_code, reason = "the oracle is the tests'; a fuzzer has no literals to compare")]
#[path = "../../crates/peerdma/tests/iopt_cases/oracle/mod.rs"]
mod oracle;

use oracle::sequence::{BYTES, drawn, run};
use oracle::shapes::shapes;
use peerdma::addr::{Iova, PhysAddr};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, ArmStage2, Format, Frame, Pages4K, Pages16K, Pages64K, Root, TableMemory,
    VtdOptions, VtdSecondStage, Walk, X86FirstStage, X86Options, walk_tables,
};
use std::sync::atomic::AtomicU64;

/// Operations of one input; what they do grows with what is mapped.
const MOST: usize = 48;

/// Reads an input as operations on one of the formats and holds each against the oracle.
///
/// The first byte says which format, and whether every allocation fails once. Answers how many
/// operations there were.
///
/// # Panics
/// Where page tables and oracle disagree.
pub fn operate(data: &[u8]) -> usize {
    let Some((first, rest)) = data.split_first() else { return 0 };
    let shapes = shapes();
    let (name, shape) = &shapes[usize::from(first & 0x7f) % shapes.len()];
    let ops = drawn(shape, rest.as_chunks::<BYTES>().0.iter().copied().take(MOST));
    if let Err(why) = run(shape, &ops, first & 0x80 != 0) {
        panic!("{name}: {why}\nof {ops:#x?}");
    }
    ops.len()
}

/// Frames that somebody else has written.
struct Hostile {
    frames: Vec<Box<Frame>>,
}

/// Few, so that entries hit them.
const FRAMES: usize = 4;

impl Hostile {
    /// Frames of these bytes, again and again; `None` without a word.
    fn new(data: &[u8]) -> Option<Self> {
        let words: Vec<u64> = data.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        if words.is_empty() {
            return None;
        }
        // No two frames alike, whatever the number of words.
        let word = |frame: usize, index: usize| AtomicU64::new(words[(index + frame * (index | 1)) % words.len()]);
        let frames = (0..FRAMES).map(|frame| Box::new(std::array::from_fn(|index| word(frame, index))));
        Some(Self { frames: frames.collect() })
    }
}

impl TableMemory for Hostile {
    fn allocate(&self, _count: usize) -> Option<PhysAddr> {
        None
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        // Every page of memory is one of them, up to a place where there is none.
        let page = at.as_u64() >> 12;
        (page & 0x1f != 0x1f).then(|| &*self.frames[page as usize % FRAMES])
    }

    fn free(&self, _at: PhysAddr, _count: usize) {}
}

/// Walks tables that consist of the input, from any root, in every format.
///
/// Answers how many walks led to memory.
pub fn walk(data: &[u8]) -> usize {
    let Some((head, words)) = data.split_first_chunk::<16>() else { return 0 };
    let Some(memory) = Hostile::new(words) else { return 0 };
    let (iova, at) = head.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (iova, at) = (number(iova), PhysAddr::new(number(at) & !0xff));
    let height = head[15] & 7;
    let arm = ArmOptions::default();
    let of_64k = ArmOptions { input_bits: 52, output_bits: 52, ..arm };
    let of_40 = ArmOptions { input_bits: 40, output_bits: 40, ..arm };
    let shaped = [
        VtdSecondStage::new(VtdOptions::default()).ok().map(|format| probe(&format, &memory, at, height, iova)),
        X86FirstStage::new(X86Options::default()).ok().map(|format| probe(&format, &memory, at, height, iova)),
        AmdV1::new(AmdOptions::default()).ok().map(|format| probe(&format, &memory, at, height, iova)),
        ArmStage1::<Pages4K>::new(arm).ok().map(|format| probe(&format, &memory, at, height, iova)),
        ArmStage1::<Pages64K>::new(of_64k).ok().map(|format| probe(&format, &memory, at, height, iova)),
        ArmStage2::<Pages4K>::new(of_40).ok().map(|format| probe(&format, &memory, at, height, iova)),
        ArmStage2::<Pages16K>::new(of_40).ok().map(|format| probe(&format, &memory, at, height, iova)),
    ];
    shaped.into_iter().map(|walked| walked.unwrap_or_else(|| panic!("a usual shape is refused"))).sum()
}

/// Walks to an IOVA and to its neighbours in each table.
fn probe<F: Format>(format: &F, memory: &Hostile, at: PhysAddr, height: u8, iova: u64) -> usize {
    let root = Root::at_height(format, at, height);
    let walk = |iova: u64| -> Walk { walk_tables(format, memory, root, Iova::new(iova)) };
    let mut translated = 0;
    for bit in 12..64 {
        let Ok(found) = walk(iova ^ 1 << bit) else { continue };
        translated += 1;
        let within = found.page_size.as_u64() - 1;
        assert_eq!(found.pa.as_u64() & within, (iova ^ 1 << bit) & within, "a page is congruent to its IOVA");
        let output = format.shape().output_bits();
        assert_eq!(found.pa.as_u64() >> output, 0, "an address has no more than its {output} bits");
    }
    translated
}
