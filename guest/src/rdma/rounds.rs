//! What both hosts do, side by side: each round is one function for the owner of the destination and one for the other.

use super::Tally;
use super::host::{
    AT, GUARD, Host, LEN, Looks, OPEN, POOL, SEED, Whole, arrived, meeting, patient, prepare, register, untouched,
};
use crate::checks::{Stop, equal};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{Bytes, Iova};
use peerdma::buffer::Lifetime;
use peerdma::buffer::life::{Answers, Disturbance};
use peerdma::buffer::shared::{Buffer, Holder};
use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Initiator, Owner, Peers};
use peerdma::pin::Counter;
use peerdma::topology::IommuMode;
use peerdma_linux::held::Held;
use peerdma_linux::pattern::Pattern;
use peerdma_linux::share::Memory;
use peerdma_linux::verbs::{
    DmabufSupport, Imported, Importing, Kind, Paging, PortState, Queue, Region, RegisterError, RemoteRange, Rights,
    Status,
};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Run numbers of the pattern.
const WRITE: u64 = 0;
const READ: u64 = 1;
const MESSAGE: u64 = 2;
const REFUSED: u64 = 3;
const SHARED: u64 = 4;
const SHARED_AGAIN: u64 = 5;

/// Length of the transfers, as a length.
const COUNT: Bytes = Bytes::new(LEN as u64);

pub(super) fn serve(device: &str, address: &str, tally: &mut Tally) {
    let outcome = served(device, address, tally);
    tally.claim("the serving host comes to the end of its rounds", outcome);
}

fn served(device: &str, address: &str, tally: &mut Tally) -> Result<(), Stop> {
    let host = Host::open(device)?;
    facts(&host, tally);
    let whole = Whole::new()?;
    let region = register(&host, &whole)?;
    let peer = &mut patient(TcpListener::bind(address)?.accept()?.0)?;
    let received = received()?;

    let (queue, _) = host.meet(peer, &region)?;
    prepare(&whole, AT, WRITE)?;
    meeting(peer)?;
    meeting(peer)?;
    tally.claim(
        "an RDMA write from the pool of one host to the pool of another arrives in every byte, and beside it nothing changes",
        arrived(&whole, AT, WRITE),
    );
    whole.put(AT, &Pattern::new(SEED, READ).bytes(AT, LEN))?;
    meeting(peer)?;
    meeting(peer)?;

    prepare(&whole, AT, MESSAGE)?;
    queue.receive(11, region.part(AT, COUNT)?)?;
    meeting(peer)?;
    let message = host.ended();
    tally.claim(
        "a message arrives in the place that was posted for it",
        message.and_then(|message| {
            equal("what completed", &(11, Kind::Receive, COUNT), &(message.id, message.kind, message.len))?;
            message.result()?;
            arrived(&whole, AT, MESSAGE)
        }),
    );
    meeting(peer)?;

    // Past the end of what was registered.
    prepare(&whole, AT, REFUSED)?;
    meeting(peer)?;
    meeting(peer)?;
    drop(queue);
    tally.claim(
        "a write past the end of a region leaves the bytes before the end as they were",
        untouched(&whole, AT, REFUSED),
    );

    // By a key of memory that is no longer registered.
    let (queue, _) = host.meet(peer, &region)?;
    let before = host.ledger.reading(Counter::MmPinned).charged;
    let closed = region.deregister();
    let after = host.ledger.reading(Counter::MmPinned).charged;
    tally.claim(
        "a region that is deregistered gives its charge back",
        closed.map_err(Stop::from).and_then(|()| equal("charge", &before, &Bytes::new(after.as_u64() + POOL.as_u64()))),
    );
    meeting(peer)?;
    meeting(peer)?;
    drop(queue);
    tally.claim("a write by the key of a region that was deregistered touches nothing", untouched(&whole, AT, REFUSED));

    taken_away(&host, device, peer, tally)?;
    let came = self::received()?.saturating_sub(received);
    tally.claim(
        "what arrived came through the interface of the host's own namespace",
        // Two writes to a shared buffer, one to the pool, and a message.
        if came >= 4 * LEN as u64 { Ok(()) } else { Err(Stop::broken(format!("only {came} bytes came there"))) },
    );
    meeting(peer)
}

/// Bytes that the interfaces of this namespace received, but from itself.
fn received() -> Result<u64, Stop> {
    let lines = std::fs::read_to_string("/proc/net/dev")?;
    let of = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() != "lo").then(|| numbers.split_whitespace().next()?.parse::<u64>().ok())?
    };
    Ok(lines.lines().filter_map(of).sum())
}

pub(super) fn ask(device: &str, address: &str, tally: &mut Tally) {
    let outcome = asked(device, address, tally);
    tally.claim("the asking host comes to the end of its rounds", outcome);
}

