//! `peerdma guest`: where a guest has to see BARs, and whether its addresses lead where it means.

use crate::args::GuestArguments;
use crate::commands::route::{naming, write_reasons};
use crate::document::SCHEMA;
use crate::document::Source;
use crate::document::guest::{BarDocument, DeviceDocument, FindingDocument, GuestDocument, meeting, requests};
use crate::document::whose::RangeDocument;
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use crate::select;
use peerdma::addr::{AddrRange, Bytes, GuestPhys};
use peerdma::route::guest::{
    Finding, GuestLayout, GuestReport, Initiator, LayoutError, Place, PlacedBar, Requests, Stray, check, needed_place,
};
use peerdma::route::{Judge, Permission, Reason, Target};
use peerdma::topology::{FunctionId, Topology};
use std::io::Write;

pub(crate) fn run(arguments: &GuestArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<GuestDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    if arguments.devices.is_empty() {
        return Err(Failure::usage("guest needs a --device, such as peerdma guest --device mlx5_0 --device card1"));
    }
    let loaded = input::load(&arguments.input)?;
    let stated = Stated::new(&loaded.topology, arguments)?;
    let judge = Judge::new(&loaded.topology);
    let answer = Answer::new(&judge, stated)?;
    let printed = if arguments.output.json {
        output::json(&answer.document(&loaded))
    } else {
        output::notes(&loaded.notes).and_then(|()| answer.print())
    };
    output::concluded(answer.exit(), printed)
}

/// What the command line says of the guest.
struct Stated {
    initiators: Vec<Initiator>,
    ram: Vec<AddrRange<GuestPhys>>,
    bars: Vec<(FunctionId, u8, GuestPhys)>,
}

impl Stated {
    fn new(topology: &Topology, arguments: &GuestArguments) -> Result<Self, Failure> {
        let mut initiators = Vec::new();
        for name in &arguments.devices {
            initiators.push(Initiator::of(topology, select::function(topology, name)?));
        }
        let kinds = [(&arguments.translated, Requests::Translated), (&arguments.untranslated, Requests::Untranslated)];
        let mut said = Vec::new();
        for (name, sent) in kinds.into_iter().flat_map(|(names, sent)| names.iter().map(move |name| (name, sent))) {
            let function = select::function(topology, name)?;
            let Some(initiator) = initiators.iter_mut().find(|initiator| initiator.function == function) else {
                return Err(Failure::usage(format!("{name} is no --device, so nothing is asked of what it sends")));
            };
            if said.contains(&function) {
                return Err(Failure::usage(format!("what {name} sends is said twice")));
            }
            said.push(function);
            initiator.requests = sent;
        }
        let ram = arguments.ram.iter().map(|text| ram(text)).collect::<Result<_, _>>()?;
        let bars = arguments.bars.iter().map(|text| bar(topology, text)).collect::<Result<_, _>>()?;
        Ok(Self { initiators, ram, bars })
    }
}

fn ram(text: &str) -> Result<AddrRange<GuestPhys>, Failure> {
    // Where RAM begins is as round as how much there is, so that it is written as a size too: `4G+62G`.
    let parts = text.split_once('+').and_then(|(start, len)| Some((select::size(start)?, select::size(len)?)));
    let range = parts.and_then(|(start, len)| AddrRange::new(GuestPhys::new(start.as_u64()), len));
    range.ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is no RAM; write START+LENGTH, not empty and not past 2^64, such as 4G+62G or 0x100000000+62GiB"
        ))
    })
}

fn bar(topology: &Topology, text: &str) -> Result<(FunctionId, u8, GuestPhys), Failure> {
    let form = || {
        Failure::usage(format!("{text:?} places no BAR; write FUNCTION/barN@ADDRESS, such as 04:00.0/bar0@0x91000000"))
    };
    let (what, at) = text.rsplit_once('@').ok_or_else(form)?;
    let at = GuestPhys::new(select::number(at).ok_or_else(form)?);
    let asked = select::target(topology, what)?;
    let index = asked.target.bar().filter(|_| asked.bar_is_named && !what.contains('+')).ok_or_else(form)?;
    Ok((asked.target.function(), index, at))
}

