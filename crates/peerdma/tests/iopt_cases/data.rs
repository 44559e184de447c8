//! The files of sequences, as they stand; `data/README.md` says how they are written.

use crate::oracle::{Layout, Rights, Shape};

/// All sequences of one kind of tables, and the text that they come from.
pub(crate) const FILES: [(Layout, &str, usize); 5] = [
    (Layout::Vtd, include_str!("data/vtd.txt"), 65),
    (Layout::X86, include_str!("data/x86.txt"), 44),
    (Layout::Amd, include_str!("data/amd.txt"), 75),
    (Layout::ArmStage1, include_str!("data/arm1.txt"), 59),
    (Layout::ArmStage2, include_str!("data/arm2.txt"), 53),
];

/// One sequence and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) says: String,
    /// What Linux does is not what everybody should do.
    pub(crate) quirk: bool,
    pub(crate) shape: Shape,
    pub(crate) steps: Vec<Step>,
    pub(crate) probes: Vec<Probe>,
    pub(crate) tables: Vec<Table>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Map { iova: u64, pa: u64, len: u64, rights: Rights, fault: Option<(String, u64)> },
    Unmap { iova: u64, len: u64, returned: u64 },
    DeviceWrite { iova: u64, fault: Option<String> },
    Dirty { iova: u64, len: u64, clear: bool, fault: Option<String>, ranges: Vec<(u64, u64)> },
}

/// A look at the final tables.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) iova: u64,
    /// Where the walk ends; `None` outside of what the tables translate.
    pub(crate) level: Option<u8>,
    pub(crate) hit: Option<Hit>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) pa: u64,
    pub(crate) size: u64,
    pub(crate) entry: u64,
}

/// A final table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) level: u8,
    /// First IOVA below it, if anything is in it.
    pub(crate) from: Option<u64>,
    pub(crate) entries: Vec<(u64, Value)>,
}

/// A nonzero entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Leaf(u64),
    /// Number of the table below, and the bits besides its address.
    Table(usize, u64),
}

pub(crate) fn all() -> Vec<Case> {
    FILES.iter().flat_map(|(layout, text, _)| read(*layout, text)).collect()
}

pub(crate) fn read(layout: Layout, text: &str) -> Vec<Case> {
    let mut shape = None;
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(words) = line.strip_prefix("table ") {
            shape = Some(read_shape(layout, words));
        } else if let Some(detail) = line.strip_prefix("  ") {
            let case = cases.last_mut().unwrap_or_else(|| panic!("a line of no case: {line}"));
            read_detail(case, detail);
        } else {
            let (kind, rest) = line.split_once(' ').unwrap();
            let (name, says) = rest.split_once(": ").unwrap();
            let quirk = match kind {
                "case" => false,
                "quirk" => true,
                other => panic!("no line begins with {other}"),
            };
            let shape = shape.clone().unwrap();
            let (name, says) = (name.to_string(), says.to_string());
            let (steps, probes, tables) = Default::default();
            cases.push(Case { name, says, quirk, shape, steps, probes, tables });
        }
    }
    cases
}

fn read_shape(layout: Layout, words: &str) -> Shape {
    let mut parts = words.split(", ");
    let mut shape = Shape {
        layout,
        granule: size(parts.next().unwrap()).trailing_zeros(),
        input_bits: 0,
        output_bits: 0,
        levels: 0,
        sign_extend: false,
        upper: false,
        sme_bit: None,
        force_snoop: false,
        force_writeable: false,
        incoherent_walk: false,
        hardware_dirty: false,
        non_secure: false,
        forced_write_back: false,
        replaces_tables: false,
        sizes: 0,
    };
    for part in parts {
        let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
        match word {
            "in" => shape.input_bits = rest.parse().unwrap(),
            "out" => shape.output_bits = rest.parse().unwrap(),
            "levels" => shape.levels = rest.parse().unwrap(),
            "sme-bit" => shape.sme_bit = Some(rest.parse().unwrap()),
            "sizes" | "only" => shape.sizes = rest.split(' ').map(size).sum(),
            "sign-extend" => shape.sign_extend = true,
            "ttbr1" => shape.upper = true,
            "force-snoop" => shape.force_snoop = true,
            "force-writeable" => shape.force_writeable = true,
            "incoherent-walk" => shape.incoherent_walk = true,
            "hardware-dirty" => shape.hardware_dirty = true,
            "ns" => shape.non_secure = true,
            "s2-fwb" => shape.forced_write_back = true,
            other => panic!("no table is {other}"),
        }
    }
    shape
}

