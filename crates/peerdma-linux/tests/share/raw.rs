//! The protocol by hand, for peers that break it.

use super::cooperative;
use peerdma::buffer::wire::{Hello, Map, Message, RequestId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketType, connect, recvmsg, sendmsg, socket,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A connection on which nothing was said, which blocks.
pub(crate) fn connection(path: &Path) -> OwnedFd {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || along.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL).map(|_| ())
}

/// Waits for a message; `None` at the end.
fn take(socket: BorrowedFd<'_>) -> Option<(Message, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    // The kernel may show an end before what was said last, and errors before both.
    let mut ends = 0;
    let got = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut along, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&socket, PollFlags::IN)], None)),
            Err(Errno::CONNRESET) => {}
            got if got.as_ref().is_ok_and(|got| got.bytes == 0) && ends < 2 => ends += 1,
            got => break got.unwrap().bytes,
        }
    };
    let mut descriptors = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    (got > 0).then(|| (Message::decode(&bytes[..got]).unwrap(), descriptors))
}

/// The next message; `None` at the end.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Option<Message> {
    take(socket).map(|(message, _)| message)
}

/// Attaches by hand; the control descriptor.
pub(crate) fn attach(path: &Path) -> OwnedFd {
    let connection = connection(path);
    send(connection.as_fd(), &Message::Hello(Hello::new()).encode(), &[]).unwrap();
    assert!(matches!(receive(connection.as_fd()), Some(Message::Welcome(_))));
    assert!(matches!(receive(connection.as_fd()), Some(Message::Offer(_))));
    send(connection.as_fd(), &Message::Declare(cooperative("raw")).encode(), &[]).unwrap();
    let (terms, mut descriptors) = take(connection.as_fd()).unwrap();
    assert!(matches!(terms, Message::Terms(_)) && descriptors.len() == 2);
    descriptors.pop().unwrap()
}

/// Asks for mappings until it is cut off, and reads no answer.
pub(crate) fn flood(control: BorrowedFd<'_>) {
    for number in 1.. {
        let ask = Message::Map(Map { request: RequestId::new(number) }).encode();
        match send(control, &ask, &[]) {
            Ok(()) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&control, PollFlags::OUT)], None)),
            Err(_) => return,
        }
    }
}
