//! A reader of page tables that shares no line with the crate.
//!
//! Written from the layouts as the vendors and Linux 7.2 document them: VT-d 4.1 §9.8,
//! AMD IOMMU 3.09 §2.2.3, Intel SDM 3A §4.5, Arm ARM D8.3. It lists every leaf below a
//! root, and refuses every bit that a format does not define, since an encoder and a
//! decoder of one author would agree on a misplaced bit.
//!
//! Numbers are bare here: nothing of this is anybody's interface.

/// Whose layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    Vtd,
    X86,
    Amd,
    ArmStage1,
    ArmStage2,
}

impl Layout {
    pub(crate) fn is_arm(self) -> bool {
        matches!(self, Self::ArmStage1 | Self::ArmStage2)
    }

    /// Writes can be permitted where reads are not.
    pub(crate) fn has_write_only(self) -> bool {
        matches!(self, Self::Vtd | Self::Amd | Self::ArmStage2)
    }
}

/// What has to be known of tables besides their root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) layout: Layout,
    /// log2 of the smallest page.
    pub(crate) granule: u32,
    /// Bits of an IOVA that are translated.
    pub(crate) input_bits: u32,
    /// Bits of an address that comes out.
    pub(crate) output_bits: u32,
    /// Levels at the start; AMD v1 grows more.
    pub(crate) levels: u8,
    /// IOVAs are sign extended from the highest translated bit.
    pub(crate) sign_extend: bool,
    /// IOVAs have ones above the translated bits.
    pub(crate) upper: bool,
    /// The bit that says encrypted.
    pub(crate) sme_bit: Option<u32>,
    pub(crate) force_snoop: bool,
    pub(crate) force_writeable: bool,
    pub(crate) incoherent_walk: bool,
    pub(crate) hardware_dirty: bool,
    pub(crate) non_secure: bool,
    pub(crate) forced_write_back: bool,
    /// As Linux on Arm, a block takes the place of pages, which are lost.
    pub(crate) replaces_tables: bool,
    /// Sizes of leaves on offer, a bit each; 0 where the format's own are.
    pub(crate) sizes: u64,
}

/// What sort of memory a leaf says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The format does not tell.
    Untold,
    Cached,
    NotCached,
    Device,
}

/// One leaf, however many entries it takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) iova: u64,
    pub(crate) pa: u64,
    pub(crate) size: u64,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) kind: Kind,
    /// Instructions may be fetched; true where the format cannot forbid it.
    pub(crate) execute: bool,
    pub(crate) privileged: bool,
    pub(crate) dirty: bool,
    pub(crate) level: u8,
    /// Its first entry.
    pub(crate) entry: u64,
}

/// One table, in the order of first reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    pub(crate) level: u8,
    pub(crate) at: u64,
    /// First IOVA below it.
    pub(crate) from: u64,
    /// Its nonzero entries.
    pub(crate) entries: Vec<(u64, u64)>,
}

/// Everything below a root.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) tables: Vec<Table>,
}

/// What an entry is.
enum Entry {
    Table(u64),
    /// The leaf, and log2 of its size.
    Leaf(Leaf, u32),
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

fn bit(entry: u64, bit: u32) -> bool {
    entry >> bit & 1 == 1
}

impl Shape {
    /// Bits of an index, the root's aside.
    fn index_bits(&self) -> u32 {
        self.granule - 3
    }

    /// Lowest bit of an IOVA that an index of this level takes.
    pub(crate) fn shift(&self, level: u8) -> u32 {
        let above = if self.layout.is_arm() { 3 - level } else { level };
        self.granule + self.index_bits() * u32::from(above)
    }

    /// The level of the root as created.
    pub(crate) fn root_level(&self) -> u8 {
        if self.layout.is_arm() { 4 - self.levels } else { self.levels - 1 }
    }

    fn below(&self, level: u8) -> Option<u8> {
        if self.layout.is_arm() { (level < 3).then(|| level + 1) } else { level.checked_sub(1) }
    }

    /// Entries of a table of this level; a root may have fewer or more than others.
    fn entries(&self, level: u8, root: bool) -> u64 {
        if !root {
            return 1 << self.index_bits();
        }
        let bits = self.input_bits.saturating_sub(self.shift(level));
        // A concatenated root of Arm's second stage is longer than a table, no other is.
        let most = if self.layout == Layout::ArmStage2 { 4 } else { 0 };
        1 << bits.min(self.index_bits() + most)
    }

    /// The IOVA of what has these translated bits.
    fn extended(&self, translated: u64) -> u64 {
        let above = if self.input_bits < 64 { !0 << self.input_bits } else { 0 };
        let negative = self.sign_extend && bit(translated, self.input_bits - 1);
        if self.upper || negative { translated | above } else { translated }
    }

