//! "Unknown exactly when two ways of filling in the missing facts give different
//! answers", checked against every way of filling them in.
//!
//! The oracle here shares nothing with the crate but the words of its public
//! interface: it has its own copy of Linux's list, its own idea of where a function
//! may hang, and follows `calc_map_type_and_dist` pointer by pointer. Whenever it
//! asks for a fact that was not told, it tries all values ([`Guess::choose`]).
//! A false pass would need the same mistake twice, in two different shapes.

use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::decode::{BridgeBuses, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, PciAddr, PciId};
use peerdma::route::kernel_view::{Common, KernelView, MapType};
use peerdma::topology::{Builder, Cpu, FunctionInfo, Parent, Position, Topology};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::fmt;

// ---- What is told about a machine -----------------------------------------------

/// How a function's place is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Root(u8),
    Below(usize),
    ByBusNumber,
}

/// What is told about one function.
#[derive(Clone)]
struct Told {
    domain: u32,
    bus: u8,
    devfn: u8,
    at: At,
    /// Index of its physical function.
    physical: Option<usize>,
    /// Not told; told absent; told this control word.
    acs: Option<Option<u16>>,
    /// The ID, or what its name may stand for; empty where nothing is told.
    ids: Vec<(u16, u16)>,
    /// Not told; told to have no PCIe capability; told.
    port: Option<Option<PortType>>,
    /// For bridges: secondary and subordinate bus, where told.
    bridge: Option<Option<(u8, u8)>>,
}

impl Told {
    fn new(domain: u32, bus: u8, devfn: u8, at: At) -> Self {
        let (acs, port) = (Some(None), Some(Some(PortType::Endpoint)));
        Self { domain, bus, devfn, at, physical: None, acs, ids: vec![UNLISTED], port, bridge: None }
    }

    /// Whether its bus numbers allow `bus` below it.
    fn may_lead_to(&self, bus: u8) -> bool {
        match self.bridge {
            None => false,
            Some(None) => self.bus < bus,
            Some(Some((secondary, subordinate))) => secondary <= bus && bus <= subordinate,
        }
    }

    fn has_in_range(&self, domain: u32, bus: u8) -> bool {
        self.domain == domain && self.bridge.flatten().is_some() && self.may_lead_to(bus)
    }
}

/// Where a function hangs, as far as is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    Root(u8),
    Below(usize),
    /// Through unlisted bridges, or bridges without numbers, below this one.
    Within(usize),
    /// Anywhere in its domain.
    Somewhere,
}

#[derive(Clone, Default)]
struct Machine {
    functions: Vec<Told>,
    /// `amd:0x19`, `intel:6`, or not told.
    cpu: Option<&'static str>,
    kernel: Option<&'static str>,
    configured: Option<bool>,
}

/// One line per function: a failure is read by a person.
impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cpu {:?} kernel {:?} configured {:?}", self.cpu, self.kernel, self.configured)?;
        for (index, told) in self.functions.iter().enumerate() {
            let (address, home) = (self.address(index), self.home(index));
            write!(f, "{index}: {address} {:?} = {home:?} acs {:02x?} ids {:04x?}", told.at, told.acs, told.ids)?;
            writeln!(f, " port {:?} bridge {:02x?} vf of {:?}", told.port, told.bridge, told.physical)?;
        }
        Ok(())
    }
}

impl Machine {
    fn home(&self, index: usize) -> Home {
        let told = &self.functions[self.functions[index].physical.unwrap_or(index)];
        match told.at {
            At::Root(bus) => return Home::Root(bus),
            At::Below(bridge) => return Home::Below(bridge),
            At::ByBusNumber => {}
        }
        let same_domain = |other: &&Told| other.domain == told.domain;
        let innermost = (0..self.functions.len())
            .filter(|&other| self.functions[other].has_in_range(told.domain, told.bus))
            .max_by_key(|&other| self.functions[other].bridge.flatten());
        match innermost {
            Some(bridge) if self.functions[bridge].bridge.flatten().is_some_and(|(first, _)| first == told.bus) => {
                Home::Below(bridge)
            }
            Some(bridge) => Home::Within(bridge),
            None => {
                let mut others = self.functions.iter().filter(same_domain);
                let open = others.any(|other| {
                    let enclosed = |range: &Told| range.has_in_range(told.domain, other.bus);
                    other.bridge == Some(None) && other.bus < told.bus && !self.functions.iter().any(enclosed)
                });
                if open { Home::Somewhere } else { Home::Root(told.bus) }
            }
        }
    }

    fn address(&self, index: usize) -> PciAddr {
        let told = &self.functions[index];
        PciAddr::new(told.domain, told.bus, DevFn::new(told.devfn))
    }

    fn topology(&self) -> Topology {
        let topology = self.build();
        assert_eq!(topology.contradictions(), []);
        topology
    }

