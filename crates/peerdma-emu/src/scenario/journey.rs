//! The way of one request, out of the machine's log.

use crate::fabric::{Egress, HostId, NodeId};
use crate::machine::{Event, Happened, Machine};
use crate::platform::Platform;

/// The way of one request from its sender to where it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journey {
    /// Who sent it, each port by which it went on, and where it ended.
    pub places: Vec<String>,
    /// Links between devices that it crossed.
    pub links: usize,
    /// Whether it came to a function, to memory or to a processor.
    pub arrived: bool,
}

impl Journey {
    /// The way of the first request of a log for which `is` finds what it looks for.
    pub(super) fn find(stage: (&Machine, &Platform), events: &[Event], is: impl Fn(&Happened) -> bool) -> Option<Self> {
        let request = events.iter().find(|event| is(&event.what))?.request;
        let own = events.iter().filter(|event| event.request == request).map(|event| event.what);
        let mut journey = Self { places: Vec::new(), links: 0, arrived: false };
        own.for_each(|what| journey.note(stage, what));
        Some(journey)
    }

    fn note(&mut self, (machine, platform): (&Machine, &Platform), what: Happened) {
        let node = |node: NodeId| machine.name(node).unwrap_or("a port").to_string();
        let host =
            |host: HostId| platform.host_bridges().get(host.index()).map_or("root", |host| &host.name).to_string();
        match what {
            Happened::Sent { from: Some(from), .. } => self.places.push(node(from)),
            Happened::Sent { from: None, .. } => self.places.push("cpu".to_string()),
            Happened::Went { egress, .. } => match egress {
                // The sender's own link; it stands there already.
                Egress::Up(at) if self.places.last() == Some(&node(at)) => self.links += 1,
                Egress::Up(at) | Egress::Down(at) => {
                    self.links += 1;
                    self.places.push(node(at));
                }
                Egress::Into(_) => {}
                Egress::Memory(at) => self.places.push(host(at)),
            },
            Happened::AtFunction { node: at, .. } => {
                self.places.push(node(at));
                self.arrived = true;
            }
            Happened::InMemory { .. } => {
                self.places.push("memory".to_string());
                self.arrived = true;
            }
            Happened::Interrupted { .. } => {
                self.places.push("cpu".to_string());
                self.arrived = true;
            }
            _ => {}
        }
    }
}
