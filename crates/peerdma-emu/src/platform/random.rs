//! Platform files at random, for property tests of everything that a platform becomes.

/// The file that follows from these decisions; every file is right, and an empty list gives a
/// small machine.
pub(crate) fn file(numbers: Vec<u32>) -> String {
    Writer::file(numbers)
}

/// Decisions of a generator, used up one by one; zeros once there are no more.
struct Draw(std::vec::IntoIter<u32>);

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        self.0.next().map_or(0, |number| number % end)
    }

    fn acs(&mut self) -> String {
        match self.below(4) {
            0 => "acs = \"none\"\n".to_string(),
            1 => "acs = \"unknown\"\n".to_string(),
            _ => {
                let size = self.below(41);
                let cap = size << 8 | self.below(0x100);
                let possible = cap & 0x7f | if cap & 0x80 != 0 { 0x1f80 } else { 0 };
                let ctl = self.below(0x2000) & possible;
                let mask = if size == 0 { u64::MAX } else { (1 << size) - 1 };
                let egress = if cap & 0x20 != 0 { u64::from(self.below(u32::MAX)) << 8 & mask } else { 0 };
                format!("acs = {{ cap = {cap:#x}, ctl = {ctl:#x}, egress = {egress:#x} }}\n")
            }
        }
    }
}

/// A platform file: host bridges with ports, switches, bridges and functions.
struct Writer {
    draw: Draw,
    text: String,
    next_bus: u32,
    names: u32,
}

impl Writer {
    fn file(numbers: Vec<u32>) -> String {
        let mut writer = Self { draw: Draw(numbers.into_iter()), text: String::new(), next_bus: 0, names: 0 };
        writer.text.push_str("schema = 1\n[iommu]\nkind = \"vtd\"\nmode = \"translated\"\n");
        for host in 0..=writer.draw.below(3) {
            writer.host(host);
        }
        writer.text
    }

    fn host(&mut self, host: u32) {
        let base = 0x1000_0000_0000_u64 * u64::from(host + 1);
        let first_device = if self.draw.below(2) == 0 { "first_device = \"8086:09a2\"\n" } else { "" };
        self.text.push_str(&format!(
            "[[host_bridge]]\nname = \"hb{host}\"\nsegment = {host}\n{first_device}windows = [\n\
             {{ cpu = {:#x}, bus = 0x8000_0000, size = \"1GiB\" }},\n\
             {{ cpu = {:#x}, bus = 0x40_0000_0000, size = \"1TiB\", prefetch = true }},\n]\n",
            base,
            base + 0x100_0000_0000,
        ));
        self.next_bus = 1;
        for device in 1..=self.draw.below(5) {
            let parent = format!("hb{host}");
            match self.draw.below(4) {
                0 => self.function(&parent, &format!("00:{device:02x}.{}", self.names % 8), false),
                _ => {
                    let port = self.port(&parent, "root", &format!("00:{device:02x}.0"));
                    self.link(&port);
                }
            }
        }
    }

    /// Something below a root port, or nothing.
    fn link(&mut self, port: &str) {
        let bus = self.next_bus;
        match self.draw.below(6) {
            0 => {}
            1 | 2 if bus < 100 => {
                self.next_bus += 2;
                let upstream = self.port(port, "upstream", &format!("{bus:02x}:00.0"));
                for device in 0..=self.draw.below(4) {
                    let downstream = self.port(&upstream, "downstream", &format!("{:02x}:{device:02x}.0", bus + 1));
                    self.link(&downstream);
                }
            }
            3 => {
                self.next_bus += 2;
                let bridge = self.port(port, "pcie-pci", &format!("{bus:02x}:00.0"));
                for device in 0..self.draw.below(3) {
                    self.function(&bridge, &format!("{:02x}:{device:02x}.0", bus + 1), true);
                }
            }
            _ => {
                self.next_bus += 1;
                let ari = self.draw.below(2);
                for n in 0..=self.draw.below(3) {
                    let (device, function) = if ari == 1 { (n, 0) } else { (0, n) };
                    self.function(port, &format!("{bus:02x}:{device:02x}.{function}"), false);
                }
            }
        }
    }

    fn name(&mut self, word: &str) -> String {
        self.names += 1;
        format!("{word}{}", self.names)
    }

    fn port(&mut self, parent: &str, kind: &str, bdf: &str) -> String {
        let name = self.name("port");
        let mps = 128 << self.draw.below(6);
        let id = ["", "id = \"8086:a110\"\n", "id = \"1000:c030\"\n"][self.draw.below(3) as usize];
        let atomics = ["", "atomics = { routing = false }\n", "atomics = { egress_blocked = true }\n"];
        let atomics = atomics[self.draw.below(3) as usize];
        let acs = self.draw.acs();
        self.text.push_str(&format!(
            "[[port]]\nname = \"{name}\"\nparent = \"{parent}\"\nkind = \"{kind}\"\nbdf = \"{bdf}\"\n\
             mps = {mps}\n{id}{atomics}{acs}",
        ));
        name
    }

    fn function(&mut self, parent: &str, bdf: &str, conventional: bool) {
        let name = self.name("fn");
        let model = ["plain", "gpu", "nvme", "nic", "dma", "accel"][self.draw.below(6) as usize];
        let mut bars = Vec::new();
        let mut n = 0;
        while n < 5 {
            let size_log2 = 4 + self.draw.below(24);
            match self.draw.below(4) {
                0 => {
                    bars.push(format!("{{ n = {n}, size = {:#x} }}", 1u64 << size_log2));
                    n += 1;
                }
                1 => {
                    let size = 1u64 << size_log2;
                    let resizes = !conventional && size >= 1 << 20;
                    let sizes = if resizes { format!(", resizable = [{size}, \"1TiB\"]") } else { String::new() };
                    bars.push(format!("{{ n = {n}, size = {size:#x}, prefetch = true{sizes} }}"));
                    n += 2;
                }
                _ => n += 1,
            }
        }
        let mut express = String::new();
        if !conventional {
            express = format!(
                "ats = {}\npasid_bits = {}\nmps = {}\nmrrs = {}\n",
                self.draw.below(2) == 1,
                self.draw.below(21),
                128 << self.draw.below(6),
                128 << self.draw.below(6),
            );
            express.push_str(&self.draw.acs());
            express.push_str(["", "no_snoop = false\n", "relaxed_ordering = false\n"][self.draw.below(3) as usize]);
            let atomics = ["", "atomics = { requester = false }\n", "atomics = { completer = false }\n"];
            express.push_str(atomics[self.draw.below(3) as usize]);
        }
        self.text.push_str(&format!(
            "[[function]]\nname = \"{name}\"\nparent = \"{parent}\"\nbdf = \"{bdf}\"\nmodel = \"{model}\"\n\
             bars = [{}]\n{express}",
            bars.join(", "),
        ));
    }
}