    fn build(&self) -> Topology {
        let mut builder = Builder::new();
        for (index, told) in self.functions.iter().enumerate() {
            let mut info = FunctionInfo::new(
                self.address(index),
                match told.at {
                    At::Root(bus) => Position::RootBus { bus },
                    At::Below(bridge) => Position::Below(self.address(bridge)),
                    At::ByBusNumber => Position::ByBusNumber,
                },
            );
            info.physfn = told.physical.map(|physical| self.address(physical));
            let ids: Vec<PciId> = told.ids.iter().map(|&(vendor, device)| PciId { vendor, device }).collect();
            match ids[..] {
                [id] => info.registers.id = Some(id),
                _ => info.ids_by_name = ids,
            }
            info.registers.port_type = told.port.into();
            info.registers.acs = match told.acs {
                None => Acs::Unknown(AcsUnread::Denied),
                Some(None) => Acs::Absent(AcsAbsent::WholeListRead),
                Some(Some(control)) => {
                    let control = AcsBits::from_bits_retain(control);
                    Acs::Present(AcsRegisters::standard(Some(0x148), AcsBits::all(), control, vec![]))
                }
            };
            info.registers.header = Some(if told.bridge.is_some() { HeaderType::Bridge } else { HeaderType::Device });
            info.registers.buses = told.bridge.flatten().map(|(secondary, subordinate)| BridgeBuses {
                primary: told.bus,
                secondary,
                subordinate,
            });
            builder.function(info);
        }
        let machine = builder.machine();
        machine.cpu = self.cpu.map(|cpu| cpu.parse::<Cpu>().unwrap());
        machine.kernel = self.kernel.map(|kernel| kernel.parse().unwrap());
        machine.p2pdma_configured = self.configured.into();
        builder.build()
    }
}

// ---- Linux's list, copied as facts (kernel-semantics §1.3) -----------------------

const UNLISTED: (u16, u16) = (0x10de, 0x2330);
const SAME_ONLY: [u16; 4] = [0x3c00, 0x3c01, 0x2f00, 0x2f01];
const FROM_6_1: [u16; 6] = [0x2030, 0x2031, 0x2032, 0x2033, 0x2020, 0x09a2];
const FROM_7_2: [u16; 10] = [0x0b25, 0x0cfe, 0x11fb, 0x1212, 0x1216, 0x4940, 0x4942, 0x4944, 0x4946, 0x4948];
const FROM_7_3: [u16; 4] = [0x2f95, 0x2f96, 0x2f97, 0x2f98];
/// One of every kind, for functions whose ID is not told.
const ANY_ID: [(u16, u16); 6] =
    [UNLISTED, (0x8086, 0x3c00), (0x8086, 0x2030), (0x8086, 0x0b25), (0x1ae0, 0x0042), (0x10de, 0x2f95)];

fn listed(series: (u32, u32), (vendor, device): (u16, u16), same: bool) -> bool {
    match vendor {
        0x8086 if SAME_ONLY.contains(&device) => same,
        0x8086 => FROM_6_1.contains(&device) || series >= (7, 2) && FROM_7_2.contains(&device),
        0x1ae0 => series >= (7, 2),
        0x10de => series >= (7, 3) && FROM_7_3.contains(&device),
        _ => false,
    }
}

/// The series whose lists may hold; none below the oldest known.
fn series(kernel: Option<&str>) -> Vec<(u32, u32)> {
    match kernel {
        None | Some("7.3" | "8.0") => vec![(7, 3)],
        Some("5.10") => vec![],
        Some("6.1") => vec![(6, 1)],
        Some("6.5.3") => vec![(6, 1), (6, 12)],
        Some("6.12.107") => vec![(6, 12)],
        Some("6.18") => vec![(6, 12), (7, 2)],
        Some("7.2.13") => vec![(7, 2)],
        Some(other) => panic!("no series for {other}"),
    }
}

// ---- The oracle --------------------------------------------------------------------

