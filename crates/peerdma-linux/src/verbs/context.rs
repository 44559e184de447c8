//! An open adapter: its limits, ports and GIDs.

use super::completion::Completions;
use super::domain::Domain;
use super::endpoint::Mtu;
use super::error::ObjectError;
use crate::sys::verbs;
use peerdma::addr::Bytes;
use rustix::io::Errno;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// As many entries as the kernel is asked for at once: their bytes are counted in 16 bits (Linux 7.3 `ib_uverbs_attr`, where
/// 4096 of them are none, and `EINVAL`).
const MOST_GIDS: usize = 2040;

/// An open adapter. Copies are the same; whatever is made of it keeps it open.
#[derive(Clone, Debug)]
pub struct Context {
    raw: verbs::Context,
    device: Arc<str>,
}

/// What an adapter has at most. Numbers below zero, which some providers give, are taken for zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The largest region.
    pub region: Bytes,
    /// Regions.
    pub regions: u32,
    /// Queue pairs.
    pub queues: u32,
    /// Pieces of work in a queue.
    pub work: u32,
    /// Entries of a completion queue.
    pub completions: u32,
    /// Reads that one queue pair asks for at once.
    pub reads_asked: u8,
    /// Reads that one queue pair answers at once.
    pub reads_answered: u8,
    /// Ports, numbered from 1.
    pub ports: u8,
}

/// Whether an adapter takes page faults, so that memory need not be pinned (on-demand paging).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Paging {
    /// The provider has no answer.
    Unknown,
    /// It does not.
    No,
    /// It does.
    Yes {
        /// For the whole address space in one region too.
        implicit: bool,
        /// Reliable connections: sends.
        send: bool,
        /// Reliable connections: receives.
        receive: bool,
        /// Reliable connections: RDMA writes.
        write: bool,
        /// Reliable connections: RDMA reads.
        read: bool,
    },
}

/// How a port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortState {
    /// No link.
    Down,
    /// A link without an address yet.
    Init,
    /// Configured, and not yet told to send.
    Armed,
    /// It sends and receives.
    Active,
    /// Active, with a link that comes and goes.
    Deferred,
    /// A number that is not known.
    Other(u32),
}

/// One port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Port {
    /// Its number.
    pub number: u8,
    /// How it is.
    pub state: PortState,
    /// The largest packet that it sends now; the smallest that there is where that is not known.
    pub mtu: Mtu,
    /// Whether it is Ethernet, where peers are found by GID alone; else InfiniBand, or unknown.
    pub ethernet: bool,
    /// Its local identifier, on InfiniBand.
    pub lid: u16,
    /// Places in its table of GIDs.
    pub gids: u32,
    /// The longest message.
    pub message: Bytes,
}

/// How packets with a GID travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GidKind {
    /// InfiniBand.
    Infiniband,
    /// RoCE version 1: Ethernet frames, not routed.
    RoceV1,
    /// RoCE version 2: UDP, routed.
    RoceV2,
    /// The library does not say, or says something new.
    Unknown,
}

/// One address of a port, and where it stands in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gid {
    pub(super) port: u8,
    pub(super) index: u8,
    pub(super) address: Ipv6Addr,
    pub(super) kind: GidKind,
}

impl Gid {
    /// Its place in the table.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The address; an IPv4 one as `::ffff:a.b.c.d`.
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// How packets travel.
    pub fn kind(&self) -> GidKind {
        self.kind
    }

    /// Whether it is more than the link's own address, so that peers beyond a router may be meant.
    pub fn is_routable(&self) -> bool {
        !self.address.is_unicast_link_local() && self.kind != GidKind::RoceV1
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (index {} of port {})", self.address, self.index, self.port)
    }
}

impl Context {
    pub(super) fn new(raw: verbs::Context, device: String) -> Self {
        Self { raw, device: device.into() }
    }

    /// The adapter's name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Asks what the adapter has.
    ///
    /// # Errors
    /// [`ObjectError`]: it has gone.
    pub fn limits(&self) -> Result<Limits, ObjectError> {
        let said = self.raw.attributes().map_err(|errno| self.error("ask for its limits", errno))?;
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let reads = |number: i32| u8::try_from(number.max(0)).unwrap_or(u8::MAX);
        Ok(Limits {
            region: Bytes::new(said.largest_region),
            regions: count(said.most_regions),
            queues: count(said.most_queues),
            work: count(said.most_work),
            completions: count(said.most_completions),
            reads_asked: reads(said.reads_asked),
            reads_answered: reads(said.reads_answered),
            ports: said.ports,
        })
    }

