//! AtomicOps (PCIe 6.0 §6.15): read, change, write, in one.

use peerdma::addr::Bytes;

/// An operand of 32 or 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Operand {
    /// Four bytes.
    Word(u32),
    /// Eight bytes.
    Double(u64),
}

impl Operand {
    /// Four or eight bytes.
    pub const fn len(self) -> Bytes {
        match self {
            Self::Word(_) => Bytes::new(4),
            Self::Double(_) => Bytes::new(8),
        }
    }

    /// Never: an operand has four bytes at least.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The value, whatever its width.
    pub const fn value(self) -> u64 {
        match self {
            Self::Word(value) => value as u64,
            Self::Double(value) => value,
        }
    }

    /// `value` cut to this operand's width.
    #[must_use]
    pub const fn of_width(self, value: u64) -> Self {
        match self {
            Self::Word(_) => Self::Word(value as u32),
            Self::Double(_) => Self::Double(value),
        }
    }
}

/// What an AtomicOp does with the value that it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Atomic {
    /// Adds, wrapping.
    FetchAdd(Operand),
    /// Replaces.
    Swap(Operand),
    /// Replaces if the value equals the first; the second has the same width.
    CompareSwap {
        /// What is expected.
        expected: Operand,
        /// What takes its place, cut to the width of `expected`.
        new: u64,
    },
}

impl Atomic {
    /// Width of the value in memory.
    pub const fn len(self) -> Bytes {
        self.operand().len()
    }

    /// Never.
    pub const fn is_empty(self) -> bool {
        false
    }

    const fn operand(self) -> Operand {
        match self {
            Self::FetchAdd(operand) | Self::Swap(operand) | Self::CompareSwap { expected: operand, .. } => operand,
        }
    }

    /// What stands in memory afterwards, if `found` stood there before.
    pub const fn apply(self, found: u64) -> u64 {
        match self {
            Self::FetchAdd(operand) => operand.of_width(found.wrapping_add(operand.value())).value(),
            Self::Swap(operand) => operand.value(),
            Self::CompareSwap { expected, new } => {
                if expected.of_width(found).value() == expected.value() {
                    expected.of_width(new).value()
                } else {
                    found
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_wrap_at_the_width_of_the_operand() {
        assert_eq!(Atomic::FetchAdd(Operand::Word(2)).apply(0xffff_ffff), 1);
        assert_eq!(Atomic::FetchAdd(Operand::Double(2)).apply(0xffff_ffff), 0x1_0000_0001);
    }

    #[test]
    fn a_comparison_that_fails_changes_nothing() {
        let swap = Atomic::CompareSwap { expected: Operand::Word(5), new: 0x1_0000_0007 };
        assert_eq!((swap.apply(5), swap.apply(6)), (7, 6));
    }
}