    /// The bit of a table's entry that tells the CPU's side that it was flushed.
    fn mark(&self) -> u64 {
        match (self.incoherent_walk, self.layout) {
            (false, _) => 0,
            (true, Layout::Vtd) => 1 << 10,
            (true, Layout::X86) => 1 << 9,
            (true, Layout::Amd) => 0,
            (true, Layout::ArmStage1 | Layout::ArmStage2) => 1 << 55,
        }
    }

    fn sme(&self) -> u64 {
        self.sme_bit.map_or(0, |bit| 1 << bit)
    }

    /// Takes an entry that is not zero of a table of `level` apart; `Err` says which rule it breaks.
    fn entry(&self, level: u8, entry: u64) -> Result<Entry, String> {
        let decoded = match self.layout {
            Layout::Vtd => self.vtd(level, entry),
            Layout::X86 => self.x86(level, entry),
            Layout::Amd => self.amd(level, entry),
            Layout::ArmStage1 | Layout::ArmStage2 => self.arm(level, entry),
        };
        decoded.map_err(|why| format!("{entry:#x} at level {level}: {why}"))
    }

    fn leaf(&self, level: u8, entry: u64, pa: u64) -> Leaf {
        Leaf {
            iova: 0,
            pa,
            size: 0,
            read: true,
            write: true,
            kind: Kind::Untold,
            execute: true,
            privileged: false,
            dirty: false,
            level,
            entry,
        }
    }

    /// VT-d second stage: R 0, W 1, PS 7, A 8, D 9, SNP 11.
    fn vtd(&self, level: u8, entry: u64) -> Result<Entry, String> {
        let (read, write, page_size) = (bit(entry, 0), bit(entry, 1), bit(entry, 7));
        if level > 0 && !page_size {
            only(entry, ADDRESS | self.mark(), 0b11)?;
            return Ok(Entry::Table(entry & ADDRESS));
        }
        if level > 2 || (level == 0 && page_size) {
            return Err("PS where no leaf can be".into());
        }
        let snoop = if self.force_snoop { 1 << 11 } else { 0 };
        let fixed = snoop | if level > 0 { 1 << 7 } else { 0 };
        // The access flags are the hardware's to set.
        only(entry, ADDRESS | 0b11 | 1 << 8 | 1 << 9, fixed)?;
        let leaf = Leaf { read, write, dirty: bit(entry, 9), ..self.leaf(level, entry, entry & ADDRESS) };
        Ok(Entry::Leaf(leaf, self.shift(level)))
    }

    /// x86-64: P 0, R/W 1, U 2, A 5, D 6, PS 7, XD 63.
    fn x86(&self, level: u8, entry: u64) -> Result<Entry, String> {
        let (write, page_size) = (bit(entry, 1), bit(entry, 7));
        let sme = self.sme();
        if level > 0 && !page_size {
            only(entry, (ADDRESS & !sme) | self.mark(), 0b10_0111 | sme)?;
            return Ok(Entry::Table(entry & ADDRESS & !sme));
        }
        if level > 2 || (level == 0 && page_size) {
            return Err("PS where no leaf can be".into());
        }
        // D stands with R/W, so that the hardware never has to set it.
        let fixed = 0b10_0101 | if write { 1 << 6 | 1 << 1 } else { 0 } | if level > 0 { 1 << 7 } else { 0 };
        only(entry, ADDRESS | sme, fixed)?;
        let leaf = Leaf { write, ..self.leaf(level, entry, entry & ADDRESS & !sme) };
        Ok(Entry::Leaf(leaf, self.shift(level)))
    }

    /// AMD v1: PR 0, D 6, NextLevel 11:9, FC 60, IR 61, IW 62.
    fn amd(&self, level: u8, entry: u64) -> Result<Entry, String> {
        let next = (entry >> 9 & 7) as u8;
        let sme = self.sme();
        let (read, write) = (bit(entry, 61), bit(entry, 62));
        if level > 0 && next != 0 && next != 7 {
            only(entry, ADDRESS & !sme, 1 | u64::from(level) << 9 | 3 << 61 | sme)?;
            return Ok(Entry::Table(entry & ADDRESS & !sme));
        }
        if next != 0 && next != 7 {
            return Err("a table below the last level".into());
        }
        if level == 5 {
            return Err("a leaf at the sixth level".into());
        }
        only(entry, ADDRESS | sme | 1 << 6 | 3 << 61 | 7 << 9, 1 | 1 << 60)?;
        let address = entry & ADDRESS & !sme;
        let leaf = Leaf { read, write, dirty: bit(entry, 6), ..self.leaf(level, entry, address) };
        if next == 0 {
            // 512G has no leaf, at whatever level and in whatever form.
            return if level == 3 { Err("512G in one".into()) } else { Ok(Entry::Leaf(leaf, self.shift(level))) };
        }
        let ones = (address >> 12).trailing_ones();
        let size = 13 + ones;
        if size == 39 || size <= self.shift(level) || size >= self.shift(level + 1) {
            return Err(format!("a size of 2^{size}"));
        }
        let pa = address & !((1 << size) - 1);
        Ok(Entry::Leaf(Leaf { pa, ..leaf }, size))
    }

