//! Machines at random.

use crate::list::UNLISTED;
use crate::told::{At, Machine, Told};
use peerdma::pcie::express::PortType;

/// Choices out of bytes, so that fewer and smaller bytes make a simpler machine.
pub(crate) struct Dice<'b>(std::slice::Iter<'b, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }
}

/// Builds a machine of at most [`Maker::MOST`] functions.
pub(crate) struct Maker<'b> {
    dice: Dice<'b>,
    functions: Vec<Told>,
    domain: u32,
    free_bus: u8,
    /// Functions in all once this root bus is done.
    most: usize,
}

impl Maker<'_> {
    const MOST: usize = 8;

    pub(crate) fn machine(bytes: &[u8]) -> Machine {
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