    /// Asks whether the adapter takes page faults.
    ///
    /// # Errors
    /// [`ObjectError`]: it has gone.
    pub fn paging(&self) -> Result<Paging, ObjectError> {
        let said = self.raw.paging();
        let bit = |word: u32, bit: u32| word >> bit & 1 == 1;
        match said {
            Ok(Some((general, reliable))) if general & 1 == 1 => Ok(Paging::Yes {
                implicit: general >> 1 & 1 == 1,
                send: bit(reliable, 0),
                receive: bit(reliable, 1),
                write: bit(reliable, 2),
                read: bit(reliable, 3),
            }),
            Ok(Some(_)) => Ok(Paging::No),
            Ok(None) | Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Paging::Unknown),
            Err(errno) => Err(self.error("ask whether it takes page faults", errno)),
        }
    }

    /// Asks how a port is; ports are numbered from 1.
    ///
    /// # Errors
    /// [`ObjectError`]: there is no such port, or the adapter has gone.
    pub fn port(&self, number: u8) -> Result<Port, ObjectError> {
        let said = self.raw.port(number).map_err(|errno| self.error("ask for a port", errno))?;
        Ok(Port {
            number,
            state: match said.state {
                1 => PortState::Down,
                2 => PortState::Init,
                3 => PortState::Armed,
                4 => PortState::Active,
                5 => PortState::Deferred,
                other => PortState::Other(other),
            },
            mtu: Mtu::from_code(said.active_mtu).unwrap_or(Mtu::B256),
            ethernet: said.link_layer == 2,
            lid: said.lid,
            gids: u32::try_from(said.gid_count).unwrap_or(0),
            message: Bytes::new(said.largest_message.into()),
        })
    }

    /// Lists the addresses of a port; empty places are left out, and so is what stands past place 255, which no queue pair
    /// can name.
    ///
    /// # Errors
    /// [`ObjectError`]: there is no such port, or the adapter has gone.
    pub fn gids(&self, port: u8) -> Result<Vec<Gid>, ObjectError> {
        let failed = |errno| self.error("read its GIDs", errno);
        match self.raw.gids(MOST_GIDS) {
            Ok(Some(entries)) => return Ok(entries.iter().filter_map(|entry| of_entry(entry, port)).collect()),
            // The library is older than the call, or the kernel is, or there are more.
            Ok(None) | Err(Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::INVAL) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let places = u8::try_from(self.port(port)?.gids).unwrap_or(u8::MAX);
        let mut gids = Vec::new();
        for index in 0..places {
            let address = Ipv6Addr::from(self.raw.gid(port, index).map_err(failed)?);
            if !is_empty(address) {
                gids.push(Gid { port, index, address, kind: GidKind::Unknown });
            }
        }
        Ok(gids)
    }

    /// Makes a protection domain: what is registered in one is reached by queues of that one alone.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub fn domain(&self) -> Result<Domain, ObjectError> {
        let raw = self.raw.domain().map_err(|errno| self.error("make a protection domain", errno))?;
        Ok(Domain::new(raw, self.clone()))
    }

    /// Makes a completion queue that holds at least so many.
    ///
    /// # Errors
    /// [`ObjectError`]: more than [`Limits::completions`], mostly.
    pub fn completions(&self, entries: u32) -> Result<Completions, ObjectError> {
        let raw = verbs::Completions::create(&self.raw, entries);
        Ok(Completions::new(raw.map_err(|errno| self.error("make a completion queue", errno))?, &self.device))
    }

    pub(super) fn error(&self, doing: &'static str, errno: Errno) -> ObjectError {
        ObjectError::new(&self.device, doing, errno)
    }
}

fn is_empty(address: Ipv6Addr) -> bool {
    // A port without an address of its own has the link's prefix, and nothing after it.
    let segments = address.segments();
    address.is_unspecified() || (segments.first() == Some(&0xfe80) && segments.iter().skip(1).all(|part| *part == 0))
}

fn of_entry(entry: &verbs::layout::GidEntry, port: u8) -> Option<Gid> {
    if entry.port != u32::from(port) {
        return None;
    }
    let kind = match entry.kind {
        0 => GidKind::Infiniband,
        1 => GidKind::RoceV1,
        2 => GidKind::RoceV2,
        _ => GidKind::Unknown,
    };
    let address = Ipv6Addr::from(entry.gid.0);
    let index = u8::try_from(entry.index).ok()?;
    (!is_empty(address)).then_some(Gid { port, index, address, kind })
}