    /// Arm, both stages: type 1:0, SH 9:8, AF 10, XN 54:53.
    fn arm(&self, level: u8, entry: u64) -> Result<Entry, String> {
        let granule_mask = !((1u64 << self.granule) - 1);
        let wide = self.output_bits > 48;
        let mut field = 0x0000_ffff_ffff_ffff & granule_mask;
        if wide {
            field |= 0xf000;
        }
        let mut address = entry & 0x0000_ffff_ffff_ffff & granule_mask;
        if wide {
            address |= (entry >> 12 & 0xf) << 48;
        }
        let is_page = match (entry & 0b11, level) {
            (0b11, 3) => true,
            (0b11, _) => {
                let secure = if self.non_secure { 1 << 63 } else { 0 };
                only(entry, field | self.mark(), 0b11 | secure)?;
                return Ok(Entry::Table(address));
            }
            (0b01, 0..3) => false,
            _ => return Err("a reserved type".into()),
        };
        let lowest = match self.granule {
            12 => 1,
            16 if wide => 1,
            _ => 2,
        };
        if !is_page && level < lowest {
            return Err("a block where none can be".into());
        }
        let execute = match entry >> 53 & 0b11 {
            0b00 => true,
            0b11 => false,
            _ => return Err("XN in halves".into()),
        };
        let shared = entry >> 8 & 0b11;
        let common = field | 0b11 | 3 << 8 | 3 << 53;
        let mut leaf = Leaf { execute, ..self.leaf(level, entry, address) };
        if self.layout == Layout::ArmStage1 {
            let secure = if self.non_secure { 1 << 5 } else { 0 };
            let modifiable = if self.hardware_dirty { 1 << 51 } else { 0 };
            only(entry, common | 7 << 2 | 3 << 6 | modifiable, 1 << 10 | 1 << 11 | secure)?;
            leaf.kind = match entry >> 2 & 7 {
                0 => Kind::NotCached,
                1 => Kind::Cached,
                2 => Kind::Device,
                other => return Err(format!("attributes {other}")),
            };
            leaf.privileged = !bit(entry, 6);
            // With DBM the bit says clean, and the hardware may clear it.
            leaf.write = !bit(entry, 7) || bit(entry, 51);
            leaf.dirty = bit(entry, 51) && !bit(entry, 7);
        } else {
            only(entry, common | 0xf << 2 | 3 << 6, 1 << 10)?;
            let cached = if self.forced_write_back { 0b0110 } else { 0b1111 };
            leaf.kind = match entry >> 2 & 0xf {
                0b0001 => Kind::Device,
                0b0101 => Kind::NotCached,
                attributes if attributes == cached => Kind::Cached,
                other => return Err(format!("attributes {other}")),
            };
            (leaf.read, leaf.write) = (bit(entry, 6), bit(entry, 7));
        }
        let sharing = match (leaf.kind, shared) {
            (Kind::Cached, 0b11) | (Kind::NotCached, 0b10) | (Kind::Device, 0b10 | 0b11) => true,
            (_, _) => false,
        };
        if !sharing {
            return Err(format!("{:?} shared as {shared:#b}", leaf.kind));
        }
        Ok(Entry::Leaf(leaf, self.shift(level)))
    }

    /// Everything below the root, `word` being the entry at an address.
    pub(crate) fn decode(
        &self,
        root: u64,
        level: u8,
        word: &dyn Fn(u64) -> Result<u64, String>,
    ) -> Result<Decoded, String> {
        let mut decoded = Decoded::default();
        self.table(root, level, 0, true, word, &mut decoded)?;
        Ok(decoded)
    }

