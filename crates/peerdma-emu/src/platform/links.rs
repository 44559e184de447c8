//! Links and port numbers: what the two ends of a link, and ports beside each other, must agree on.

use super::error::{PlatformError, Source};
use super::model::{HostBridge, LinkState, Parent};
use super::number::in_range;
use super::problem::LinkProblem;
use super::raw;
use super::tree::Tree;
use super::words::PortKind;
use peerdma::pcie::express::LinkSpeed;
use std::collections::BTreeMap;
use toml::Spanned;

type Stated = Spanned<raw::Table<raw::Link>>;

/// Links of ports and of functions, each in the file's order.
pub(super) struct Links {
    pub(super) ports: Vec<Option<LinkState>>,
    pub(super) functions: Vec<Option<LinkState>>,
}

impl Links {
    pub(super) fn new(
        source: Source<'_>,
        raw: &raw::File,
        tree: &Tree,
        hosts: &[HostBridge],
    ) -> Result<Self, PlatformError> {
        let read = |link: Option<&Stated>| link.map(|link| state(source, &link.get_ref().0)).transpose();
        let ports = raw.port.iter().map(|port| read(port.link.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let functions =
            raw.function.iter().map(|function| read(function.link.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let check = |link: Option<&Stated>, state: Option<LinkState>, parent: Parent, name: &str| {
            let (Some(link), Some(state)) = (link, state) else { return Ok(()) };
            match parent {
                Parent::HostBridge(host) => {
                    let host_bridge = hosts[host.0].name.clone();
                    Err(source.error(&link.span(), LinkProblem::NoLink { name: name.to_string(), host_bridge }))
                }
                Parent::Port(port) => match ports[port.0].filter(|&other| other != state) {
                    None => Ok(()),
                    Some(other) => {
                        let port = &raw.port[port.0];
                        let problem = LinkProblem::LinkEndsDiffer {
                            link: words(state),
                            other: port.name.get_ref().clone(),
                            other_link: words(other),
                            line: port.link.as_ref().map_or(0, |link| source.line(&link.span())),
                        };
                        Err(source.error(&link.span(), problem))
                    }
                },
            }
        };
        for ((port, &state), place) in raw.port.iter().zip(&ports).zip(&tree.ports) {
            // A root port's and a downstream port's link is the one below it.
            if matches!(port.kind, PortKind::Upstream | PortKind::PciePci) {
                check(port.link.as_ref(), state, place.parent, port.name.get_ref())?;
            }
        }
        for ((function, &state), place) in raw.function.iter().zip(&functions).zip(&tree.functions) {
            check(function.link.as_ref(), state, place.parent, function.name.get_ref())?;
        }
        Ok(Self { ports, functions })
    }
}

fn words(link: LinkState) -> String {
    format!("{} x{}", link.speed, link.width)
}

fn state(source: Source<'_>, raw: &raw::Link) -> Result<LinkState, PlatformError> {
    let text = raw.speed.get_ref();
    let speed = (1..=6).filter_map(LinkSpeed::from_field).find(|speed| speed.to_string().replace(' ', "") == *text);
    let speed = speed.ok_or_else(|| source.error(&raw.speed.span(), LinkProblem::LinkSpeed { speed: text.clone() }))?;
    // PCIe 6.0 §7.5.3.8, with the two widths that it took back.
    match raw.width.get_ref().0 {
        found @ (1 | 2 | 4 | 8 | 12 | 16 | 32) => Ok(LinkState { speed, width: found as u8 }),
        found => Err(source.error(&raw.width.span(), LinkProblem::LinkWidth { found })),
    }
}

/// Port numbers: those stated, else those that follow from addresses, no two ports of one
/// parent with the same.
pub(super) fn numbers(source: Source<'_>, raw: &raw::File, tree: &Tree) -> Result<Vec<u8>, PlatformError> {
    let mut numbers = tree.numbers.clone();
    for (number, port) in numbers.iter_mut().zip(raw.port.iter()) {
        if let Some(stated) = &port.number {
            *number = in_range(source, "number", (0, 0xff), stated)?;
        }
    }
    let mut taken = BTreeMap::new();
    for (index, (&number, place)) in numbers.iter().zip(&tree.ports).enumerate() {
        let parent = match place.parent {
            Parent::HostBridge(host) => (0, host.0),
            Parent::Port(port) => (1, port.0),
        };
        let Some(other) = taken.insert((parent, number), index) else { continue };
        // Numbers that follow from addresses differ, so one of the two is stated.
        let stated = |port: usize| raw.port[port].number.as_ref().map(Spanned::span);
        let (culprit, other, span) = match (stated(index), stated(other)) {
            (Some(span), _) => (index, other, span),
            (None, Some(span)) => (other, index, span),
            (None, None) => continue,
        };
        let name = &raw.port[other].name;
        let problem = LinkProblem::PortNumberTaken {
            number: numbers[culprit],
            other: name.get_ref().clone(),
            line: source.line(&name.span()),
        };
        return Err(source.error(&span, problem));
    }
    Ok(numbers)
}