fn asked(device: &str, address: &str, tally: &mut Tally) -> Result<(), Stop> {
    let host = Host::open(device)?;
    let whole = Whole::new()?;
    let before = host.ledger.reading(Counter::MmPinned).charged;
    let pinned = pinned()?;
    let region = register(&host, &whole)?;
    let charged = Bytes::new(host.ledger.reading(Counter::MmPinned).charged.as_u64() - before.as_u64());
    let kernel = Bytes::new(self::pinned()?.as_u64() - pinned.as_u64());
    tally.claim(
        "registering memory is charged to the ledger as much as to the kernel's own counter",
        equal("charge", &(POOL, POOL), &(charged, kernel)),
    );
    let peer = &mut patient(connected(address)?)?;

    let (queue, remote) = host.meet(peer, &region)?;
    let there = remote.part(AT, COUNT).ok_or_else(|| Stop::broken("the peer's pool is shorter"))?;
    meeting(peer)?;
    write(&host, &whole, &region, &queue, there, WRITE, Status::Success)?;
    meeting(peer)?;
    prepare(&whole, AT, READ)?;
    meeting(peer)?;
    queue.read(2, region.part(AT, COUNT)?, there)?;
    let read = host.ended();
    tally.claim(
        "an RDMA read brings every byte of the other host's pool, and beside them nothing changes",
        read.and_then(|read| {
            equal("what completed", &(2, Kind::Read), &(read.id, read.kind))?;
            read.result()?;
            arrived(&whole, AT, READ)
        }),
    );
    meeting(peer)?;

    meeting(peer)?;
    whole.put(AT, &Pattern::new(SEED, MESSAGE).bytes(AT, LEN))?;
    queue.send(3, region.part(AT, COUNT)?)?;
    host.ended()?.result()?;
    meeting(peer)?;

    meeting(peer)?;
    let end = remote.part(Bytes::new(POOL.as_u64() - 64), Bytes::new(64)).ok_or_else(|| Stop::broken("too short"))?;
    let mut bytes = end.to_bytes();
    // A length that the peer never gave.
    bytes[8..16].copy_from_slice(&(LEN as u64).to_be_bytes());
    let past = RemoteRange::from_bytes(&bytes)?;
    let outcome = write(&host, &whole, &region, &queue, past, REFUSED, Status::RemoteAccess);
    tally.claim("a write past the end of the peer's region fails, and says that the peer refuses", outcome);
    meeting(peer)?;
    drop(queue);

    let (queue, remote) = host.meet(peer, &region)?;
    let there = remote.part(AT, COUNT).ok_or_else(|| Stop::broken("the peer's pool is shorter"))?;
    meeting(peer)?;
    let outcome = write(&host, &whole, &region, &queue, there, REFUSED, Status::RemoteAccess);
    tally.claim("a write by a key whose region is gone fails, and says that the peer refuses", outcome);
    meeting(peer)?;
    drop(queue);

    for (run, expected) in [(SHARED, Status::Success), (REFUSED, Status::RemoteAccess), (SHARED_AGAIN, Status::Success)]
    {
        let (queue, remote) = host.meet(peer, &region)?;
        meeting(peer)?;
        let there = remote.part(AT, COUNT).ok_or_else(|| Stop::broken("the shared buffer is shorter"))?;
        let outcome = write(&host, &whole, &region, &queue, there, run, expected);
        tally.claim(&format!("a write to a shared buffer ends as it must, round {run}"), outcome);
        meeting(peer)?;
    }
    meeting(peer)
}

/// Writes run `run` of the pattern, and breaks the claim unless it ends so.
fn write(
    host: &Host,
    whole: &Whole,
    region: &Region,
    queue: &Queue,
    to: RemoteRange,
    run: u64,
    expected: Status,
) -> Result<(), Stop> {
    whole.put(AT, &Pattern::new(SEED, run).bytes(AT, LEN))?;
    queue.write(1, region.part(AT, COUNT)?, to)?;
    let ended = host.ended()?;
    equal("how it ended", &(1, expected), &(ended.id, ended.status))
}

/// What the adapter says of itself.
fn facts(host: &Host, tally: &mut Tally) {
    let port = host.context.port(1).map_err(Stop::from);
    tally.claim(
        "a soft-RoCE port is active, on Ethernet, with a GID of version 2 that is its interface's address",
        port.and_then(|port| equal("port", &(PortState::Active, true), &(port.state, port.ethernet))),
    );
    let support = host.domain.dmabuf_support();
    tally.claim(
        "soft-RoCE registers no dma-bufs, and says so when asked",
        equal("support", &DmabufSupport::NotByDevice, &support),
    );
    let file = Memory::create("no dma-buf", Bytes::new(4096)).map_err(Stop::from);
    tally.claim(
        "a dma-buf that soft-RoCE is given is refused, and the error names the driver as what refuses",
        file.and_then(|file| {
            let stdin = std::io::stdin();
            let (len, at) = (file.len(), Iova::new(0));
            match host.domain.register_dmabuf(stdin.as_fd(), Bytes::ZERO, len, at, Rights::local()) {
                Err(RegisterError::NoDmabuf { support: DmabufSupport::NotByDevice, .. }) => Ok(()),
                other => Err(Stop::broken(format!("{other:?}"))),
            }
        }),
    );
    let paging = host.context.paging().map_err(Stop::from);
    tally.claim(
        "the adapter says whether it takes page faults, in words of its own",
        paging.and_then(|paging| match paging {
            Paging::Unknown => Err(Stop::broken("it does not say")),
            _ => Ok(()),
        }),
    );
    let limits = host.context.limits().map_err(Stop::from);
    tally.claim(
        "the adapter's limits are numbers that a pool fits into",
        limits.and_then(|limits| match limits.region >= POOL && limits.ports == 1 && limits.completions > 0 {
            true => Ok(()),
            false => Err(Stop::broken(format!("{limits:?}"))),
        }),
    );
}

