//! Document of `guest`.

use super::whose::RangeDocument;
use super::{ReasonDocument, Source};
use peerdma::route::guest::{Finding, Initiator, Meant, Place, PlacedBar, Requests, Stray};
use peerdma::route::kernel_view::Common;
use peerdma::route::{Judge, Target};
use peerdma::topology::{FunctionId, Topology};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `guest`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct GuestDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// `permitted`, `refused` or `unknown`.
    pub(crate) answer: &'static str,
    /// Why the layout cannot be one, whatever the machine; null where it can, or none was stated.
    pub(crate) impossible: Option<String>,
    /// The devices that send requests.
    pub(crate) devices: Vec<DeviceDocument>,
    /// RAM of the guest.
    pub(crate) ram: Vec<RangeDocument>,
    /// Each device with each BAR of another function.
    pub(crate) bars: Vec<BarDocument>,
    /// Requests that do not arrive where the guest means, or are not known to.
    pub(crate) findings: Vec<FindingDocument>,
}

/// A device that sends requests.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DeviceDocument {
    /// Its address.
    function: String,
    /// Names of it.
    names: Vec<String>,
    /// `untranslated`, `translated` or `untold`.
    requests: &'static str,
}

/// A BAR for one device.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct BarDocument {
    /// The device.
    initiator: String,
    /// Whose BAR.
    function: String,
    /// Which, 0 to 5.
    bar: Option<u8>,
    /// Where it has to be: `any`, `identity`, `refused` (nowhere) or `unknown`.
    place: &'static str,
    /// The BAR's own bus address, where requests go to it below the root complex at that number; else null.
    address: Option<String>,
    /// Below which function the two meet there, where known.
    below: Option<String>,
    /// What becomes of requests elsewhere, where the place is `identity`: `refused` or `unknown`.
    elsewhere: Option<&'static str>,
    /// Where the guest sees it; null where that was not stated.
    placed: Option<RangeDocument>,
    /// Whether requests arrive there: `permitted`, `refused` or `unknown`; null where it was not stated.
    standing: Option<&'static str>,
    /// Why nowhere, or what is missing.
    reasons: Vec<ReasonDocument>,
}

/// Requests that do not arrive.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct FindingDocument {
    /// Whose requests.
    initiator: String,
    /// At which guest addresses.
    range: RangeDocument,
    /// What the guest means by them: `RAM`, or a BAR.
    meant: String,
    /// What becomes of them: `captured`, `stopped`, `not_translated`, `reserved`, `too_wide`, `lost`, `undefined` or `unknown`.
    becomes: &'static str,
    /// Who takes or stops them, else null.
    by: Option<String>,
    /// Into which of its BARs they go, else null.
    by_bar: Option<u8>,
    /// Why.
    reasons: Vec<ReasonDocument>,
}

fn address(topology: &Topology, function: FunctionId) -> String {
    topology.function(function).address().to_string()
}

/// What an initiator sends, in a word.
pub(crate) const fn requests(requests: Requests) -> &'static str {
    match requests {
        Requests::Untranslated => "untranslated",
        Requests::Translated => "translated",
        Requests::Untold => "untold",
    }
}

/// The function below which two meet, where that is known.
pub(crate) fn meeting(judge: &Judge<'_>, initiator: FunctionId, target: &Target) -> Option<FunctionId> {
    match judge.kernel().decide(target.function(), initiator).common {
        Common::At(function) => Some(function),
        Common::AtOrBelow(_) | Common::Nowhere | Common::Unknown => None,
    }
}

impl DeviceDocument {
    pub(crate) fn new(topology: &Topology, initiator: Initiator) -> Self {
        let info = topology.function(initiator.function).info();
        Self { function: info.address.to_string(), names: info.names.clone(), requests: requests(initiator.requests) }
    }
}

impl BarDocument {
    pub(crate) fn new(
        judge: &Judge<'_>,
        initiator: FunctionId,
        target: &Target,
        place: &Place,
        placed: Option<&PlacedBar>,
    ) -> Self {
        let topology = judge.topology();
        let (word, own, elsewhere, reasons) = match place {
            Place::Any { direct } => ("any", *direct, None, [].as_slice()),
            Place::Identity { at, elsewhere } => ("identity", Some(*at), Some(elsewhere.word()), [].as_slice()),
            Place::Refused(reasons) => ("refused", None, None, reasons.as_slice()),
            Place::Unknown(reasons) => ("unknown", None, None, reasons.as_slice()),
        };
        let below = own.and_then(|_| meeting(judge, initiator, target));
        Self {
            initiator: address(topology, initiator),
            function: address(topology, target.function()),
            bar: target.bar(),
            place: word,
            address: own.map(|at| at.to_string()),
            below: below.map(|function| address(topology, function)),
            elsewhere,
            placed: placed.map(|placed| RangeDocument::new(placed.at)),
            standing: placed.map(|placed| placed.standing.word()),
            reasons: reasons.iter().cloned().map(ReasonDocument::from).collect(),
        }
    }
}

impl FindingDocument {
    pub(crate) fn new(topology: &Topology, finding: &Finding) -> Self {
        let (by, by_bar) = match finding.stray {
            Stray::Captured { by, bar } => (Some(by), bar),
            Stray::Stopped { at } => (Some(at), None),
            _ => (None, None),
        };
        let meant: Meant = finding.meant;
        let reasons = finding.stray.reasons(topology, finding.initiator);
        Self {
            initiator: address(topology, finding.initiator),
            range: RangeDocument::new(finding.range),
            meant: meant.to_string(),
            becomes: finding.stray.word(),
            by: by.map(|function| address(topology, function)),
            by_bar,
            reasons: reasons.into_iter().map(ReasonDocument::from).collect(),
        }
    }
}