struct Answer<'j, 't> {
    judge: &'j Judge<'t>,
    stated: Stated,
    /// Why the layout cannot be one.
    impossible: Option<LayoutError>,
    report: GuestReport,
    /// BARs that the layout does not place, for each device that may reach for them.
    unplaced: Vec<(FunctionId, Target, Place)>,
}

impl<'j, 't> Answer<'j, 't> {
    fn new(judge: &'j Judge<'t>, stated: Stated) -> Result<Self, Failure> {
        let topology = judge.topology();
        let Stated { initiators, ram, bars } = &stated;
        let (report, impossible) = match GuestLayout::new(topology, initiators, ram, bars) {
            Ok(layout) => (check(judge, &layout), None),
            Err(
                error @ (LayoutError::Overlap { .. }
                | LayoutError::Misaligned { .. }
                | LayoutError::PastTheEnd { .. }
                | LayoutError::SizeUntold { .. }),
            ) => (GuestReport { bars: Vec::new(), findings: Vec::new() }, Some(error)),
            Err(error) => return Err(Failure::usage(error.to_string())),
        };
        let mut unplaced = Vec::new();
        for owner in initiators {
            for bar in &topology.function(owner.function).info().bars {
                if bars.iter().any(|(function, index, _)| (*function, *index) == (owner.function, bar.index)) {
                    continue;
                }
                let target = Target::of_bar(topology, owner.function, bar.index, None);
                let target = target.map_err(|error| Failure::usage(error.to_string()))?;
                let places = needed_place(judge, initiators, &target).places;
                unplaced.extend(places.into_iter().map(|(initiator, place)| (initiator.function, target, place)));
            }
        }
        unplaced.sort_by_key(|(initiator, ..)| initiators.iter().position(|one| one.function == *initiator));
        Ok(Self { judge, stated, impossible, report, unplaced })
    }

    fn permission(&self) -> Permission {
        match &self.impossible {
            Some(LayoutError::SizeUntold { .. }) => return Permission::Unknown,
            Some(_) => return Permission::Refused,
            None => {}
        }
        // Where some BARs are placed the others are not shown to the guest.
        let unplaced = self.unplaced.iter().filter(|_| self.stated.bars.is_empty());
        unplaced.fold(self.report.permission(), |all, (.., place)| all.and(place.permission()))
    }

    fn exit(&self) -> Exit {
        Exit::judge([self.permission()])
    }

    /// Every BAR with every device that may reach for it, placed or not.
    fn rows(&self) -> impl Iterator<Item = (FunctionId, &Target, &Place, Option<&PlacedBar>)> {
        let placed = self.report.bars.iter().map(|bar| (bar.initiator, &bar.target, &bar.place, Some(bar)));
        placed.chain(self.unplaced.iter().map(|(initiator, target, place)| (*initiator, target, place, None)))
    }