/// A region of a shared buffer, whose memory is taken away and given back while a peer has its key.
fn taken_away(host: &Host, device: &str, peer: &mut TcpStream, tally: &mut Tally) -> Result<(), Stop> {
    let memory = Arc::new(Memory::create("ring", Bytes::new(1 << 18))?);
    let chunk = Chunk::new(Owner::Memfd(memory.id()), Bytes::ZERO, memory.len(), MemAttrs::empty());
    let chunk = chunk.ok_or_else(|| Stop::broken("no chunk of all of a memory"))?;
    let offer = Offer::new(Chunks::collect_from([chunk])?, Stays::UNTIL_REVOKED, Place::Ram)?;
    let buffer = Buffer::new("ring", offer, Answers::YES);
    let (domain, registered) = (host.domain.clone(), Arc::clone(&memory));
    let importing = Importing::new(move || domain.register(Arc::clone(&registered), OPEN));
    let adapter = Initiator::new(device, IommuMode::Translated);
    let declaration = Declaration::of_device(adapter, Prot::ReadWrite).taking(Lifetime::Revocable);
    let holder = Holder::here(device);
    let seat = buffer.attach(&declaration, &Peers::none(), holder, Arc::clone(&importing) as _)?;
    let imported = importing.seated(seat);

    round(
        host,
        &memory,
        &imported,
        peer,
        SHARED,
        |memory| arrived(memory, AT, SHARED),
        "a peer writes to a shared buffer that an adapter imported, and every byte arrives",
        tally,
    )?;

    // The peer meets the region as it is, and writes when the memory has been taken away.
    let region = imported.region()?;
    let (_queue, _) = host.meet(peer, &region)?;
    prepare(&*memory, AT, REFUSED)?;
    let key = region.remote();
    drop(region);
    let reset = buffer.begin(Disturbance::Reset)?.wait(Duration::from_secs(20));
    tally.claim(
        "memory of a shared buffer is taken away as soon as no work uses its region, which is deregistered by then",
        reset.as_ref().map(|_| ()).map_err(|late| Stop::broken(format!("{late:?}"))),
    );
    tally.claim(
        "a region is not registered anew while the memory is away",
        match imported.region() {
            Err(_) => Ok(()),
            Ok(region) => Err(Stop::broken(format!("{region:?}"))),
        },
    );
    meeting(peer)?;
    meeting(peer)?;
    tally.claim("while the memory is away no byte of a peer's lands", untouched(&*memory, AT, REFUSED));
    if let Ok(reset) = reset {
        reset.done();
    }
    round(
        host,
        &memory,
        &imported,
        peer,
        SHARED_AGAIN,
        |memory| arrived(memory, AT, SHARED_AGAIN),
        "given back, the memory is registered anew and a peer that is told its key reaches it",
        tally,
    )?;
    tally.claim(
        "a region that is registered anew has another key",
        imported.region().map_err(Stop::from).and_then(|region| match region.remote() == key {
            true => Err(Stop::broken(format!("{key:?} again"))),
            false => Ok(()),
        }),
    );
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one round, with all that differs between two")]
fn round(
    host: &Host,
    memory: &Memory,
    imported: &Imported<RegisterError>,
    peer: &mut TcpStream,
    run: u64,
    seen: impl Fn(&dyn Looks) -> Result<(), Stop>,
    sentence: &str,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let region = imported.region()?;
    prepare(memory, AT, run)?;
    let (_queue, _) = host.meet(peer, &region)?;
    meeting(peer)?;
    meeting(peer)?;
    tally.claim(sentence, seen(memory));
    Ok(())
}

/// What the kernel says that this process has pinned.
fn pinned() -> Result<Bytes, Stop> {
    let held = Held::read(std::path::Path::new("/proc"))?;
    let own = held.processes.iter().find(|process| process.pid == std::process::id());
    own.map(|own| own.pinned).ok_or_else(|| Stop::broken("this process is not in /proc"))
}

/// The other host may listen a moment later.
fn connected(address: &str) -> Result<TcpStream, Stop> {
    let mut last = None;
    for _ in 0..100 {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(last.map_or_else(|| Stop::broken("nobody listens"), Stop::from))
}

const _: () = assert!(LEN + 2 * GUARD + (AT.as_u64() as usize) < (1 << 18));
