//! What two sides tell each other before one reaches the other's memory.

use peerdma::addr::{AddrRange, Bytes, Iova};
use std::net::Ipv6Addr;

/// Numbers of queue pairs and of packets have so many bits.
const MASK: u32 = 0x00ff_ffff;

/// The largest payload of a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Mtu {
    /// 256 bytes.
    B256 = 1,
    /// 512 bytes.
    B512 = 2,
    /// 1024 bytes.
    B1024 = 3,
    /// 2048 bytes.
    B2048 = 4,
    /// 4096 bytes.
    B4096 = 5,
}

impl Mtu {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        [Self::B256, Self::B512, Self::B1024, Self::B2048, Self::B4096].into_iter().find(|mtu| *mtu as u32 == code)
    }

    /// In bytes.
    pub const fn bytes(self) -> Bytes {
        Bytes::new(128 << self as u8)
    }
}

/// Bytes from a peer are no such thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer's bytes are no {what}: {why}; have both sides run the same version")]
pub struct BadBytes {
    /// What they should be.
    pub what: &'static str,
    /// What is wrong.
    pub why: &'static str,
}

const fn bad_endpoint(why: &'static str) -> BadBytes {
    BadBytes { what: "endpoint", why }
}

/// One end of a connection, as the other has to know it.
///
/// ```
/// use peerdma_linux::verbs::Endpoint;
///
/// assert!(Endpoint::from_bytes(&[0xff; 28]).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub(super) gid: Ipv6Addr,
    pub(super) gid_index: u8,
    pub(super) queue: u32,
    pub(super) psn: u32,
    pub(super) lid: u16,
    pub(super) mtu: Mtu,
}

impl Endpoint {
    /// Its address.
    pub fn gid(&self) -> Ipv6Addr {
        self.gid
    }

    /// The number of its queue pair.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Where it lies on an InfiniBand fabric (0 on Ethernet).
    #[must_use]
    pub fn at_lid(self, lid: u16) -> Self {
        Self { lid, ..self }
    }

    /// As it is sent: GID, queue pair, first packet, LID, MTU and a byte for the version, big endian.
    pub fn to_bytes(&self) -> [u8; 28] {
        let mut bytes = [0; 28];
        let (gid, rest) = bytes.split_at_mut(16);
        gid.copy_from_slice(&self.gid.octets());
        let (queue, rest) = rest.split_at_mut(4);
        queue.copy_from_slice(&self.queue.to_be_bytes());
        let (psn, rest) = rest.split_at_mut(4);
        psn.copy_from_slice(&self.psn.to_be_bytes());
        let [high, low] = self.lid.to_be_bytes();
        rest.copy_from_slice(&[high, low, self.mtu as u8, 1]);
        bytes
    }

    /// Reads what a peer sent.
    ///
    /// # Errors
    /// [`BadBytes`]: the number of a queue or packet has more than 24 bits, the MTU or the version is none that is known.
    pub fn from_bytes(bytes: &[u8; 28]) -> Result<Self, BadBytes> {
        let [gid @ .., a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, mtu, version] = *bytes;
        if version != 1 {
            return Err(bad_endpoint("its version is not 1"));
        }
        let (queue, psn) = (u32::from_be_bytes([a0, a1, a2, a3]), u32::from_be_bytes([b0, b1, b2, b3]));
        if queue > MASK || psn > MASK {
            return Err(bad_endpoint("a number has more than 24 bits"));
        }
        let mtu = Mtu::from_code(mtu.into()).ok_or(bad_endpoint("there is no such MTU"))?;
        Ok(Self { gid: gid.into(), gid_index: 0, queue, psn, lid: u16::from_be_bytes([c0, c1]), mtu })
    }
}

/// A number for the first packet that no earlier connection is likely to have used.
pub(super) fn fresh_psn() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(std::process::id()) as u32) & MASK
}

/// Registered memory of a peer, with the key to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteRange {
    pub(super) range: AddrRange<Iova>,
    pub(super) key: u32,
}

impl RemoteRange {
    pub(super) const fn new(range: AddrRange<Iova>, key: u32) -> Self {
        Self { range, key }
    }

    /// Which addresses, as the peer's adapter sees them.
    pub fn range(&self) -> AddrRange<Iova> {
        self.range
    }

    /// A part of it; `None` where it does not have all of that, or it is empty.
    pub fn part(&self, at: Bytes, len: Bytes) -> Option<Self> {
        Some(Self { range: self.range.slice(at, len)?, ..*self })
    }

    /// As it is sent: address, length and key, big endian.
    pub fn to_bytes(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let (start, rest) = bytes.split_at_mut(8);
        start.copy_from_slice(&self.range.start().as_u64().to_be_bytes());
        let (len, key) = rest.split_at_mut(8);
        len.copy_from_slice(&self.range.len().as_u64().to_be_bytes());
        key.copy_from_slice(&self.key.to_be_bytes());
        bytes
    }

    /// Reads what a peer sent. Whether the key opens anything its adapter says.
    ///
    /// # Errors
    /// [`BadBytes`]: no bytes, or past the last address.
    pub fn from_bytes(bytes: &[u8; 20]) -> Result<Self, BadBytes> {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3] = *bytes;
        let start = Iova::new(u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
        let len = Bytes::new(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        let range = AddrRange::new(start, len)
            .ok_or(BadBytes { what: "range", why: "it is empty or passes the last address" })?;
        Ok(Self { range, key: u32::from_be_bytes([c0, c1, c2, c3]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let gid = Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        let end = Endpoint { gid, gid_index: 0, queue: 0x11, psn: fresh_psn(), lid: 3, mtu: Mtu::B1024 };
        assert_eq!(Endpoint::from_bytes(&end.to_bytes()), Ok(end));
        let range = RemoteRange::new(AddrRange::new(Iova::new(0x1000), Bytes::new(64)).unwrap(), 7);
        assert_eq!(RemoteRange::from_bytes(&range.to_bytes()), Ok(range));
        assert_eq!(range.part(Bytes::new(63), Bytes::new(2)), None);
        assert_eq!(Mtu::B4096.bytes(), Bytes::new(4096));
    }

    #[test]
    fn bytes_of_a_stranger_are_read_or_refused() {
        let mut bytes = [0; 28];
        for value in 0..=255 {
            bytes.fill(value);
            assert!(Endpoint::from_bytes(&bytes).is_err(), "{value}");
        }
        assert!(RemoteRange::from_bytes(&[0xff; 20]).is_err());
        assert!(RemoteRange::from_bytes(&[0; 20]).is_err());
    }
}