/// A bridge or function, told or made up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Dev {
    Listed(usize),
    Unlisted(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    Bus(u32, u8),
    /// With no function of its root bus told.
    New(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Up {
    Bridge(Dev),
    Root(Host),
}

/// A bridge that was made up, on behalf of a function that may need one.
#[derive(Clone, Copy, Debug)]
struct Unlisted {
    domain: u32,
    home: Home,
    /// A bus below it.
    bus: u8,
    /// How many made-up bridges lie between it and that function, itself included.
    level: u8,
}

/// What Linux says under one way of filling in the missing facts.
#[derive(Clone, Debug)]
struct Outcome {
    map_type: MapType,
    distance: u32,
    common: Option<Dev>,
    /// Complete only if no fact was missing.
    redirects: Vec<Dev>,
}

/// One way of filling in the missing facts, made up while Linux asks for them.
struct Guess<'m> {
    machine: &'m Machine,
    /// The choices made and of how many; replayed and counted up between runs.
    script: Vec<(usize, usize)>,
    next: usize,
    ups: BTreeMap<Dev, Up>,
    unlisted: Vec<Unlisted>,
    new_hosts: Vec<u32>,
    redirected: bool,
}

impl<'m> Guess<'m> {
    fn first(machine: &'m Machine) -> Self {
        Self {
            machine,
            script: vec![],
            next: 0,
            ups: BTreeMap::new(),
            unlisted: vec![],
            new_hosts: vec![],
            redirected: false,
        }
    }

    /// The following way of filling in; `None` after the last.
    fn following(mut self) -> Option<Self> {
        while let Some((choice, of)) = self.script.pop() {
            if choice + 1 < of {
                self.script.push((choice + 1, of));
                return Some(Self { script: self.script, ..Self::first(self.machine) });
            }
        }
        None
    }

    fn choose(&mut self, of: usize) -> usize {
        if of == 1 {
            return 0;
        }
        if self.next == self.script.len() {
            self.script.push((0, of));
        }
        self.next += 1;
        self.script[self.next - 1].0
    }

    /// What is known so far of the way up, without making anything up.
    fn known_up(&self, dev: Dev) -> Option<Up> {
        let Dev::Listed(index) = dev else { return self.ups.get(&dev).copied() };
        let placed = self.machine.functions[index].physical.unwrap_or(index);
        match self.machine.home(placed) {
            Home::Root(bus) => Some(Up::Root(Host::Bus(self.machine.functions[placed].domain, bus))),
            Home::Below(bridge) => Some(Up::Bridge(Dev::Listed(bridge))),
            Home::Within(_) | Home::Somewhere => self.ups.get(&Dev::Listed(placed)).copied(),
        }
    }

    /// The next bridge that is above in any case, past what is not made up yet.
    fn next_above(&self, dev: Dev) -> Option<Dev> {
        let home = match (self.known_up(dev), dev) {
            (Some(Up::Bridge(bridge)), _) => return Some(bridge),
            (Some(Up::Root(_)), _) => return None,
            (None, Dev::Listed(index)) => self.machine.home(index),
            (None, Dev::Unlisted(index)) => self.unlisted[index].home,
        };
        match home {
            Home::Within(bridge) => Some(Dev::Listed(bridge)),
            _ => None,
        }
    }

    fn is_at_or_above(&self, above: Dev, dev: Dev) -> bool {
        std::iter::successors(Some(dev), |&at| self.next_above(at)).any(|at| at == above)
    }

    fn up(&mut self, dev: Dev) -> Up {
        if let Some(up) = self.known_up(dev) {
            return up;
        }
        let dev = match dev {
            Dev::Listed(index) => Dev::Listed(self.machine.functions[index].physical.unwrap_or(index)),
            unlisted => unlisted,
        };
        let functions = &self.machine.functions;
        let Unlisted { domain, home, bus, level } = match dev {
            Dev::Unlisted(index) => self.unlisted[index],
            Dev::Listed(index) => {
                let told = &functions[index];
                Unlisted { domain: told.domain, home: self.machine.home(index), bus: told.bus, level: 0 }
            }
        };
        // A virtual function of an unlisted physical one sits on a bus of its own, with no bridge leading to it.
        let may_be_virtual = matches!(dev, Dev::Listed(index) if functions[index].bridge.is_none());
        let made_up = level > 0;
        let mut options = vec![];
        for (index, bridge) in functions.iter().enumerate() {
            let inside = match home {
                Home::Within(around) => index == around || functions[around].has_in_range(domain, bridge.bus),
                _ => true,
            };
            let right_below = made_up || may_be_virtual || bridge.bridge == Some(None);
            if bridge.domain == domain && bridge.may_lead_to(bus) && inside && right_below {
                options.push(Up::Bridge(Dev::Listed(index)));
            }
        }
        for (index, other) in self.unlisted.iter().enumerate() {
            if (other.domain, other.home) == (domain, home) {
                options.push(Up::Bridge(Dev::Unlisted(index)));
            }
        }
        options.retain(|option| !matches!(option, Up::Bridge(bridge) if self.is_at_or_above(dev, *bridge)));
        if home == Home::Somewhere {
            let mut roots: Vec<u8> = (0..functions.len())
                .filter(|&other| functions[other].domain == domain)
                .filter_map(|other| match self.machine.home(other) {
                    Home::Root(root) => Some(root),
                    _ => None,
                })
                .filter(|&root| root == bus || root < bus && (made_up || may_be_virtual))
                .collect();
            roots.sort_unstable();
            roots.dedup();
            options.extend(roots.into_iter().map(|root| Up::Root(Host::Bus(domain, root))));
            let new = (0..self.new_hosts.len()).filter(|&host| self.new_hosts[host] == domain);
            options.extend(new.map(|host| Up::Root(Host::New(host))));
        }
        // One more root bus; one more bridge, of which two in a row are enough to see what they do.
        let (more_roots, more_bridges) = (usize::from(home == Home::Somewhere), usize::from(level < 2));
        let choice = self.choose(options.len() + more_roots + more_bridges);
        let up = match options.get(choice) {
            Some(&up) => up,
            None if choice == options.len() && more_bridges == 1 => {
                self.unlisted.push(Unlisted { domain, home, bus, level: level + 1 });
                Up::Bridge(Dev::Unlisted(self.unlisted.len() - 1))
            }
            None => {
                self.new_hosts.push(domain);
                Up::Root(Host::New(self.new_hosts.len() - 1))
            }
        };
        self.ups.insert(dev, up);
        up
    }

    fn upstream_bridge(&mut self, dev: Dev) -> Option<Dev> {
        match self.up(dev) {
            Up::Bridge(bridge) => Some(bridge),
            Up::Root(_) => None,
        }
    }

    fn host(&mut self, mut dev: Dev) -> Host {
        loop {
            match self.up(dev) {
                Up::Bridge(bridge) => dev = bridge,
                Up::Root(host) => return host,
            }
        }
    }

    /// Whether bus numbers allow all the places made up.
    fn is_possible(&self) -> bool {
        self.ups.keys().all(|&start| {
            let Dev::Listed(index) = start else { return true };
            let bus = self.machine.functions[index].bus;
            let mut way = std::iter::successors(Some(start), |&at| self.next_above(at)).skip(1);
            let leads = way.all(|at| match at {
                Dev::Listed(bridge) => self.machine.functions[bridge].may_lead_to(bus),
                Dev::Unlisted(_) => true,
            });
            let top = std::iter::successors(Some(start), |&at| self.next_above(at)).last();
            let root_fits = match top.and_then(|top| self.known_up(top)) {
                Some(Up::Root(Host::Bus(_, root))) => root <= bus,
                _ => true,
            };
            leads && root_fits
        })
    }

    /// `pci_bridge_has_acs_redir`. Linux counts; past the first the count changes nothing,
    /// so a word that was not told is then not guessed at either.
    fn redirects(&mut self, dev: Dev) -> bool {
        let told = match dev {
            Dev::Listed(index) => self.machine.functions[index].acs,
            Dev::Unlisted(_) => None,
        };
        let redirects = match told {
            Some(control) => control.is_some_and(|control| control & (0x04 | 0x08 | 0x20) != 0),
            None => !self.redirected && self.choose(2) == 1,
        };
        self.redirected |= redirects;
        redirects
    }

    /// `calc_map_type_and_dist`.
    fn calc(&mut self, provider: usize, client: usize) -> Outcome {
        let (mut redirects, mut dist_a, mut dist_b, mut common) = (vec![], 0, 0, None);
        let mut a = Some(Dev::Listed(provider));
        'provider: while let Some(at) = a {
            dist_b = 0;
            if self.redirects(at) {
                redirects.push(at);
            }
            let mut b = Some(Dev::Listed(client));
            while let Some(at_b) = b {
                if at_b == at {
                    common = Some(at);
                    break 'provider;
                }
                b = self.upstream_bridge(at_b);
                dist_b += 1;
            }
            a = self.upstream_bridge(at);
            dist_a += 1;
        }
        let distance = dist_a + dist_b;
        if let Some(common) = common {
            let mut b = Dev::Listed(client);
            while b != common {
                if self.redirects(b) {
                    redirects.push(b);
                }
                b = self.upstream_bridge(b).unwrap();
            }
            if redirects.is_empty() {
                return Outcome { map_type: MapType::BusAddr, distance, common: Some(common), redirects };
            }
        }
        let opens = self.cpu_supports_p2pdma() || self.host_bridge_whitelist(provider, client);
        let map_type = if opens { MapType::ThruHostBridge } else { MapType::NotSupported };
        Outcome { map_type, distance, common, redirects }
    }

    fn cpu_supports_p2pdma(&mut self) -> bool {
        match self.machine.cpu {
            Some(cpu) => cpu == "amd:0x19",
            None => self.choose(2) == 1,
        }
    }

    fn host_bridge_whitelist(&mut self, a: usize, b: usize) -> bool {
        let series = series(self.machine.kernel);
        if series.is_empty() {
            return self.choose(2) == 1;
        }
        let series = series[self.choose(series.len())];
        let (a, b) = (self.host(Dev::Listed(a)), self.host(Dev::Listed(b)));
        if a == b {
            return self.passes(series, a, true);
        }
        self.passes(series, a, false) && self.passes(series, b, false)
    }

    /// `__host_bridge_whitelist` of what `pci_host_bridge_dev` returns.
    fn passes(&mut self, series: (u32, u32), host: Host, same: bool) -> bool {
        let functions = &self.machine.functions;
        let first = match host {
            Host::New(_) => None,
            Host::Bus(domain, bus) => (0..functions.len())
                .filter(|&f| {
                    functions[f].domain == domain && functions[f].bus == bus && functions[f].physical.is_none()
                })
                .filter(|&f| self.machine.home(f) == Home::Root(bus))
                .min_by_key(|&f| functions[f].devfn),
        };
        let Some(first) = first else {
            let id = ANY_ID[self.choose(ANY_ID.len())];
            return listed(series, id, same);
        };
        let told = &functions[first];
        let counts = told.devfn == 0
            || match told.port {
                Some(kind) => kind == Some(PortType::RootPort),
                None => self.choose(2) == 1,
            };
        let ids = if told.ids.is_empty() { &ANY_ID[..] } else { &told.ids };
        counts && listed(series, ids[self.choose(ids.len())], same)
    }
}

