//! One message on a socket, with what comes along: descriptors, and who sent it.

use peerdma::buffer::wire::MAX_LEN;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors that are received with one message at most. The kernel closes those beyond.
const ROOM: usize = 4;

/// What came.
#[derive(Debug)]
pub(super) struct Packet {
    /// The bytes; one more than any message may have where there were more.
    pub(super) bytes: Vec<u8>,
    /// Descriptors that came along, open for this process now.
    pub(super) descriptors: Vec<OwnedFd>,
    /// How many were sent, as far as is known: more than arrived if there was no room.
    pub(super) sent: usize,
    /// The process that sent it, where the socket asks for that and the process is visible from here.
    pub(super) sender: Option<u32>,
}

/// Takes one message if there is one; never blocks.
///
/// `None` when the other end is closed. An empty packet looks the same, and is no message either.
///
/// # Errors
/// `EAGAIN` if there is none.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Packet>, Errno> {
    let mut bytes = vec![0; MAX_LEN + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM), ScmCredentials(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let came = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut along, flags) {
        // A peer that died with messages of ours unread is gone like any other.
        Err(Errno::CONNRESET) => return Ok(None),
        came => came?,
    };
    let (mut descriptors, mut sender) = (Vec::new(), None);
    for message in along.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
            RecvAncillaryMessage::ScmCredentials(who) => sender = u32::try_from(who.pid.as_raw_pid()).ok(),
            _ => {}
        }
    }
    if came.bytes == 0 {
        return Ok(None);
    }
    let sent = descriptors.len() + usize::from(came.flags.contains(ReturnFlags::CTRUNC));
    bytes.truncate(came.bytes);
    Ok(Some(Packet { bytes, descriptors, sent, sender }))
}

/// Sends one message; never blocks.
///
/// # Errors
/// `EAGAIN` while the other end has too much to read, `EPIPE` and `ECONNRESET` once it is closed.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !along.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut along, flags).map(|_| ())
}
