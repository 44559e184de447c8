//! Linux's `calc_map_type_and_dist` with nothing around it, as what to be faster than.
//!
//! It records no evidence, knows no unknowns, reads no registers and asks no whitelist: it
//! follows parents in an array, looks at one flag a function, and reads the gate's answer
//! from a table. Only for machines whose every fact is known, one host bridge a domain.

use peerdma::pcie::Fact;
use peerdma::route::kernel_view::{Answer, KernelView, MapType};
use peerdma::topology::{FunctionId, Parent};

/// Ends a way up.
const ROOT: usize = usize::MAX;

/// The arrays that are walked, by [`FunctionId::index`].
pub struct BareWalk {
    above: Vec<usize>,
    redirects: Vec<bool>,
    domains: Vec<usize>,
    /// The gate's answers, by `provider domain * domains + client domain`.
    gates: Vec<MapType>,
    hosts: usize,
}

impl BareWalk {
    /// Takes from a view what is walked.
    pub fn new(view: &KernelView<'_>) -> Self {
        let topology = view.topology();
        let above = |id| if let Parent::Bridge(bridge) = topology.upstream(id) { bridge.index() } else { ROOT };
        // Nothing meets above the root bus, so its first functions are answered by the gate alone.
        let on_roots: Vec<[FunctionId; 2]> = (topology.host_bridges())
            .map(|(host, _)| {
                let mut below = topology.functions().map(|(id, _)| id);
                let mut next = || below.find(|&id| topology.upstream(id) == Parent::Root(host));
                let first = next();
                [first, next()]
                    .map(|function| function.unwrap_or_else(|| unreachable!("a host bridge has two functions")))
            })
            .collect();
        let gates = on_roots.iter().flat_map(|&[provider, _]| {
            on_roots.iter().map(move |&[first, second]| {
                view.decide(provider, if first == provider { second } else { first }).map_type
            })
        });
        Self {
            above: topology.functions().map(|(id, _)| above(id)).collect(),
            redirects: topology
                .functions()
                .map(|(_, function)| function.info().registers.acs.redirects_as_linux_reads() == Fact::Known(true))
                .collect(),
            domains: topology.functions().map(|(_, function)| function.address().domain() as usize).collect(),
            gates: gates.collect(),
            hosts: on_roots.len(),
        }
    }

    /// The two loops, one in the other.
    pub fn answer(&self, provider: FunctionId, client: FunctionId) -> Answer {
        let (provider, client) = (provider.index(), client.index());
        let (mut a, mut hops_a, mut redirects) = (provider, 0, false);
        let mut hops_b = 0;
        while a != ROOT {
            redirects |= self.redirects[a];
            let mut b = client;
            hops_b = 0;
            while b != ROOT {
                if a == b {
                    return self.met_at(a, provider, client, redirects, hops_a + hops_b);
                }
                b = self.above[b];
                hops_b += 1;
            }
            a = self.above[a];
            hops_a += 1;
        }
        self.through_root(provider, client, hops_a + hops_b)
    }

    fn met_at(&self, common: usize, provider: usize, client: usize, mut redirects: bool, distance: u32) -> Answer {
        let mut b = client;
        while b != common {
            redirects |= self.redirects[b];
            b = self.above[b];
        }
        if redirects {
            return self.through_root(provider, client, distance);
        }
        Answer { map_type: MapType::BusAddr, distance, distance_is_lower_bound: false }
    }

    fn through_root(&self, provider: usize, client: usize, distance: u32) -> Answer {
        let map_type = self.gates[self.domains[provider] * self.hosts + self.domains[client]];
        Answer { map_type, distance, distance_is_lower_bound: false }
    }
}