// ---- The comparison ----------------------------------------------------------------

/// What a check came by, so that a test can show that it came by what it is about.
#[derive(Default, Debug)]
struct Seen {
    pairs: usize,
    guesses: usize,
    unknown: usize,
    certain_despite_gaps: usize,
    complete: usize,
}

fn check_places(machine: &Machine, topology: &Topology) {
    let at = |index: usize| topology.at(machine.address(index)).unwrap();
    for index in 0..machine.functions.len() {
        match (machine.home(index), topology.upstream(at(index))) {
            (Home::Root(bus), Parent::Root(host)) => assert_eq!(topology.host_bridge(host).bus(), bus),
            (Home::Below(bridge), Parent::Bridge(found)) => assert_eq!(at(bridge), found),
            (Home::Within(bridge), Parent::Unknown { enclosing: Some(found) }) => assert_eq!(at(bridge), found),
            (Home::Somewhere, Parent::Unknown { enclosing: None }) => {}
            (expected, found) => panic!("{} is placed {found:?}, not {expected:?}", machine.address(index)),
        }
    }
}

fn check(machine: &Machine, seen: &mut Seen) {
    let topology = machine.topology();
    check_places(machine, &topology);
    let view = KernelView::new(&topology);
    for provider in 0..machine.functions.len() {
        for client in 0..machine.functions.len() {
            check_pair(machine, &topology, &view, (provider, client), seen);
        }
    }
}

