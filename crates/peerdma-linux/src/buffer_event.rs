//! Buffers as a descriptor, for programs that wait with `poll` until a disturbance may happen.

use crate::bell::Bell;
use peerdma::buffer::shared::{Disturbing, Wake};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A descriptor that becomes readable when a disturbance that was announced may have become possible.
///
/// The buffers it was made for write to it when one of them becomes quiet or comes within reach. Read it out by
/// [`silence`](Self::silence), then ask [`Disturbing::try_proceed`]; in the other order a ring between the two is
/// lost. It is an eventfd, so it may be waited for together with others; the deadline is the caller's.
///
/// An importer that lets go only when it is asked to look, as one does that counts accesses in flight, rings
/// nothing: with such importers poll with a short timeout, and look at each end of it.
///
/// ```
/// use peerdma::access::MemAttrs;
/// use peerdma::addr::Bytes;
/// use peerdma::buffer::life::{Answers, Disturbance};
/// use peerdma::buffer::shared::Buffer;
/// use peerdma::buffer::terms::{Offer, Place, Stays};
/// use peerdma::chunk::{Chunk, Chunks};
/// use peerdma::dma::Owner;
/// use peerdma_linux::buffer_event::BufferEvent;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let chunk = Chunk::new(Owner::Ram, Bytes::ZERO, Bytes::new(0x1000), MemAttrs::empty()).ok_or("empty")?;
/// let offer = Offer::new(Chunks::collect_from([chunk])?, Stays::UNTIL_REVOKED, Place::Ram)?;
/// let mut disturbing = Buffer::new("ring", offer, Answers::YES).begin(Disturbance::Reset)?;
///
/// let event = BufferEvent::of(&disturbing)?;
/// let soon = Timespec { tv_sec: 10, tv_nsec: 0 };
/// let quiet = loop {
///     if poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&soon))? == 0 {
///         return Err(format!("{:?}", disturbing.held()).into());
///     }
///     event.silence();
///     match disturbing.try_proceed() {
///         Ok(quiet) => break quiet,
///         Err(still) => disturbing = still,
///     }
/// };
/// quiet.done();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BufferEvent(Arc<Bell>);

impl BufferEvent {
    /// A descriptor for this disturbance; readable at once if it may happen already.
    ///
    /// # Errors
    /// What eventfd(2) answers, mostly that the process has too many descriptors open.
    pub fn of(disturbing: &Disturbing) -> io::Result<Self> {
        let bell = Arc::new(Bell::new()?);
        let wake: Arc<dyn Wake> = Arc::clone(&bell) as _;
        disturbing.wake(&wake);
        Ok(Self(bell))
    }

    /// Takes what was rung; the descriptor is readable again after the next ring. Does not block.
    pub fn silence(&self) {
        self.0.silence();
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.ring();
    }
}

impl AsFd for BufferEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::access::{MemAttrs, Prot};
    use peerdma::addr::Bytes;
    use peerdma::buffer::Lifetime;
    use peerdma::buffer::life::{Answers, Disturbance, Generation};
    use peerdma::buffer::shared::{Buffer, Holder, Importer, Mapped, Receipt};
    use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
    use peerdma::chunk::{Chunk, Chunks};
    use peerdma::dma::{Initiator, Owner, Peers};
    use peerdma::topology::IommuMode;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::thread;

    struct Stubborn;

    impl Importer for Stubborn {
        fn let_go(&self, _: Disturbance, _: Receipt) {}
        fn may_map(&self, _: Generation, _: Receipt) {}
        fn gone(&self) {}
    }

    /// A buffer that somebody has mapped.
    fn mapped() -> Result<(Buffer, Mapped), Box<dyn std::error::Error>> {
        let chunk = Chunk::new(Owner::Ram, Bytes::ZERO, Bytes::new(0x1000), MemAttrs::empty()).ok_or("empty")?;
        let offer = Offer::new(Chunks::collect_from([chunk])?, Stays::UNTIL_REVOKED, Place::Ram)?;
        let buffer = Buffer::new("ring", offer, Answers::YES);
        let nic = Declaration::of_device(Initiator::new("nic", IommuMode::Translated), Prot::ReadWrite);
        let nic = nic.taking(Lifetime::Revocable);
        let seat = buffer.attach(&nic, &Peers::none(), Holder::here("nic"), Arc::new(Stubborn))?;
        let mapped = seat.map()?;
        Ok((buffer, mapped))
    }

    fn is_readable(event: &BufferEvent, seconds: i64) -> io::Result<bool> {
        let soon = Timespec { tv_sec: seconds, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&soon))? == 1)
    }

    #[test]
    fn the_descriptor_is_readable_when_the_last_mapping_is_gone() -> Result<(), Box<dyn std::error::Error>> {
        let (buffer, mapped) = mapped()?;
        let disturbing = buffer.begin(Disturbance::Reset)?;
        let event = BufferEvent::of(&disturbing)?;
        assert!(!is_readable(&event, 0)?);
        let last = thread::spawn(move || drop(mapped));
        assert!(is_readable(&event, 60)?);
        event.silence();
        assert!(!is_readable(&event, 0)?, "rung once, heard once");
        assert!(disturbing.try_proceed().is_ok());
        assert!(last.join().is_ok());
        Ok(())
    }

    #[test]
    fn what_may_happen_already_is_readable_at_once() -> Result<(), Box<dyn std::error::Error>> {
        let (buffer, mapped) = mapped()?;
        drop(mapped);
        assert!(is_readable(&BufferEvent::of(&buffer.begin(Disturbance::Reset)?)?, 0)?);
        Ok(())
    }

    #[test]
    fn a_descriptor_that_was_closed_is_not_written_to() -> Result<(), Box<dyn std::error::Error>> {
        let (buffer, mapped) = mapped()?;
        let disturbing = buffer.begin(Disturbance::Reset)?;
        drop(BufferEvent::of(&disturbing)?);
        drop(mapped);
        assert!(disturbing.try_proceed().is_ok());
        Ok(())
    }
}
