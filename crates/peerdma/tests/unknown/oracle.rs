//! `calc_map_type_and_dist`, pointer by pointer, over a machine that is made up as far
//! as it was not told.

use crate::list::{ANY_ID, listed, series};
use crate::told::{Home, Machine};
use peerdma::pcie::express::PortType;
use peerdma::route::kernel_view::MapType;
use std::collections::BTreeMap;

/// A bridge or function, told or made up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Dev {
    Listed(usize),
    Unlisted(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    Bus(u32, u8),
    /// With no function of its root bus told.
    New(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Up {
    Bridge(Dev),
    Root(Host),
}

/// A bridge that was made up, on behalf of a function that may need one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unlisted {
    domain: u32,
    home: Home,
    /// A bus below it.
    bus: u8,
    /// How many made-up bridges lie between it and that function, itself included.
    level: u8,
}

/// What Linux says under one way of filling in the missing facts.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) map_type: MapType,
    pub(crate) distance: u32,
    pub(crate) common: Option<Dev>,
    /// Complete only if no fact was missing.
    pub(crate) redirects: Vec<Dev>,
}

/// One way of filling in the missing facts, made up while Linux asks for them.
pub(crate) struct Guess<'m> {
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
    pub(crate) fn first(machine: &'m Machine) -> Self {
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
    pub(crate) fn following(mut self) -> Option<Self> {
        while let Some((choice, of)) = self.script.pop() {
            if choice + 1 < of {
                self.script.push((choice + 1, of));
                return Some(Self { script: self.script, ..Self::first(self.machine) });
            }
        }
        None
    }

    /// Whether every fact that was asked for was told.
    pub(crate) fn made_nothing_up(&self) -> bool {
        self.script.is_empty()
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

    pub(crate) fn is_at_or_above(&self, above: Dev, dev: Dev) -> bool {
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
    pub(crate) fn is_possible(&self) -> bool {
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
    pub(crate) fn calc(&mut self, provider: usize, client: usize) -> Outcome {
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