fn check_pair(
    machine: &Machine,
    topology: &Topology,
    view: &KernelView<'_>,
    (provider, client): (usize, usize),
    seen: &mut Seen,
) {
    let at = |index: usize| topology.at(machine.address(index)).unwrap();
    let decision = view.decide(at(provider), at(client));
    let context = || {
        let (provider, client) = (machine.address(provider), machine.address(client));
        format!("memory of {provider} for {client}\n{decision:?}\n{machine:?}")
    };
    if machine.configured == Some(false) {
        assert_eq!(decision.map_type, MapType::NotSupported, "{}", context());
        return;
    }
    let (mut answers, mut guesses, mut complete) = (Vec::new(), 0, None);
    let mut guess = Some(Guess::first(machine));
    while let Some(mut this) = guess {
        let outcome = this.calc(provider, client);
        guesses += 1;
        assert!(guesses < 500_000, "too many ways of filling in\n{}", context());
        if this.is_possible() {
            if !answers.contains(&outcome.map_type) {
                answers.push(outcome.map_type);
            }
            if decision.hidden_below.is_empty() {
                assert_eq!(decision.distance, outcome.distance, "{}", context());
            } else {
                assert!(decision.distance <= outcome.distance, "{}", context());
            }
            let common_holds = match decision.common {
                Common::At(common) => outcome.common.is_some_and(|dev| dev_id(machine, topology, dev) == Some(common)),
                Common::AtOrBelow(above) => outcome.common.is_some_and(|dev| {
                    let is_above = |index: &usize| at(*index) == above;
                    let above = (0..machine.functions.len()).find(is_above).unwrap();
                    this.is_at_or_above(Dev::Listed(above), dev)
                }),
                Common::Nowhere => outcome.common.is_none(),
                Common::Unknown => true,
            };
            assert!(common_holds, "the ways meet at {:?}\n{}", outcome.common, context());
            if this.script.is_empty() {
                complete = Some(outcome);
            }
        }
        // Two answers are enough to show that the input cannot tell.
        guess = if answers.len() > 1 { None } else { this.following() };
    }
    let expected = match answers[..] {
        [one] => one,
        _ => MapType::Unknown,
    };
    assert_eq!(decision.map_type, expected, "of {guesses} ways, answers {answers:?}\n{}", context());
    if let Some(outcome) = &complete
        && outcome.common.is_some()
    {
        let redirects: Vec<_> = outcome.redirects.iter().map(|&dev| dev_id(machine, topology, dev)).collect();
        let decided: Vec<_> = decision.redirects().map(Some).collect();
        assert_eq!(decided, redirects, "{}", context());
    }
    seen.pairs += 1;
    seen.guesses += guesses;
    seen.unknown += usize::from(expected == MapType::Unknown);
    seen.complete += usize::from(complete.is_some());
    seen.certain_despite_gaps += usize::from(expected != MapType::Unknown && guesses > 1);
}

