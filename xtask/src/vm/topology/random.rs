//! A topology from a seed: always the same one from the same seed.
//!
//! Numbers come from SplitMix64 (Steele, Lea and Flood 2014, *Fast splittable pseudorandom
//! number generators*), whose constants are fixed, so a seed in a report means the same
//! machine years later. Rejected: a crate, whose next version may draw otherwise.
//!
//! A model has 15 to 40 functions. What is drawn is legal by construction: places are taken
//! in order, and scarce things (buses, I/O windows, large BARs) come out of a budget.

use super::model::{Draft, Endpoint, Expander, Model, OWN_DEVICES, OnLink, OnRootBus, Placed, RootPort, Switch};
use super::words::{at, ivshmem, nvme, nvme_cmb, test_device};

/// Fewest and most functions of a random model, q35's own and virtual ones not counted.
pub(crate) const FUNCTIONS: std::ops::RangeInclusive<usize> = 15..=40;
/// Deepest switch in a switch in a switch.
const DEEPEST: usize = 3;

/// The model of a seed.
///
/// # Panics
/// If it drew a tree that is not legal, which no seed may; thousands are tested.
pub(crate) fn random(seed: u64) -> Model {
    let drawn = Draw::new(seed).draft().check();
    assert!(drawn.is_ok(), "what is drawn is legal by construction, seed {seed} is not: {drawn:?}");
    drawn.unwrap_or_default()
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 0 to `n` - 1. The remainder favours low numbers by less than one in 2^57.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

struct Draw {
    numbers: SplitMix64,
    /// Functions still to be had.
    left: usize,
    /// Devices with I/O ports still to be had.
    io_left: usize,
    /// Physical functions of SR-IOV still to be had.
    sriov_left: usize,
}

impl Draw {
    fn new(seed: u64) -> Self {
        let mut numbers = SplitMix64(seed);
        let left = FUNCTIONS.start() + numbers.below(FUNCTIONS.end() - FUNCTIONS.start() + 1);
        let sriov_left = usize::from(numbers.percent(30));
        Self { numbers, left, io_left: 6, sriov_left }
    }

    fn draft(&mut self) -> Draft {
        let further = [0, 0, 1, 1, 2][self.numbers.below(5)];
        let mut draft = Draft::default();
        for nth in 0..further {
            // A host bridge is a function of bus 0 itself.
            self.left -= 1;
            draft.expanders.push(Expander { device: 0x1e - nth, bus: 0x40 + 0x40 * nth, ports: Vec::new() });
        }
        let mut devices: Vec<Devices> = (0..=further).map(|host| self.devices(host == 0)).collect();
        while self.left > 0 {
            let host = self.numbers.below(devices.len());
            // Five hundred devices on three buses outlast forty functions; were it otherwise,
            // the model would be smaller.
            let Some(device) = devices[host].next() else { break };
            match host.checked_sub(1) {
                Some(host) => draft.expanders[host].ports.extend(self.root_ports(device)),
                None if self.left > 1 && self.numbers.percent(70) => {
                    let ports = self.root_ports(device).into_iter();
                    draft.q35.extend(ports.map(|port| Placed { at: port.at, what: OnRootBus::Port(port.what) }));
                }
                None => draft.q35.extend(self.integrated(device)),
            }
        }
        draft
    }

    /// Devices of a root bus, from a start that is drawn, so that sometimes 00.0 is taken.
    fn devices(&mut self, is_q35: bool) -> Devices {
        if is_q35 { Devices { next: 4, end: 0x1b } } else { Devices { next: self.numbers.below(3) as u8, end: 0x20 } }
    }

    /// How many functions the next device of a root bus has.
    fn count(&mut self) -> u8 {
        if self.numbers.percent(20) { 3 } else { 1 }
    }

    /// A device of root ports.
    fn root_ports(&mut self, device: u8) -> Vec<Placed<RootPort>> {
        let mut ports = Vec::new();
        for function in 0..self.count() {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let acs = self.numbers.percent(70);
            ports.push(at(device, function, RootPort { acs, below: self.link(1, 92) }));
        }
        ports
    }

    /// An integrated device.
    fn integrated(&mut self, device: u8) -> Vec<Placed<OnRootBus>> {
        let count = usize::from(self.count()).min(self.left);
        self.left -= count;
        (0..count as u8).map(|function| at(device, function, OnRootBus::Endpoint(self.endpoint(true)))).collect()
    }

    /// What is at the end of a link, `depth` switches down; nothing in some cases.
    fn link(&mut self, depth: usize, chance: usize) -> Vec<Placed<OnLink>> {
        if self.left == 0 || !self.numbers.percent(chance) {
            return Vec::new();
        }
        match self.numbers.below(100) {
            0..45 if depth <= DEEPEST && self.left >= 4 => self.switch(depth),
            45..53 if self.left >= 2 => self.conventional(),
            53..60 if self.sriov_left > 0 => {
                (self.left, self.sriov_left) = (self.left - 1, 0);
                let virtual_functions = 1 + self.numbers.below(4) as u8;
                vec![at(0, 0, OnLink::Endpoint(Endpoint::NvmeSriov { virtual_functions }))]
            }
            _ => self.device(),
        }
    }

    fn device(&mut self) -> Vec<Placed<OnLink>> {
        let most = if self.numbers.percent(35) { 2 + self.numbers.below(3) } else { 1 };
        let count = most.min(self.left);
        self.left -= count;
        let mut functions: Vec<_> = (0..count as u8).map(|function| at(0, function, self.endpoint(true))).collect();
        if count > 1 && functions[0].what == Endpoint::Igb {
            // It would hide the others.
            functions[0].what = Endpoint::Edu;
        }
        functions.into_iter().map(|one| Placed { at: one.at, what: OnLink::Endpoint(one.what) }).collect()
    }

    fn switch(&mut self, depth: usize) -> Vec<Placed<OnLink>> {
        self.left -= 1;
        let most = 1 + self.numbers.below(4);
        // Ports at devices 0, 4, 8, as some switches number them, or side by side.
        let stride = [1, 4][self.numbers.below(2)];
        let mut ports = Vec::new();
        for nth in 0..most as u8 {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            ports.push(at(nth * stride, 0, self.link(depth + 1, 85)));
        }
        vec![at(0, 0, OnLink::Switch(Switch { ports }))]
    }

    fn conventional(&mut self) -> Vec<Placed<OnLink>> {
        self.left -= 1;
        let count = (1 + self.numbers.below(3)).min(self.left);
        self.left -= count;
        let devices = (0..count as u8).map(|nth| at(1 + nth * 2, 0, self.endpoint(false))).collect();
        vec![at(0, 0, OnLink::ToPci(devices))]
    }

    fn endpoint(&mut self, express: bool) -> Endpoint {
        match self.numbers.below(100) {
            0..40 => Endpoint::Edu,
            40..65 => ivshmem([1, 2, 4][self.numbers.below(3)]),
            65..75 if express => nvme_cmb([1, 4, 8][self.numbers.below(3)]),
            75..87 if express => nvme(),
            87..97 if self.io_left > 0 => {
                self.io_left -= 1;
                test_device(1)
            }
            97.. if express && self.io_left > 0 => {
                self.io_left -= 1;
                Endpoint::Igb
            }
            _ => Endpoint::Edu,
        }
    }
}

/// Devices of one root bus that are not taken yet.
struct Devices {
    next: u8,
    end: u8,
}

impl Iterator for Devices {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while OWN_DEVICES.contains(&self.next) && self.end < 0x20 {
            self.next += 1;
        }
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::What;
    use super::*;

    const SEEDS: std::ops::Range<u64> = 0..2000;

    /// The published sequence of seed 1234567.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut numbers = SplitMix64(1_234_567);
        assert_eq!(
            [numbers.next(), numbers.next(), numbers.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_seed_is_always_the_same_machine_and_seeds_differ() {
        assert_eq!(random(7), random(7));
        let all: std::collections::BTreeSet<Vec<String>> = (0..200).map(|seed| random(seed).arguments()).collect();
        assert_eq!(all.len(), 200);
    }

    #[test]
    fn every_seed_is_legal_and_of_the_promised_size() {
        for seed in SEEDS {
            let model = Draw::new(seed).draft().check().unwrap_or_else(|illegal| panic!("seed {seed}: {illegal}"));
            assert!(FUNCTIONS.contains(&model.expected_functions()), "seed {seed}: {}", model.expected_functions());
        }
    }

    #[test]
    fn seeds_cover_what_the_suite_is_about() {
        let share = |has: &dyn Fn(&Model) -> bool| SEEDS.filter(|&seed| has(&random(seed))).count() * 100 / 2000;
        let places = |model: &Model, has: &dyn Fn(What<'_>, usize) -> bool| {
            model.functions().iter().any(|planned| has(planned.what, planned.place.steps.len()))
        };
        assert!(share(&|model| model.draft().expanders.len() >= 2) >= 10);
        assert!(share(&|model| places(model, &|what, _| what == What::RootPort { acs: false })) >= 40);
        assert!(share(&|model| places(model, &|what, steps| what == What::Upstream && steps >= 6)) >= 3);
        assert!(share(&|model| places(model, &|what, steps| what == What::Upstream && steps >= 4)) >= 30);
        assert!(share(&|model| places(model, &|what, steps| matches!(what, What::Endpoint(_)) && steps == 1)) >= 45);
        assert!(share(&|model| model.expected_virtual_functions() > 0) >= 5);
        assert!(share(&|model| places(model, &|what, _| what == What::ToPci)) >= 20);
    }
}
