//! Makes a soft-RoCE adapter on a network interface, as `rdma link add NAME type rxe netdev INTERFACE` does.
//!
//! One netlink message with three texts (Linux 7.3 `nldev_newlink`, which looks for the interface in the namespace of whoever
//! sends it).

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, sendto, socket};
use std::io;

/// `RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK)`.
const NEW_LINK: u16 = (5 << 10) + 3;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACKNOWLEDGED: u16 = 1 | 4;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `RDMA_NLDEV_ATTR_DEV_NAME`, `_NDEV_NAME` and `_LINK_TYPE`.
const NAME: u16 = 2;
const INTERFACE: u16 = 51;
const KIND: u16 = 65;

pub(super) fn make(name: &str, interface: &str) -> io::Result<()> {
    let fd = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::RDMA))?;
    let message = message(name, interface);
    sendto(&fd, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 512];
    let (_, len) = recv(&fd, &mut answer, RecvFlags::empty())?;
    acknowledged(answer.get(..len).unwrap_or_default())
}

fn message(name: &str, interface: &str) -> Vec<u8> {
    let mut texts = Vec::new();
    for (kind, text) in [(NAME, name), (INTERFACE, interface), (KIND, "rxe")] {
        let len = 4 + text.len() as u16 + 1;
        texts.extend(len.to_ne_bytes());
        texts.extend(kind.to_ne_bytes());
        texts.extend(text.as_bytes());
        texts.push(0);
        texts.resize(texts.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::new();
    message.extend((16 + texts.len() as u32).to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(ACKNOWLEDGED.to_ne_bytes());
    // The first of its sender's messages, whom the kernel knows.
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(texts);
    message
}

/// The answer is an error of number 0 where all went well.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let field = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, field(16).map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(errno)) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        _ => Err(io::Error::other("the kernel answered with no acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_own_length_and_texts_end_with_a_zero() {
        let message = message("soft0", "left");
        assert_eq!(message.len() as u32, u32::from_ne_bytes(message[..4].try_into().unwrap()));
        assert_eq!(&message[16..], b"\x0a\0\x02\0soft0\0\0\0\x09\0\x33\0left\0\0\0\0\x08\0\x41\0rxe\0");
    }

    #[test]
    fn an_answer_is_an_acknowledgement_or_names_the_errno() {
        let mut answer = [0; 36];
        answer[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert!(acknowledged(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer).unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledged(&answer[..10]).is_err());
        assert!(acknowledged(&[]).is_err());
    }
}