fn dev_id(machine: &Machine, topology: &Topology, dev: Dev) -> Option<peerdma::topology::FunctionId> {
    match dev {
        Dev::Listed(index) => topology.at(machine.address(index)),
        Dev::Unlisted(_) => None,
    }
}

// ---- Machines at random --------------------------------------------------------------

/// Choices out of bytes, so that fewer and smaller bytes make a simpler machine.
struct Dice<'b>(std::slice::Iter<'b, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }
}

/// Builds a machine of at most [`Maker::MOST`] functions.
struct Maker<'b> {
    dice: Dice<'b>,
    functions: Vec<Told>,
    domain: u32,
    free_bus: u8,
    /// Functions in all once this root bus is done.
    most: usize,
}

impl Maker<'_> {
    const MOST: usize = 8;

    fn machine(bytes: &[u8]) -> Machine {
        let mut maker = Maker { dice: Dice(bytes.iter()), functions: vec![], domain: 0, free_bus: 0, most: 0 };
        let roots: &[(u32, u8)] =
            [&[(0, 0)][..], &[(0, 0), (0, 0x80)], &[(0, 0), (1, 0)], &[(0, 0), (0, 0x80), (0x10000, 0)]]
                [maker.dice.roll(4)];
        for (nth, &(domain, root)) in roots.iter().enumerate() {
            (maker.domain, maker.free_bus) = (domain, root + 1);
            maker.most = (nth + 1) * Self::MOST / roots.len();
            maker.bus(At::Root(root), root, 0);
            for _ in 0..maker.dice.roll(3) {
                maker.stray();
            }
            // A root bus of which no function is listed, known from a virtual function's path.
            if maker.dice.roll(12) == 1 {
                let (unlisted, bus) = (maker.fresh_bus(), maker.fresh_bus());
                maker.function(bus, 0, At::Root(unlisted));
            }
        }
        Machine {
            cpu: maker.dice.pick(&[Some("intel:6"), Some("amd:0x19"), None, Some("hygon:0x18")]),
            kernel: maker.dice.pick(&[
                None,
                Some("7.2.13"),
                Some("6.18"),
                Some("6.12.107"),
                Some("6.5.3"),
                Some("6.1"),
                Some("7.3"),
                Some("8.0"),
                Some("5.10"),
            ]),
            configured: maker.dice.pick(&[None, None, None, Some(true), Some(true), None, None, Some(false)]),
            functions: maker.functions,
        }
    }

    fn fresh_bus(&mut self) -> u8 {
        self.free_bus += 1;
        self.free_bus - 1
    }

    fn full(&self) -> bool {
        self.functions.len() >= self.most
    }

    fn function(&mut self, bus: u8, devfn: u8, at: At) -> Option<usize> {
        if self.full() {
            return None;
        }
        let mut told = Told::new(self.domain, bus, devfn, at);
        let redirect = self.dice.pick(&[0x04, 0x08, 0x20, 0x7f]);
        let absent = Some(None);
        told.acs = self.dice.pick(&[absent, Some(Some(0x53)), absent, None, Some(Some(redirect)), Some(Some(0)), None]);
        told.ids = self.dice.pick(&[
            vec![UNLISTED],
            vec![(0x8086, 0x2030)],
            vec![(0x8086, 0x3c00)],
            vec![(0x8086, 0x0b25)],
            vec![(0x10de, 0x2f95)],
            vec![(0x1ae0, 0x1234)],
            vec![],
            vec![(0x8086, 0x2031), (0x8086, 0x2f01)],
            vec![(0x8086, 0x2032), (0x8086, 0x2020)],
            vec![UNLISTED, (0x8086, 0x09a2)],
            vec![(0x8086, 0x4940), (0x8086, 0x2033)],
        ]);
        told.port = self.dice.pick(&[
            Some(Some(PortType::RootPort)),
            Some(Some(PortType::RootComplexIntegrated)),
            None,
            Some(None),
        ]);
        self.functions.push(told);
        Some(self.functions.len() - 1)
    }

    /// Some functions on a bus, and what is below them.
    fn bus(&mut self, at: At, bus: u8, depth: usize) {
        let is_root = matches!(at, At::Root(_));
        let first_slot = if is_root { self.dice.roll(2) as u8 } else { 0 };
        for slot in first_slot..=first_slot + self.dice.roll(2) as u8 + u8::from(is_root) {
            let Some(index) = self.function(bus, slot << 3, at) else { return };
            match self.dice.roll(8) {
                0 | 1 => {}
                2 => {
                    self.function(bus, slot << 3 | 1, at);
                }
                3 => {
                    let (vf_bus, devfn) =
                        if self.dice.roll(2) == 0 { (bus, slot << 3 | 4) } else { (self.fresh_bus(), 0) };
                    if let Some(vf) = self.function(vf_bus, devfn, at) {
                        self.functions[vf].physical = Some(index);
                    }
                }
                _ if depth < 3 => self.below(index, depth),
                _ => {}
            }
        }
    }

    /// Makes a function a bridge, which tells its bus numbers or not.
    fn below(&mut self, index: usize, depth: usize) {
        let secondary = self.fresh_bus();
        self.functions[index].bridge = Some(None);
        self.bus(At::Below(index), secondary, depth + 1);
        if self.dice.roll(3) == 1 {
            self.stray();
        }
        if self.dice.roll(4) != 1 {
            self.functions[index].bridge = Some(Some((secondary, self.free_bus - 1)));
        }
    }

    /// A function on a bus to which no listed bridge leads.
    fn stray(&mut self) {
        let bus = self.fresh_bus();
        let Some(index) = self.function(bus, 0, At::ByBusNumber) else { return };
        match self.dice.roll(6) {
            3 => {
                self.function(bus, 1, At::ByBusNumber);
            }
            4 => {
                let bus = self.fresh_bus();
                if let Some(vf) = self.function(bus, 0, At::ByBusNumber) {
                    self.functions[vf].physical = Some(index);
                }
            }
            5 => self.below(index, 2),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unknown_exactly_when_two_ways_of_filling_in_give_different_answers(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        check(&Maker::machine(&bytes), &mut Seen::default());
    }
}

/// A generator that made only complete machines, or only hopeless ones, would prove nothing.
#[test]
fn the_machines_at_random_are_of_all_kinds() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    for _ in 0..200 {
        let bytes = prop::collection::vec(any::<u8>(), 120).new_tree(&mut runner).unwrap().current();
        check(&Maker::machine(&bytes), &mut seen);
    }
    assert!(seen.unknown * 5 > seen.pairs, "{seen:?}");
    assert!(seen.complete * 10 > seen.pairs, "{seen:?}");
    assert!(seen.certain_despite_gaps * 10 > seen.pairs, "{seen:?}");
    assert!(seen.guesses > 2 * seen.pairs, "{seen:?}");
}

