//! Random machines, as platform files: what follows from a seed is always the same.
//!
//! Uniform registers would make nearly every pair undefined, so each draw mixes what real machines
//! have (no access control, access control off, the isolation set) with registers of any value.

use std::fmt::Write as _;

/// The platform file of a seed.
pub(crate) fn platform(seed: u64) -> String {
    let mut writer = Writer {
        random: fastrand::Rng::with_seed(seed),
        // Drawn by themselves, so that what else follows from a seed is the same without them.
        habits: fastrand::Rng::with_seed(seed ^ 0x6861_6269_7473),
        text: String::from("schema = 1\n"),
        names: 0,
        next_bus: 0,
        last_bus: 0,
        payload: 256,
        translates: false,
        has_ats: false,
    };
    writer.machine();
    writer.text
}

struct Writer {
    random: fastrand::Rng,
    /// For what root complexes do that no register tells.
    habits: fastrand::Rng,
    text: String,
    names: u32,
    next_bus: u32,
    last_bus: u32,
    /// What most ports and functions of the machine are programmed to.
    payload: u32,
    /// Whether functions may have modes of their own.
    translates: bool,
    /// Whether the IOMMU gives out translations; nobody enables ATS where it does not.
    has_ats: bool,
}

/// Low memory that no window of any machine here shows on a bus: IOVAs that a driver forces may lie there.
pub(crate) const OUTSIDE_WINDOWS: u64 = 0x0400_0000;

