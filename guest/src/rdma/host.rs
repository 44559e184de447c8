//! One end: an adapter, a pool that is registered with it, and a peer.

use crate::checks::Stop;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::pin::{OwnerId, OwnerLimits, SharedLedger};
use peerdma_linux::held;
use peerdma_linux::pattern::Pattern;
use peerdma_linux::pin::Pinner;
use peerdma_linux::pool::{Options as PoolOptions, Pool, Stay};
use peerdma_linux::verbs::{
    Completion, Completions, Context, Depths, Domain, Endpoint, Gid, GidKind, Options, Queue, Region, RemoteRange,
    Rights, Verbs,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Where bytes go in a pool, at no page's start, and how many, no whole number of packets.
pub(super) const AT: Bytes = Bytes::new(3 * 4096 + 13);
pub(super) const LEN: usize = 100_003;
/// Bytes on each side that must not change.
pub(super) const GUARD: usize = 64;
/// As large as a huge page, so that all of it is one block.
pub(super) const POOL: Bytes = Bytes::new(2 << 20);
/// The pattern's seed.
pub(super) const SEED: u64 = 7;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory whose owner looks at it: by offset in what is registered.
pub(super) trait Looks {
    fn put(&self, at: Bytes, bytes: &[u8]) -> Result<(), Stop>;
    fn look(&self, at: Bytes, bytes: &mut [u8]) -> Result<(), Stop>;
}

/// All of a pool as one buffer.
pub(super) struct Whole {
    pub(super) pool: Pool,
    buffer: peerdma_linux::pool::Buffer,
}

impl Whole {
    pub(super) fn new() -> Result<Self, Stop> {
        let pool = Pool::new(POOL, PoolOptions::new(Stay::Pinned(Pinner::new()?)))?;
        let owner = pool.owner("rounds")?;
        let buffer = pool.take(POOL, owner)?;
        Ok(Self { pool, buffer })
    }
}

impl Looks for Whole {
    fn put(&self, at: Bytes, bytes: &[u8]) -> Result<(), Stop> {
        Ok(self.buffer.write(at, bytes)?)
    }

    fn look(&self, at: Bytes, bytes: &mut [u8]) -> Result<(), Stop> {
        Ok(self.buffer.read(at, bytes)?)
    }
}

impl Looks for peerdma_linux::share::Memory {
    fn put(&self, at: Bytes, bytes: &[u8]) -> Result<(), Stop> {
        Ok(self.write(at, bytes)?)
    }

    fn look(&self, at: Bytes, bytes: &mut [u8]) -> Result<(), Stop> {
        Ok(self.read(at, bytes)?)
    }
}

/// Gives a destination something else in every byte than what run `run` sends, and so the bytes around it.
pub(super) fn prepare(memory: &dyn Looks, at: Bytes, run: u64) -> Result<(), Stop> {
    let bytes: Vec<u8> = around(at, run).iter().map(|byte| !byte).collect();
    memory.put(below(at), &bytes)
}

/// Breaks the claim unless every byte came, and none around them.
pub(super) fn arrived(memory: &dyn Looks, at: Bytes, run: u64) -> Result<(), Stop> {
    let (sent, seen) = (around(at, run), seen(memory, at)?);
    let inside = GUARD..GUARD + LEN;
    let wrong = (0..sent.len()).find(|&index| (seen[index] == sent[index]) != inside.contains(&index));
    match wrong {
        None => Ok(()),
        Some(index) => Err(Stop::broken(format!(
            "byte {index} of {} around the destination is {:#04x}, and run {run} has {:#04x} there",
            sent.len(),
            seen[index],
            sent[index]
        ))),
    }
}

/// Breaks the claim if any byte came.
pub(super) fn untouched(memory: &dyn Looks, at: Bytes, run: u64) -> Result<(), Stop> {
    let (sent, seen) = (around(at, run), seen(memory, at)?);
    match sent.iter().zip(&seen).position(|(sent, seen)| *seen != !*sent) {
        None => Ok(()),
        Some(index) => Err(Stop::broken(format!("byte {index} around the destination has changed"))),
    }
}

fn below(at: Bytes) -> Bytes {
    Bytes::new(at.as_u64() - GUARD as u64)
}

fn around(at: Bytes, run: u64) -> Vec<u8> {
    Pattern::new(SEED, run).bytes(below(at), LEN + 2 * GUARD)
}

fn seen(memory: &dyn Looks, at: Bytes) -> Result<Vec<u8>, Stop> {
    let mut seen = vec![0; LEN + 2 * GUARD];
    memory.look(below(at), &mut seen)?;
    Ok(seen)
}

/// An open adapter, and what is made of it once.
pub(super) struct Host {
    pub(super) context: Context,
    pub(super) domain: Domain,
    pub(super) ledger: SharedLedger,
    pub(super) completions: Completions,
    pub(super) gid: Gid,
}

/// What peers may do in these rounds.
pub(super) const OPEN: Rights = Rights::local().remote(Prot::ReadWrite);

impl Host {
    pub(super) fn open(device: &str) -> Result<Self, Stop> {
        let devices = Verbs::load()?.devices()?;
        let found = devices.iter().find(|found| found.name() == device);
        let found = found.ok_or_else(|| Stop::broken(format!("no adapter {device} among {devices:?}")))?;
        let context = found.open()?;
        let gid = context.gids(1)?.into_iter().find(|gid| gid.is_routable() && gid.kind() == GidKind::RoceV2);
        let gid = gid.ok_or_else(|| Stop::broken(format!("no routable GID among {:?}", context.gids(1))))?;
        let owner = OwnerId::new(0);
        let mut ledger = held::of_this_process();
        ledger.describe_owner(owner, "rounds", OwnerLimits::NONE);
        let ledger = SharedLedger::new(ledger);
        let domain = context.domain()?.booked(ledger.clone(), owner);
        let completions = context.completions(64)?;
        Ok(Self { context, domain, ledger, completions, gid })
    }

    /// Connects a new queue pair to the peer's, and tells each other which memory is meant.
    pub(super) fn meet(&self, peer: &mut TcpStream, region: &Region) -> Result<(Queue, RemoteRange), Stop> {
        // Completions of the queue pair before it are of no interest any more.
        while !self.completions.poll()?.is_empty() {}
        let queue = self.domain.queue(&self.completions, Depths::default(), 1, OPEN)?;
        let own = queue.endpoint(&self.gid, self.context.port(1)?.mtu);
        peer.write_all(&own.to_bytes())?;
        peer.write_all(&region.remote().to_bytes())?;
        let (mut end, mut range) = ([0; 28], [0; 20]);
        peer.read_exact(&mut end)?;
        peer.read_exact(&mut range)?;
        let queue = queue.connect(&own, &Endpoint::from_bytes(&end)?, &Options::default())?;
        meeting(peer)?;
        Ok((queue, RemoteRange::from_bytes(&range)?))
    }

    /// Waits for the one piece of work that is under way.
    pub(super) fn ended(&self) -> Result<Completion, Stop> {
        let found = self.completions.wait(Some(PATIENCE))?;
        match found.as_slice() {
            [one] => Ok(*one),
            other => Err(Stop::broken(format!("one completion was expected, and there are {other:?}"))),
        }
    }
}

/// Both sides have come so far.
pub(super) fn meeting(peer: &mut TcpStream) -> Result<(), Stop> {
    peer.write_all(&[1])?;
    Ok(peer.read_exact(&mut [0])?)
}

/// All memory of a pool, registered.
pub(super) fn register(host: &Host, whole: &Whole) -> Result<Region, Stop> {
    Ok(host.domain.register(Arc::clone(whole.pool.region()), OPEN)?)
}

/// A stream whose other end is not waited for for ever.
pub(super) fn patient(stream: TcpStream) -> Result<TcpStream, Stop> {
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