// ---- Machines by hand, with every ACS word clear, set and not told --------------------

/// Checks all 3^n ways of telling the ACS words of `varied`, for pairs of `ends`.
fn check_all_acs(mut machine: Machine, varied: &[usize], ends: &[usize]) {
    let topology = machine.topology();
    check_places(&machine, &topology);
    let mut seen = Seen::default();
    for number in 0..3usize.pow(varied.len() as u32) {
        let mut digits = number;
        for &index in varied {
            machine.functions[index].acs = [None, Some(Some(0x53)), Some(Some(0x04))][digits % 3];
            digits /= 3;
        }
        let topology = machine.topology();
        let view = KernelView::new(&topology);
        for pair in ends.iter().flat_map(|&provider| ends.iter().map(move |&client| (provider, client))) {
            check_pair(&machine, &topology, &view, pair, &mut seen);
        }
    }
    assert!(seen.unknown > 0 && seen.unknown < seen.pairs, "{seen:?}");
}

/// CPUs and kernels that make the gate open, closed and unknown.
fn with_gates(functions: &[Told], check: impl Fn(Machine)) {
    for (cpu, kernel) in [(Some("amd:0x19"), None), (Some("intel:6"), Some("7.2.13")), (None, Some("6.18"))] {
        check(Machine { functions: functions.to_vec(), cpu, kernel, configured: None });
    }
}

fn bridge(bus: u8, devfn: u8, at: At, buses: Option<(u8, u8)>) -> Told {
    Told { bridge: Some(buses), ..Told::new(0, bus, devfn, at) }
}

#[test]
fn a_switch_with_two_endpoints() {
    let functions = [
        bridge(0, 0x08, At::Root(0), Some((1, 4))),
        bridge(1, 0, At::ByBusNumber, Some((2, 4))),
        bridge(2, 0, At::ByBusNumber, Some((3, 3))),
        bridge(2, 0x08, At::ByBusNumber, Some((4, 4))),
        Told::new(0, 3, 0, At::ByBusNumber),
        Told::new(0, 4, 0, At::ByBusNumber),
    ];
    with_gates(&functions, |machine| check_all_acs(machine, &[0, 1, 2, 3, 4, 5], &[0, 3, 4, 5]));
}

