//! What the adapter is told by commands: domains, regions, queue pairs.

use super::engine::Nic;
use super::fault::Faults;
use super::network::Place;
use super::page;
use super::pair::{Context, Pair, State};
use super::region::{Entry, Key, Pages, Region, Rights};
use super::register::EVENTS_CONSUMED;
use super::work::PairNumber;
use crate::device::bus::Bus;
use crate::device::channel::{COMMAND, COMPLETION, Ring};
use peerdma::addr::{BusAddr, Bytes};
use std::fmt;

/// Numbers of commands.
pub(super) mod number {
    pub(in crate::device::nic) const ALLOCATE_DOMAIN: u64 = 1;
    pub(in crate::device::nic) const FREE_DOMAIN: u64 = 2;
    pub(in crate::device::nic) const REGISTER: u64 = 3;
    pub(in crate::device::nic) const DEREGISTER: u64 = 4;
    pub(in crate::device::nic) const CREATE_PAIR: u64 = 5;
    pub(in crate::device::nic) const CONNECT: u64 = 6;
    pub(in crate::device::nic) const DESTROY_PAIR: u64 = 7;
    pub(in crate::device::nic) const QUERY_PAIR: u64 = 8;
    pub(in crate::device::nic) const WATCH_FAULTS: u64 = 9;
    pub(in crate::device::nic) const REGISTER_ON_DEMAND: u64 = 10;
    pub(in crate::device::nic) const WRITE_PAGES: u64 = 11;
    pub(in crate::device::nic) const RESUME: u64 = 12;
    pub(in crate::device::nic) const INVALIDATE: u64 = 13;
}

/// A vector that is none, in a command's arguments.
pub(super) const NO_VECTOR: u64 = 0xffff;
/// Most protection domains.
const MOST_DOMAINS: usize = 1 << 16;

/// Why the adapter does not do what a command says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such command.
    Unknown,
    /// An argument names nothing, or has no meaning.
    Invalid,
    /// There is no room for another one.
    Exhausted,
    /// Something else still uses it.
    Busy,
    /// The list of pages could not be read.
    Request,
    /// A reason that this version does not know.
    Other(u32),
}

impl Refused {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Unknown => 1,
            Self::Invalid => 2,
            Self::Exhausted => 3,
            Self::Busy => 4,
            Self::Request => 5,
            Self::Other(code) => code,
        }
    }

    pub(super) const fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Unknown,
            2 => Self::Invalid,
            3 => Self::Exhausted,
            4 => Self::Busy,
            5 => Self::Request,
            code => Self::Other(code),
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the adapter has no such command",
            Self::Invalid => "an argument names nothing that the adapter has",
            Self::Exhausted => "the adapter has no room for another one",
            Self::Busy => "something still uses it",
            Self::Request => "the adapter could not read the list of pages",
            Self::Other(code) => return write!(f, "status {code}"),
        })
    }
}

/// Most pages of one region: 4 GiB in pages of 4 KiB.
pub(super) const MOST_PAGES: u64 = 1 << 20;

/// The key in an argument.
pub(super) fn key(argument: u64) -> Result<Key, Refused> {
    u32::try_from(argument).map(Key::new).map_err(|_| Refused::Invalid)
}

impl Nic {
    /// Does a command; its result, which for [`number::DEREGISTER`] is the key that is gone. What has a list of
    /// pages takes longer than a step and is begun instead.
    pub(super) fn command(&mut self, bus: &mut dyn Bus, number: u64, arguments: [u64; 8]) -> Result<u64, Refused> {
        let [first, second, ..] = arguments;
        match number {
            number::ALLOCATE_DOMAIN => self.allocate_domain(),
            number::FREE_DOMAIN => self.free_domain(first),
            number::REGISTER_ON_DEMAND => self.register_on_demand(arguments),
            number::DEREGISTER => {
                let region = self.regions.remove(key(first)?).ok_or(Refused::Invalid)?;
                self.release(region.domain);
                Ok(first)
            }
            number::CREATE_PAIR => self.create_pair(arguments),
            number::CONNECT => {
                let port = u16::try_from(second).map_err(|_| Refused::Invalid)?;
                let pair = u32::try_from(arguments[2]).map_err(|_| Refused::Invalid)?;
                let this = self.pair(first).ok_or(Refused::Invalid)?;
                if this.state != State::Fresh {
                    return Err(Refused::Busy);
                }
                this.peer = Some(Place { port, pair: PairNumber::new(pair) });
                this.state = State::Ready;
                Ok(0)
            }
            number::DESTROY_PAIR => self.destroy_pair(bus, first),
            number::QUERY_PAIR => match self.pair(first).ok_or(Refused::Invalid)?.state {
                State::Fresh => Ok(0),
                State::Ready => Ok(1),
                State::Broken => Ok(2),
            },
            number::WATCH_FAULTS => self.watch_faults(first, second, arguments[2]),
            number::RESUME => {
                let ticket = u32::try_from(first).map_err(|_| Refused::Invalid)?;
                self.faults.resume(ticket, second != 0).map(|()| 0).ok_or(Refused::Invalid)
            }
            number::INVALIDATE => self.invalidate(key(first)?, second, arguments[2]),
            _ => Err(Refused::Unknown),
        }
    }

