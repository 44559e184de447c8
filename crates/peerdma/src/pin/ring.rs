//! What a ring is charged for itself.

use crate::addr::{Bytes, Granule};

/// How a ring is made: what `io_uring_setup` is asked for.
///
/// A ring's own memory is charged to the user as what is registered with it is, also where the caller
/// brings the memory (`IORING_SETUP_NO_MMAP`). Two regions, each in whole pages (Linux 6.18 `io_allocate_scq_urings`,
/// `io_create_region`): the heads with the completions and the submission array behind them, and the submissions.
///
/// ```
/// use peerdma::addr::{Bytes, Granule};
/// use peerdma::pin::RingShape;
///
/// assert_eq!(RingShape::new(1).charge(Granule::PAGE_4K), Some(Bytes::new(2 * 4096)));
/// assert_eq!(RingShape::new(4096).charge(Granule::PAGE_4K), Some(Bytes::new(101 * 4096)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RingShape {
    entries: u32,
    completions: Option<u32>,
    wide_submissions: bool,
    wide_completions: bool,
    submission_array: bool,
}

/// `struct io_rings` up to its completions, which begin at a cache line.
const HEADS: u64 = 64;

impl RingShape {
    /// A ring of so many submissions, which the kernel rounds up to a power of two, and twice as many completions.
    pub const fn new(entries: u32) -> Self {
        Self { entries, completions: None, wide_submissions: false, wide_completions: false, submission_array: true }
    }

    /// With so many completions (`IORING_SETUP_CQSIZE`).
    #[must_use]
    pub const fn completions(self, entries: u32) -> Self {
        Self { completions: Some(entries), ..self }
    }

    /// With submissions of 128 bytes (`IORING_SETUP_SQE128`).
    #[must_use]
    pub const fn wide_submissions(self) -> Self {
        Self { wide_submissions: true, ..self }
    }

    /// With completions of 32 bytes (`IORING_SETUP_CQE32`).
    #[must_use]
    pub const fn wide_completions(self) -> Self {
        Self { wide_completions: true, ..self }
    }

    /// Without the array of submissions (`IORING_SETUP_NO_SQARRAY`).
    #[must_use]
    pub const fn no_submission_array(self) -> Self {
        Self { submission_array: false, ..self }
    }

    /// How many submissions it was asked to have.
    pub const fn entries(self) -> u32 {
        self.entries
    }

    /// What the user is charged for it, on a machine of such pages; `None` for a ring of no entries, or of more
    /// than 32768, which is the kernel's limit.
    pub fn charge(self, page: Granule) -> Option<Bytes> {
        const MOST: u32 = 32768;
        let entries = Some(self.entries).filter(|entries| (1..=MOST).contains(entries))?.next_power_of_two();
        let completions = match self.completions {
            Some(completions) => completions.checked_next_power_of_two()?.max(entries),
            None => 2 * entries,
        };
        let (entries, completions) = (u64::from(entries), u64::from(completions));
        let line = |bytes: u64| bytes.next_multiple_of(HEADS);
        let array = if self.submission_array { 4 * entries } else { 0 };
        let rings = line(HEADS + completions * if self.wide_completions { 32 } else { 16 }) + array;
        let submissions = entries * if self.wide_submissions { 128 } else { 64 };
        let pages = |bytes: u64| bytes.next_multiple_of(page.bytes().as_u64());
        Some(Bytes::new(pages(rings) + pages(submissions)))
    }
}