#[test]
fn two_root_ports_and_an_integrated_endpoint() {
    let mut functions = [
        Told::new(0, 0, 0, At::Root(0)),
        bridge(0, 0x08, At::Root(0), Some((1, 1))),
        bridge(0, 0x10, At::Root(0), Some((2, 2))),
        Told::new(0, 1, 0, At::Below(1)),
        Told::new(0, 1, 1, At::Below(1)),
        Told::new(0, 2, 0, At::Below(2)),
    ];
    functions[0].ids = vec![(0x8086, 0x0b25)];
    with_gates(&functions, |machine| check_all_acs(machine, &[1, 2, 3, 4, 5], &[0, 1, 3, 4, 5]));
}

#[test]
fn virtual_functions_with_and_without_a_known_physical_one() {
    let mut functions = [
        bridge(0, 0x08, At::Root(0), Some((1, 4))),
        Told::new(0, 1, 0, At::Below(0)),
        Told::new(0, 2, 0, At::Below(0)),
        Told::new(0, 3, 0, At::ByBusNumber),
        Told::new(0, 4, 0, At::ByBusNumber),
    ];
    functions[2].physical = Some(1);
    functions[4].physical = Some(3);
    with_gates(&functions, |machine| check_all_acs(machine, &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]));
}

#[test]
fn functions_lost_below_a_port_beside_a_bridge_without_numbers() {
    let functions = [
        bridge(0, 0x08, At::Root(0), Some((1, 4))),
        bridge(1, 0, At::Below(0), None),
        Told::new(0, 2, 0, At::Below(1)),
        Told::new(0, 3, 0, At::ByBusNumber),
        Told::new(0, 4, 0, At::ByBusNumber),
    ];
    with_gates(&functions, |machine| check_all_acs(machine, &[0, 1, 2, 3, 4], &[1, 2, 3, 4]));
}

#[test]
fn functions_that_may_hang_anywhere() {
    let functions = [
        Told::new(0, 0, 0, At::Root(0)),
        bridge(0, 0x08, At::Root(0), None),
        Told::new(0, 1, 0, At::Below(1)),
        bridge(4, 0, At::ByBusNumber, Some((5, 6))),
        Told::new(0, 5, 0, At::ByBusNumber),
        Told::new(0, 6, 0, At::ByBusNumber),
        Told::new(0, 7, 0, At::ByBusNumber),
    ];
    with_gates(&functions, |machine| check_all_acs(machine, &[2, 3, 6], &[0, 2, 4, 6]));
}

/// Host bridges that Linux lists only for pairs below one and the same: whether a
/// function of unknown place can be below this one decides.
#[test]
fn functions_that_may_hang_anywhere_but_not_in_another_domain_nor_above_a_higher_root_bus() {
    for (domain, root) in [(1, 0), (0, 0x80), (1, 0x80)] {
        let mut functions = [
            Told::new(domain, root, 0, At::Root(root)),
            Told { bridge: Some(None), ..Told::new(domain, root, 0x08, At::Root(root)) },
            Told::new(domain, root + 1, 0, At::Below(1)),
            bridge(0, 0x08, At::Root(0), None),
            Told::new(0, 0x40, 0, At::ByBusNumber),
        ];
        functions[0].ids = vec![(0x8086, 0x3c00)];
        with_gates(&functions, |machine| check_all_acs(machine, &[1, 2, 3, 4], &[0, 1, 2, 3, 4]));
    }
}

/// The bus of 04:00.0 is claimed by two bridges below 00:01.0, one of which is wrong. It may
/// meet 03:00.0 at an unlisted bridge below the port, whose own redirect then does not count.
#[test]
fn what_is_contradicted_may_meet_others_below_the_port_too() {
    let mut machine = Machine {
        functions: vec![
            bridge(0, 0x08, At::Root(0), Some((1, 4))),
            bridge(1, 0x08, At::ByBusNumber, Some((4, 4))),
            bridge(1, 0x10, At::ByBusNumber, Some((4, 4))),
            Told::new(0, 3, 0, At::ByBusNumber),
            Told::new(0, 4, 0, At::ByBusNumber),
        ],
        cpu: Some("amd:0x19"),
        ..Machine::default()
    };
    machine.functions[0].acs = Some(Some(0x04));
    let topology = machine.build();
    let at = |index: usize| topology.at(machine.address(index)).unwrap();
    assert_eq!(topology.contradictions().len(), 1);
    let view = KernelView::new(&topology);
    for (provider, client) in [(3, 4), (4, 3)] {
        assert_eq!(view.decide(at(provider), at(client)).map_type, MapType::Unknown);
    }
}