fn size(word: &str) -> u64 {
    let (digits, unit) = word.split_at(word.len() - 1);
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        other => panic!("no unit: {other}"),
    };
    digits.parse::<u64>().unwrap() << shift
}

fn hex(word: &str) -> u64 {
    u64::from_str_radix(word, 16).unwrap_or_else(|_| panic!("no number: {word}"))
}

/// `ERANGE after 1000`, `EINVAL`, `ok`.
fn fault(words: &str) -> Option<String> {
    let first = words.split(' ').next().unwrap();
    (first != "ok").then(|| first.to_string())
}

fn read_detail(case: &mut Case, line: &str) {
    let (left, right) = line.split_once(": ").unwrap();
    let words: Vec<&str> = left.split(' ').collect();
    match *words.as_slice() {
        ["map", iova, "to", pa, "len", len, rights] => {
            let fault = fault(right).map(|name| (name, hex(right.split_once(" after ").unwrap().1)));
            let rights = read_rights(rights);
            case.steps.push(Step::Map { iova: hex(iova), pa: hex(pa), len: hex(len), rights, fault });
        }
        ["unmap", iova, "len", len] => {
            case.steps.push(Step::Unmap { iova: hex(iova), len: hex(len), returned: hex(right) });
        }
        ["write", iova] => case.steps.push(Step::DeviceWrite { iova: hex(iova), fault: fault(right) }),
        ["dirty", iova, "len", len, what] => {
            let range = |word: &str| word.split_once('+').map(|(iova, len)| (hex(iova), hex(len)));
            let ranges = right.split(' ').filter_map(range).collect();
            let (iova, len, clear) = (hex(iova), hex(len), what == "clear");
            case.steps.push(Step::Dirty { iova, len, clear, fault: fault(right), ranges });
        }
        ["at", iova] => case.probes.push(read_probe(hex(iova), right)),
        [table, "level", level, "from", from] => {
            assert_eq!(table, format!("T{}", case.tables.len()), "{}", case.name);
            let mut entries = Vec::new();
            for entry in right.split(", ") {
                read_entries(entry, &mut entries);
            }
            case.tables.push(Table { level: level.parse().unwrap(), from: Some(hex(from)), entries });
        }
        [_, "level", level] if right == "empty" => {
            case.tables.push(Table { level: level.parse().unwrap(), from: None, entries: Vec::new() });
        }
        _ => panic!("{}: {line}", case.name),
    }
}

fn read_rights(word: &str) -> Rights {
    let mut rights = Rights::default();
    for part in word.split('+') {
        match part {
            "cache" => rights.cache = true,
            "mmio" => rights.mmio = true,
            "noexec" => rights.noexec = true,
            "priv" => rights.privileged = true,
            access => (rights.read, rights.write) = (access.contains('r'), access.contains('w')),
        }
    }
    rights
}

fn read_probe(iova: u64, words: &str) -> Probe {
    let parts: Vec<&str> = words.split(", ").collect();
    let after = |part: &str| part.rsplit_once(' ').unwrap().1.to_string();
    match *parts.as_slice() {
        ["nothing", "outside"] => Probe { iova, level: None, hit: None },
        ["nothing", level] => Probe { iova, level: Some(after(level).parse().unwrap()), hit: None },
        [pa, level, size, entry] => {
            let hit = Hit { pa: hex(pa), size: hex(&after(size)), entry: hex(&after(entry)) };
            Probe { iova, level: Some(after(level).parse().unwrap()), hit: Some(hit) }
        }
        _ => panic!("no probe: {words}"),
    }
}

/// `28=T2|3`, `325=3abcde003`, `325=3abcde003 x5 step 1000`.
fn read_entries(text: &str, entries: &mut Vec<(u64, Value)>) {
    let words: Vec<&str> = text.split(' ').collect();
    let (index, value) = words[0].split_once('=').unwrap();
    let index: u64 = index.parse().unwrap();
    if let Some(table) = value.strip_prefix('T') {
        let (number, bits) = table.split_once('|').unwrap();
        entries.push((index, Value::Table(number.parse().unwrap(), hex(bits))));
        return;
    }
    let (count, step) = match words[1..] {
        [] => (1, 0),
        [count, "step", step] => (count.strip_prefix('x').unwrap().parse().unwrap(), hex(step)),
        _ => panic!("no entry: {text}"),
    };
    entries.extend((0..count).map(|nth| (index + nth, Value::Leaf(hex(value) + nth * step))));
}
