//! What the commands share that let one device of this machine reach another's memory through VFIO.
//!
//! Both are opened with one address space, through the interface of the kernel that fits ([`open`]); the target's range
//! and some process memory are mapped there for the initiator, which moves the bytes ([`session`]). For an initiator that
//! a driver of the kernel has the target's range is [`exported`].
//!
//! Not here: whether that should be done, which is asked first and of the verdict.

mod exported;
mod open;
mod session;

pub(crate) use exported::Exported;
pub(crate) use open::Wanted;
pub(crate) use session::Session;

use crate::exit::Failure;
use crate::select::Asked;
use peerdma::addr::Bytes;
use peerdma::route::{PairVerdict, Permission, Target, Verdict};
use peerdma::topology::Topology;
use peerdma_linux::vfio::{BarIndex, BarRange};

/// Length of a range that nobody gave.
const DEFAULT_LEN: Bytes = Bytes::new(4096);

/// Why two devices are not opened and mapped together.
pub(crate) enum NoSession {
    /// Something is to be put right first: a driver, a privilege, a device of another kind.
    NotReady(Failure),
    /// The kernel does not map the range, or nobody can.
    NotGranted(Failure),
}

impl From<NoSession> for Failure {
    fn from(why: NoSession) -> Self {
        match why {
            NoSession::NotReady(failure) | NoSession::NotGranted(failure) => failure,
        }
    }
}

/// What Linux's own rules say, which is all that permits what VFIO does: it decides nothing itself.
pub(crate) fn by_linux(pair: &PairVerdict) -> Permission {
    match Verdict::from(pair.kernel.map_type) {
        Verdict::Direct | Verdict::HostBridge => Permission::Permitted,
        Verdict::Refused => Permission::Refused,
        Verdict::Unknown => Permission::Unknown,
    }
}

/// The memory that was named, 4 KiB or the whole of a smaller BAR where no range was; `None` where no BAR was.
pub(crate) fn named_memory(
    topology: &Topology,
    asked: Asked,
    text: &str,
) -> Result<Option<(Target, BarRange)>, Failure> {
    let Asked { target, bar_is_named } = asked;
    let Some(bar) = target.bar().filter(|_| bar_is_named) else { return Ok(None) };
    // Names of functions may hold a plus sign themselves.
    let target = if text.split_once('/').is_some_and(|(_, range)| range.contains('+')) {
        target
    } else {
        let len = target.len().map_or(DEFAULT_LEN, |len| len.min(DEFAULT_LEN));
        Target::of_bar(topology, target.function(), bar, Some((Bytes::ZERO, len)))
            .map_err(|error| Failure::usage(error.to_string()))?
    };
    let bar = target.bar().and_then(BarIndex::new);
    let range = bar.zip(target.len()).and_then(|(bar, len)| BarRange::new(bar, target.offset(), len));
    let range = range.ok_or_else(|| Failure::usage(format!("{text} is no range of a BAR")))?;
    Ok(Some((target, range)))
}

/// The BARs of a target of which none was named, as they would be.
pub(crate) fn bars_of(topology: &Topology, target: &Target, text: &str) -> String {
    let bars = &topology.function(target.function()).info().bars;
    let named: Vec<String> = bars.iter().map(|bar| format!("{text}/bar{}", bar.index)).collect();
    if named.is_empty() { "it has no memory BAR".to_string() } else { named.join(" or ") }
}