impl Writer {
    fn one_in(&mut self, count: u32) -> bool {
        self.random.u32(0..count) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.random.usize(0..words.len())]
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(text);
        self.text.push('\n');
    }

    fn machine(&mut self) {
        let cpu = self.pick(&[
            "vendor = \"amd\"\nfamily = 0x19",
            "vendor = \"amd\"\nfamily = 0x19",
            "vendor = \"intel\"\nfamily = 6\nmodel = 0x6a",
            "vendor = \"arm\"",
        ]);
        self.line(format_args!("[cpu]\n{cpu}"));
        let version = self.pick(&["6.1", "6.12", "7.2", "7.3"]);
        self.line(format_args!("[kernel]\nversion = \"{version}\""));
        let kind = self.pick(&["vtd", "amd", "smmu", "window", "none"]);
        let mode = if kind == "none" { "none" } else { self.pick(&["translated", "translated", "identity", "none"]) };
        self.translates = mode != "none";
        self.has_ats = kind != "window";
        self.line(format_args!("[iommu]\nkind = \"{kind}\"\nmode = \"{mode}\""));
        self.line(format_args!("[[ram]]\nbase = 0\nsize = \"2GiB\"\n[[ram]]\nbase = 0x1_0000_0000\nsize = \"8GiB\""));
        self.payload = [128, 256, 512][self.random.usize(0..3)];
        let hosts = self.random.u32(1..=3);
        let (style, one_segment) = (self.random.u32(0..5), self.random.bool());
        for host in 0..hosts {
            self.host(host, hosts, style, one_segment);
        }
    }

    /// A host bridge whose windows lie one to one, at offsets, over RAM, or where another's are.
    fn host(&mut self, host: u32, hosts: u32, style: u32, one_segment: bool) {
        let (number, next) = (u64::from(host), u64::from((host + 1) % hosts));
        let one_to_one = 0x8000_0000 + number * 0x1000_0000;
        let (cpu, bus) = match style {
            0 | 1 => (one_to_one, one_to_one),
            2 => (0x50_8000_0000 + (number << 32), 0x8000_0000),
            3 => (0x60_0000_0000 + (number << 32), 0x4000_0000),
            _ => (one_to_one, 0x8000_0000 + next * 0x1000_0000),
        };
        let high = 0x1000_0000_0000 + number * 0x100_0000_0000;
        let high_bus = if style < 2 || self.random.bool() { high } else { 0x40_0000_0000 };
        let (segment, first, last) = if one_segment { (0, host * 0x40, host * 0x40 + 0x3f) } else { (host, 0, 0xff) };
        let peer = self.pick(&["forwards", "forwards", "forwards", "writes_only", "all_ones", "none", "unknown"]);
        self.line(format_args!(
            "[[host_bridge]]\nname = \"hb{host}\"\nsegment = {segment}\nbuses = [{first}, {last}]\npeer = \"{peer}\"",
        ));
        // What no register and no topology tells, so that no answer may hang on it.
        if self.habits.u32(0..3) == 0 {
            self.line(format_args!("replaces_requester = true"));
        }
        // Whoever has a path between its root ports forwards, whatever else is known of it.
        if peer == "forwards" && self.habits.u32(0..3) == 0 {
            self.line(format_args!("between_ports = true"));
        }
        if self.random.bool() {
            let id = self.pick(&["8086:09a2", "8086:2030", "8086:2f00", "8086:1234"]);
            self.line(format_args!("first_device = \"{id}\""));
        }
        self.line(format_args!(
            "windows = [\n{{ cpu = {cpu:#x}, bus = {bus:#x}, size = \"256MiB\" }},\n\
             {{ cpu = {high:#x}, bus = {high_bus:#x}, size = \"64GiB\", prefetch = true }},\n]",
        ));
        (self.next_bus, self.last_bus) = (first + 1, last);
        let parent = format!("hb{host}");
        for device in 1..=self.random.u32(1..=3) {
            if self.one_in(6) {
                let functions = if self.one_in(3) { 2 } else { 1 };
                for function in 0..functions {
                    self.function(&parent, &format!("{first:02x}:{device:02x}.{function}"), Place::RootBus);
                }
            } else {
                let port = self.port(&parent, "root", &format!("{first:02x}:{device:02x}.0"));
                self.link(&port, 0);
            }
        }
    }

    /// What is below a root port or downstream port.
    fn link(&mut self, port: &str, depth: u32) {
        let bus = self.next_bus;
        // Deeper switches are rarer, and bus numbers end.
        let room = bus + 24 < self.last_bus;
        match self.random.u32(0..10) {
            0..=3 if room && depth < 3 => {
                self.next_bus += 2;
                let upstream = self.port(port, "upstream", &format!("{bus:02x}:00.0"));
                let inside = bus + 1;
                for device in 0..self.random.u32(1..=3) {
                    let downstream = self.port(&upstream, "downstream", &format!("{inside:02x}:{device:02x}.0"));
                    self.link(&downstream, depth + 1);
                }
            }
            4 if room => {
                self.next_bus += 2;
                let bridge = self.port(port, "pcie-pci", &format!("{bus:02x}:00.0"));
                for device in 0..self.random.u32(1..=2) {
                    self.function(&bridge, &format!("{:02x}:{device:02x}.0", bus + 1), Place::Conventional);
                }
            }
            _ if bus <= self.last_bus => {
                self.next_bus += 1;
                let functions = if self.one_in(4) { 2 } else { 1 };
                for function in 0..functions {
                    self.function(port, &format!("{bus:02x}:00.{function}"), Place::Link);
                }
            }
            _ => {}
        }
    }

    fn name(&mut self, word: &str) -> String {
        self.names += 1;
        format!("{word}{}", self.names)
    }

    fn port(&mut self, parent: &str, kind: &str, bdf: &str) -> String {
        let name = self.name("port");
        let payload = self.payload_here();
        let id = self.pick(&["", "", "id = \"8086:a110\"\n", "id = \"1000:c030\"\n"]);
        let atomics =
            self.pick(&["", "", "", "", "atomics = { routing = false }\n", "atomics = { egress_blocked = true }\n"]);
        let acs = match kind {
            "upstream" | "pcie-pci" => String::new(),
            _ => self.acs(0x7f),
        };
        self.line(format_args!(
            "[[port]]\nname = \"{name}\"\nparent = \"{parent}\"\nkind = \"{kind}\"\nbdf = \"{bdf}\"\nmps = {payload}\n{id}{atomics}{acs}",
        ));
        name
    }

    fn payload_here(&mut self) -> u32 {
        if self.one_in(12) { 128 << self.random.u32(0..4) } else { self.payload }
    }

    /// Access control with some of `possible`.
    fn acs(&mut self, possible: u32) -> String {
        let size = self.random.u32(8..=40);
        let enhanced = if possible & 1 == 1 && self.one_in(3) { 0x80 } else { 0 };
        let cap = size << 8 | possible | enhanced;
        let settable = possible | if enhanced == 0 { 0 } else { 0x1f80 };
        let control = match self.random.u32(0..10) {
            0..=2 => return String::new(),
            3 | 4 => 0,
            // What Linux sets where it isolates.
            5 | 6 => 0x1d,
            // Redirection that the ports above turn back, as it should be.
            7 => 0x14,
            _ => self.random.u32(..),
        };
        let egress = self.random.u64(..) & ((1 << size) - 1);
        format!("acs = {{ cap = {cap:#x}, ctl = {:#x}, egress = {egress:#x} }}\n", control & settable)
    }

    fn function(&mut self, parent: &str, bdf: &str, place: Place) {
        let name = self.name("fn");
        let mut bars = Vec::new();
        let log2 = self.random.u32(16..=22);
        match self.random.u32(0..3) {
            0 => bars.push(format!("{{ n = 0, size = {:#x} }}", 1 << log2)),
            1 => bars.push(format!("{{ n = 2, size = {:#x}, prefetch = true }}", 1 << log2)),
            _ => {
                bars.push("{ n = 0, size = 0x10000 }".to_string());
                bars.push(format!("{{ n = 4, size = {:#x}, prefetch = true }}", 1 << log2));
            }
        }
        let mut more = String::new();
        if place != Place::Conventional {
            let (payload, request) = (self.payload_here(), 128 << self.random.u32(0..6));
            let ats = self.has_ats && place == Place::Link && self.one_in(3);
            more = format!("mps = {payload}\nmrrs = {request}\nats = {ats}\n");
            // Single functions have none; those of a device RR, CR, EC and DT.
            more.push_str(&self.acs(0x6c));
            let atomics = ["", "", "", "atomics = { requester = false }\n", "atomics = { completer = false }\n"];
            more.push_str(self.pick(&atomics));
        }
        // Functions of one conventional bus are one to an IOMMU.
        if self.translates && place != Place::Conventional && self.one_in(4) {
            let mode = self.pick(&["translated", "identity", "none"]);
            let _ = writeln!(more, "iommu_mode = \"{mode}\"");
            if mode == "translated" && self.one_in(2) {
                more.push_str("driver = \"vfio-pci\"\n");
            }
        }
        if self.one_in(12) {
            let _ = writeln!(more, "mask_bits = {}", [32, 40, 48][self.random.usize(0..3)]);
        }
        self.line(format_args!(
            "[[function]]\nname = \"{name}\"\nparent = \"{parent}\"\nbdf = \"{bdf}\"\nmodel = \"plain\"\nbars = [{}]\n{more}",
            bars.join(", "),
        ));
    }
}

/// Where a function sits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    RootBus,
    Link,
    Conventional,
}
