//! What goes through the buffer: batches, in two halves that take turns.

use peerdma::addr::Bytes;

/// Halves of the buffer.
pub(super) const HALVES: u64 = 2;

/// What one half holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    Empty,
    /// A batch is on its way there.
    Filling(u64),
    /// A batch is there.
    Full(u64),
    /// A batch is being read.
    Sending(u64),
}

/// Batches on their way through the buffer, each through the half that its number says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stream {
    halves: [Half; HALVES as usize],
    batch: Bytes,
    batches: u64,
    /// The next to be filled.
    next: u64,
    /// Those that have been sent.
    sent: u64,
}

impl Stream {
    pub(super) fn new(batch: Bytes, batches: u64) -> Self {
        Self { halves: [Half::Empty; HALVES as usize], batch, batches, next: 0, sent: 0 }
    }

    /// Where in the buffer a batch goes.
    pub(super) fn at(&self, number: u64) -> Bytes {
        Bytes::new(number % HALVES * self.batch.as_u64())
    }

    pub(super) fn batch(&self) -> Bytes {
        self.batch
    }

    /// How many have arrived at their end.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn is_done(&self) -> bool {
        self.sent == self.batches
    }

    /// The batch that can be filled now, which is then being filled.
    pub(super) fn fill(&mut self) -> Option<u64> {
        let (number, batches) = (self.next, self.batches);
        let half = self.half(number);
        if number >= batches || *half != Half::Empty {
            return None;
        }
        *half = Half::Filling(number);
        self.next += 1;
        Some(number)
    }

    pub(super) fn filled(&mut self, number: u64) {
        *self.half(number) = Half::Full(number);
    }

    /// The batch that can be sent now, which is then being sent. They go in their order.
    pub(super) fn send(&mut self) -> Option<u64> {
        let number = self.sent;
        let half = self.half(number);
        if *half != Half::Full(number) {
            return None;
        }
        *half = Half::Sending(number);
        Some(number)
    }

    pub(super) fn was_sent(&mut self, number: u64) {
        *self.half(number) = Half::Empty;
        self.sent += 1;
    }

    /// Whether somebody is at it.
    pub(super) fn is_busy(&self) -> bool {
        self.halves.iter().any(|half| matches!(half, Half::Filling(_) | Half::Sending(_)))
    }

    /// The bytes are gone, while nobody is at them: what was there is filled once more. How many batches.
    pub(super) fn lost(&mut self) -> u64 {
        let mut lost = 0;
        for half in &mut self.halves {
            if let Half::Full(number) = *half {
                lost += 1;
                self.next = self.next.min(number);
                *half = Half::Empty;
            }
        }
        lost
    }

    fn half(&mut self, number: u64) -> &mut Half {
        &mut self.halves[(number % HALVES) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_sent_in_their_order_and_what_was_lost_is_filled_once_more() {
        let mut stream = Stream::new(Bytes::new(4096), 3);
        assert_eq!((stream.fill(), stream.fill(), stream.fill()), (Some(0), Some(1), None));
        stream.filled(1);
        assert_eq!(stream.send(), None);
        stream.filled(0);
        assert_eq!(stream.lost(), 2);
        assert_eq!((stream.fill(), stream.send()), (Some(0), None));
        stream.filled(0);
        assert_eq!((stream.send(), stream.is_busy()), (Some(0), true));
        stream.was_sent(0);
        assert_eq!((stream.fill(), stream.fill()), (Some(1), Some(2)));
        for number in [1, 2] {
            stream.filled(number);
            assert_eq!(stream.send(), Some(number));
            stream.was_sent(number);
        }
        assert!(stream.is_done() && !stream.is_busy() && stream.fill().is_none());
    }
}