    fn allocate_domain(&mut self) -> Result<u64, Refused> {
        if self.domains.len() >= MOST_DOMAINS {
            return Err(Refused::Exhausted);
        }
        let mut free = self.next_domain;
        while self.domains.contains_key(&free) {
            free = free.wrapping_add(1);
        }
        self.next_domain = free.wrapping_add(1);
        self.domains.insert(free, 0);
        Ok(u64::from(free))
    }

    fn free_domain(&mut self, number: u64) -> Result<u64, Refused> {
        let number = u32::try_from(number).map_err(|_| Refused::Invalid)?;
        match self.domains.get(&number) {
            None => Err(Refused::Invalid),
            Some(0) => {
                self.domains.remove(&number);
                Ok(0)
            }
            Some(_) => Err(Refused::Busy),
        }
    }

    /// Counts a user of a domain less.
    fn release(&mut self, domain: u32) {
        if let Some(users) = self.domains.get_mut(&domain) {
            *users = users.saturating_sub(1);
        }
    }

    /// Takes a region in that has no pages yet; it needs somebody who hears of its faults.
    fn register_on_demand(&mut self, arguments: [u64; 8]) -> Result<u64, Refused> {
        let [domain, base, len, page_log2, ..] = arguments;
        let (domain, rights) = (domain as u32, Rights::of((domain >> 32) as u32));
        let pages = Region::page_count(base, len, page_log2).ok_or(Refused::Invalid)?;
        if !self.faults.are_served() || !self.domains.contains_key(&domain) {
            return Err(Refused::Invalid);
        }
        if pages > MOST_PAGES {
            return Err(Refused::Exhausted);
        }
        let pages = Pages::OnDemand(vec![Entry::default(); pages as usize]);
        self.insert(Region { domain, rights, base, len, page_log2: page_log2 as u32, pages, taken: 0 })
    }

    fn watch_faults(&mut self, base: u64, slots_log2: u64, vector: u64) -> Result<u64, Refused> {
        let ring = Ring::new(BusAddr::new(base), slots_log2, COMPLETION).ok_or(Refused::Invalid)?;
        if self.faults.is_busy() {
            return Err(Refused::Busy);
        }
        let vector = Some(vector).filter(|vector| *vector < NO_VECTOR).map(|vector| vector as u16);
        self.faults = Faults::new(ring, vector);
        self.registers.set(EVENTS_CONSUMED, 0);
        Ok(0)
    }

    fn create_pair(&mut self, arguments: [u64; 8]) -> Result<u64, Refused> {
        let [domain, sends, receives, completions, logs, ..] = arguments;
        let vector = Some(domain >> 32).filter(|vector| *vector < NO_VECTOR).map(|vector| vector as u16);
        let domain = domain as u32;
        let ring = |base, at: u32, slot| Ring::new(BusAddr::new(base), logs >> at & 0xff, slot).ok_or(Refused::Invalid);
        let rings = [ring(sends, 0, COMMAND)?, ring(receives, 8, COMMAND)?, ring(completions, 16, COMPLETION)?];
        let users = self.domains.get_mut(&domain).ok_or(Refused::Invalid)?;
        let index = self.pairs.iter().position(|(_, pair)| pair.is_none()).ok_or(Refused::Exhausted)?;
        let (generation, place) = self.pairs.get_mut(index).ok_or(Refused::Exhausted)?;
        *generation = generation.wrapping_add(1);
        let number = PairNumber::of(index as u16, *generation);
        *place = Some(Pair { vector, ..Pair::new(number, domain, rings) });
        *users += 1;
        for offset in (0..page(0).as_u64()).step_by(8) {
            self.registers.set(Bytes::new(page(index as u16).as_u64() + offset), 0);
        }
        Ok(u64::from(number.as_u32()))
    }

    fn destroy_pair(&mut self, bus: &mut dyn Bus, number: u64) -> Result<u64, Refused> {
        let mut pair = self.take_pair(number).ok_or(Refused::Invalid)?;
        let Self { registers, port, pool, regions, faults, .. } = self;
        pair.forsake(&mut Context { bus, port, pool, regions, registers, faults });
        self.release(pair.domain);
        Ok(0)
    }
}