    fn table(
        &self,
        at: u64,
        level: u8,
        from: u64,
        root: bool,
        word: &dyn Fn(u64) -> Result<u64, String>,
        decoded: &mut Decoded,
    ) -> Result<(), String> {
        let shift = self.shift(level);
        let number = decoded.tables.len();
        decoded.tables.push(Table { level, at, from: self.extended(from), entries: Vec::new() });
        let entries = self.entries(level, root);
        let mut index = 0;
        while index < entries {
            let first = word(at + index * 8)?;
            let here = index;
            index += 1;
            if first == 0 {
                continue;
            }
            let translated = from | here << shift;
            let iova = self.extended(translated);
            decoded.tables[number].entries.push((here, first));
            match self.entry(level, first)? {
                Entry::Table(next) => {
                    let below = self.below(level).ok_or("a table below the last level")?;
                    self.table(next, below, translated, false, word, decoded)?;
                }
                Entry::Leaf(mut leaf, size) => {
                    let copies = 1 << (size - shift);
                    if here % copies != 0 || leaf.pa % (1 << size) != 0 {
                        return Err(format!("{first:#x} at level {level}, index {here}: not aligned to 2^{size}"));
                    }
                    for _ in 1..copies {
                        let copy = word(at + index * 8)?;
                        // Each entry has a dirty bit of its own.
                        if copy & !(1 << 6) != first & !(1 << 6) {
                            return Err(format!("{copy:#x} at level {level}, index {index}: not as {first:#x}"));
                        }
                        decoded.tables[number].entries.push((index, copy));
                        leaf.dirty |= bit(copy, 6);
                        index += 1;
                    }
                    decoded.leaves.push(Leaf { iova, size: 1 << size, ..leaf });
                }
            }
        }
        Ok(())
    }
}

/// Whether an entry has all of the `fixed` bits, and no other than those and the `free` ones.
fn only(entry: u64, free: u64, fixed: u64) -> Result<(), String> {
    let (missing, reserved) = (fixed & !entry, entry & !(free | fixed));
    if missing == 0 && reserved == 0 {
        return Ok(());
    }
    Err(format!("lacks {missing:#x} and has {reserved:#x} too many"))
}

impl Decoded {
    /// The leaf around an IOVA.
    pub(crate) fn at(&self, iova: u64) -> Option<&Leaf> {
        let after = self.leaves.partition_point(|leaf| leaf.iova <= iova);
        let leaf = self.leaves.get(after.checked_sub(1)?)?;
        (iova - leaf.iova < leaf.size).then_some(leaf)
    }

    /// The table in which a walk to an IOVA ends; `None` outside of what the root translates.
    pub(crate) fn last_table(&self, shape: &Shape, iova: u64) -> Option<&Table> {
        let root = self.tables.first()?;
        if !shape.reaches(iova, shape.shift(root.level) + shape.entries(root.level, true).trailing_zeros()) {
            return None;
        }
        let covers = |table: &&Table| {
            let bits = shape.shift(table.level) + shape.index_bits();
            bits >= 64 || iova >> bits == table.from >> bits
        };
        let below = self.tables[1..].iter().filter(covers);
        // What lies further down has the smaller shift, whichever way levels count.
        Some(below.min_by_key(|table| shape.shift(table.level)).unwrap_or(root))
    }

    /// Where the very entry is that translates an IOVA, one of several where a leaf takes several.
    pub(crate) fn word_at(&self, shape: &Shape, iova: u64) -> Option<u64> {
        let table = self.last_table(shape, iova)?;
        let shift = shape.shift(table.level);
        let translated = if shape.input_bits < 64 { iova & ((1 << shape.input_bits) - 1) } else { iova };
        let root = core::ptr::eq(table, &self.tables[0]);
        let index = (translated >> shift) & (shape.entries(table.level, root) - 1);
        Some(table.at + index * 8)
    }
}

impl Shape {
    /// First IOVA and length of what a table below the root translates.
    pub(crate) fn span(&self, table: &Table) -> (u64, u64) {
        (table.from, 1_u64.checked_shl(self.shift(table.level) + self.index_bits()).unwrap_or(0))
    }

    /// Whether a range is translated, in one half of the space.
    pub(crate) fn holds(&self, iova: u64, len: u64) -> bool {
        let last = iova + (len - 1);
        let both = self.reaches(iova, self.input_bits) && self.reaches(last, self.input_bits);
        both && !(self.sign_extend && (iova ^ last) >> 63 != 0)
    }

    /// Whether an IOVA is one that a root over this many bits translates.
    pub(crate) fn reaches(&self, iova: u64, bits: u32) -> bool {
        let bits = bits.min(self.input_bits);
        if bits >= 64 {
            return true;
        }
        match (self.upper, self.sign_extend) {
            (true, _) => iova >> bits == !0 >> bits,
            (false, true) => matches!((iova as i64) >> (bits - 1), 0 | -1),
            (false, false) => iova >> bits == 0,
        }
    }
}