    fn document(&self, loaded: &Loaded) -> GuestDocument {
        let topology = &loaded.topology;
        GuestDocument {
            schema: SCHEMA,
            source: Source::new(loaded),
            answer: self.permission().word(),
            impossible: self.impossible.as_ref().map(ToString::to_string),
            devices: self.stated.initiators.iter().map(|one| DeviceDocument::new(topology, *one)).collect(),
            ram: self.stated.ram.iter().map(|range| RangeDocument::new(*range)).collect(),
            bars: self
                .rows()
                .map(|(initiator, target, place, placed)| {
                    BarDocument::new(self.judge, initiator, target, place, placed)
                })
                .collect(),
            findings: self.report.findings.iter().map(|one| FindingDocument::new(topology, one)).collect(),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let topology = self.judge.topology();
        let mut out = anstream::stdout().lock();
        let heading = output::heading();
        for initiator in &self.stated.initiators {
            let sent = match initiator.requests {
                Requests::Untold => "untranslated or translated requests, which nothing here tells".into(),
                other => format!("{} requests", requests(other)),
            };
            writeln!(out, "{heading}{}{heading:#} sends {sent}", naming(topology, initiator.function))?;
            let mut told: &[Reason] = &[];
            for (_, target, place, placed) in self.rows().filter(|(one, ..)| *one == initiator.function) {
                let bar = self.bar(target);
                if let Some(placed) = placed {
                    writeln!(out, "  {bar} at {}: {}", placed.at.start(), placed.standing)?;
                    writeln!(out, "    needs    {}", self.words(initiator.function, target, place))?;
                } else {
                    writeln!(out, "  {bar}: {}", self.words(initiator.function, target, place))?;
                }
                // Of a BAR that is placed the findings say why, and BARs of one function have the same reasons.
                if let (Place::Refused(reasons) | Place::Unknown(reasons), None) = (place, placed)
                    && told != reasons
                {
                    write_reasons(&mut out, "why", reasons)?;
                    told = reasons;
                }
            }
            for finding in self.report.findings.iter().filter(|finding| finding.initiator == initiator.function) {
                self.print_finding(&mut out, finding)?;
            }
        }
        if let Some(error) = &self.impossible {
            writeln!(out, "{heading}no layout{heading:#} {error}")?;
        }
        let all = self.stated.bars.is_empty() && !self.unplaced.is_empty();
        let what = match (all, self.stated.ram.is_empty()) {
            (true, true) => "an address for every BAR",
            (true, false) => "the layout, with an address for every BAR",
            (false, _) => "the layout",
        };
        writeln!(out, "{what}: {}", self.permission())?;
        Ok(())
    }

    fn print_finding(&self, out: &mut impl Write, finding: &Finding) -> Result<(), Failure> {
        let topology = self.judge.topology();
        let warning = output::warning();
        let becomes = match finding.stray {
            Stray::Captured { by, bar } => {
                let bar = bar.map_or_else(String::new, |bar| format!(" bar{bar}"));
                format!("captured by {}{bar}", naming(topology, by))
            }
            Stray::Stopped { at } => format!("stopped at {}", naming(topology, at)),
            Stray::NotTranslated => "taken for addresses of this machine".into(),
            Stray::Reserved { .. } => "kept by the IOMMU".into(),
            Stray::TooWide { .. } => "too wide for the IOMMU".into(),
            Stray::Undefined(_) => "specified nowhere".into(),
            ref other => other.word().into(),
        };
        let meant = finding.meant;
        writeln!(out, "  {warning}{}{warning:#} meant for {meant}: {}", finding.range, output::printable(&becomes))?;
        Ok(write_reasons(out, "why", &finding.stray.reasons(topology, finding.initiator))?)
    }

    fn bar(&self, target: &Target) -> String {
        let size = target.len().map_or_else(String::new, |len: Bytes| format!(" ({len})"));
        format!("{} bar{}{size}", naming(self.judge.topology(), target.function()), target.bar().unwrap_or_default())
    }

    /// Where a BAR has to be, in words.
    fn words(&self, initiator: FunctionId, target: &Target, place: &Place) -> String {
        let below = || {
            let topology = self.judge.topology();
            let meeting = meeting(self.judge, initiator, target);
            meeting.map_or_else(String::new, |function| format!(" below {}", topology.function(function).address()))
        };
        match place {
            Place::Any { direct: None } => "anywhere that comes up to the IOMMU".into(),
            Place::Any { direct: Some(at) } => {
                format!("anywhere that comes up to the IOMMU, or at {at}, where it is reached{} past it", below())
            }
            Place::Identity { at, elsewhere: Permission::Refused } => {
                format!(
                    "identity at {at}, as it is reached{}; from elsewhere the root complex does not send requests back",
                    below()
                )
            }
            Place::Identity { at, .. } => {
                format!("identity at {at}, as it is reached{}; of elsewhere it is not known", below())
            }
            Place::Refused(_) => "not reached at any address".into(),
            Place::Unknown(_) => "not known".into(),
        }
    }
}
