//! The independent decoder against Linux's tables, before it judges anybody else's.

use crate::data::{self, Case, FILES, Step, Value};
use crate::oracle::decoder::Decoded;
use crate::oracle::{Rights, told};
use std::collections::BTreeMap;

/// Where table `n` lies when the tables of a case are laid out.
fn place(number: usize) -> u64 {
    0x40_0000_0000 + ((number as u64) << 24)
}

/// The final tables as words of memory.
fn laid_out(case: &Case) -> BTreeMap<u64, u64> {
    let mut words = BTreeMap::new();
    for (number, table) in case.tables.iter().enumerate() {
        for (index, value) in &table.entries {
            let entry = match value {
                Value::Leaf(entry) => *entry,
                Value::Table(below, bits) => place(*below) | bits,
            };
            words.insert(place(number) + index * 8, entry);
        }
    }
    words
}

fn decode(case: &Case) -> Decoded {
    let words = laid_out(case);
    let word = |at| Ok(words.get(&at).copied().unwrap_or(0));
    case.shape
        .decode(place(0), case.tables[0].level, &word)
        .unwrap_or_else(|why| panic!("{} ({}): {why}", case.name, case.says))
}

#[test]
fn all_296_sequences_are_there() {
    for (layout, text, count) in FILES {
        assert_eq!(data::read(layout, text).len(), count, "{layout:?}");
    }
    let all = data::all();
    assert_eq!(all.len(), 296);
    assert_eq!(all.iter().filter(|case| case.quirk).count(), 14);
    let steps: usize = all.iter().map(|case| case.steps.len()).sum();
    let probes: usize = all.iter().map(|case| case.probes.len()).sum();
    assert_eq!((steps, probes), (745, 1541));
}

#[test]
fn the_decoder_finds_linuxs_tables_where_they_are() {
    for case in data::all() {
        let decoded = decode(&case);
        let found: Vec<_> = decoded.tables.iter().map(|table| (table.level, table.at)).collect();
        let expected: Vec<_> =
            case.tables.iter().enumerate().map(|(number, table)| (table.level, place(number))).collect();
        assert_eq!(found, expected, "{}", case.name);
        for (table, literal) in decoded.tables.iter().zip(&case.tables).skip(1) {
            assert!(literal.from.is_none_or(|from| from == table.from), "{}: {table:x?}", case.name);
        }
    }
}

#[test]
fn the_decoder_translates_as_linux_does() {
    for case in data::all() {
        let decoded = decode(&case);
        let words = laid_out(&case);
        for probe in &case.probes {
            let found = decoded.at(probe.iova).map(|leaf| {
                let at = decoded.word_at(&case.shape, probe.iova).unwrap();
                (leaf.pa + (probe.iova - leaf.iova), leaf.size, words[&at])
            });
            if is_taken_for_canonical(&case, probe.iova) {
                continue;
            }
            let level = decoded.last_table(&case.shape, probe.iova).map(|table| table.level);
            let expected = probe.hit.map(|hit| (hit.pa, hit.size, hit.entry));
            assert_eq!((found, level), (expected, probe.level), "{} {:#x}", case.name, probe.iova);
        }
    }
}

/// Linux looks at the bits that select entries and at no other.
fn is_taken_for_canonical(case: &Case, iova: u64) -> bool {
    case.quirk && !case.shape.reaches(iova, case.shape.input_bits)
}

#[test]
fn leaves_say_what_was_asked_for() {
    let mut compared = 0;
    for case in data::all() {
        let decoded = decode(&case);
        let mut asked: BTreeMap<u64, (u64, u64, Rights)> = BTreeMap::new();
        for step in &case.steps {
            if let Step::Map { iova, pa, len, rights, fault: None } = step {
                asked.insert(*iova, (*len, *pa, *rights));
            }
        }
        for leaf in &decoded.leaves {
            // Sequences that map one place twice are told apart by the memory.
            let found = asked.range(..=leaf.iova).rev().find(|(iova, (len, pa, _))| {
                leaf.iova - *iova < *len && leaf.pa.wrapping_sub(*pa) == leaf.iova - *iova
            });
            let Some((_, (_, _, rights))) = found else { continue };
            compared += 1;
            assert_eq!(leaf.says(), told(&case.shape, *rights), "{} {:#x}", case.name, leaf.iova);
        }
    }
    assert!(compared > 700, "{compared}");
}
