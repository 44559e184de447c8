//! The rows of the tables, a file for each kind.

mod adapters;
pub mod bounce;
pub mod emulated;
pub mod fault;
pub mod guard;
pub mod iova;
mod lists;
pub mod metadata;
pub mod pinned;
pub mod tables;
pub mod translate;
pub mod two_step;

use crate::row::Row;

/// A process ends with its bench; what queues and drivers borrow lives as long.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The rows that one bench measures.
pub struct Table {
    /// Name of the bench.
    pub name: &'static str,
    /// Its rows, in their order.
    pub rows: fn() -> Vec<Row>,
}

impl Table {
    /// The row with that id.
    pub fn row(&self, id: &str) -> Option<Row> {
        (self.rows)().into_iter().find(|row| row.id == id)
    }
}

/// Addresses, tables, translations, lists and copies.
pub const MAPPING: Table = Table { name: "mapping", rows: mapping };

/// The emulated platform.
pub const EMU: Table = Table { name: "emu", rows: emulated::rows };

/// Guards of accesses in flight.
pub const GUARD: Table = Table { name: "guard", rows: guard::rows };

/// Memory that stays where it is.
pub const PIN: Table = Table { name: "pin", rows: pinned::rows };

/// The rows of [`PIN`] of which instructions are counted, as valgrind can run them.
pub const PIN_COUNTED: Table = Table { name: "pin", rows: pinned::counted };

/// Page faults of devices.
pub const FAULT: Table = Table { name: "fault", rows: fault::rows };

/// All rows of all tables.
pub fn all() -> Vec<Row> {
    [&MAPPING, &EMU, &GUARD, &PIN, &FAULT].into_iter().flat_map(|table| (table.rows)()).collect()
}

fn mapping() -> Vec<Row> {
    let mut rows: Vec<Row> =
        [iova::rows(), tables::rows(), two_step::rows(), translate::rows(), metadata::rows(), bounce::rows()]
            .into_iter()
            .flatten()
            .collect();
    // PT7 stands between PT6 and PT8.
    rows.sort_by_key(|row| ORDER.iter().position(|kind| row.id.starts_with(kind)).map(|kind| (kind, row.id)));
    rows
}

/// Kinds of rows, by the beginning of their ids.
const ORDER: [&str; 5] = ["I", "PT", "T", "M", "BO"];

/// The row with that id, of any table.
pub fn row(id: &str) -> Option<Row> {
    all().into_iter().find(|row| row.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Gate;
    use std::collections::BTreeSet;

    #[test]
    fn every_gate_is_about_sides_of_its_row() {
        for row in all() {
            for gate in &row.gates {
                let (of, to) = match *gate {
                    Gate::Instructions { of, .. }
                    | Gate::Short { of, .. }
                    | Gate::Held { of, .. }
                    | Gate::NoAllocation { of } => (of, of),
                    Gate::Ratio { of, to, .. } | Gate::Equal { of, to, .. } | Gate::HeldRatio { of, to, .. } => {
                        (of, to)
                    }
                };
                assert!(row.side(of).is_some() && row.side(to).is_some(), "{}: {of}, {to}", row.id);
            }
        }
    }

    #[test]
    fn what_is_compared_by_instructions_is_counted_and_by_time_timed() {
        for row in all() {
            let side = |name| row.side(name).map(|side| (side.counted, side.timed));
            for gate in &row.gates {
                let well = match *gate {
                    Gate::Instructions { of, .. } | Gate::Short { of, .. } => {
                        side(of).is_some_and(|(counted, _)| counted > 0)
                    }
                    Gate::Equal { of, to, .. } => [of, to].iter().all(|name| side(name).is_some_and(|side| side.0 > 0)),
                    Gate::Ratio { of, to, .. } => [of, to].iter().all(|name| side(name).is_some_and(|side| side.1 > 0)),
                    _ => true,
                };
                assert!(well, "{}", row.id);
            }
            for side in &row.sides {
                assert!(
                    side.reference.is_none() || side.counted > 0,
                    "{} of {} is expected, not counted",
                    side.name,
                    row.id
                );
            }
        }
    }

    #[test]
    fn ids_and_the_names_of_sides_are_unique() {
        let rows = all();
        assert_eq!(rows.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), rows.len());
        for row in &rows {
            assert_eq!(
                row.sides.iter().map(|side| side.name).collect::<BTreeSet<_>>().len(),
                row.sides.len(),
                "{}",
                row.id
            );
        }
    }

    #[test]
    fn rows_stand_in_the_order_of_the_targets() {
        let ids: Vec<_> = all().iter().map(|row| row.id).collect();
        let place = |id| ids.iter().position(|other| *other == id);
        for [before, after] in
            [["I5", "PT1"], ["PT1", "PT2"], ["PT6", "PT7"], ["PT8", "T1"], ["T3", "M1"], ["M2", "BO1"], ["BO1", "E1"]]
        {
            assert!(place(before).is_some() && place(before) < place(after), "{before} {after}: {ids:?}");
        }
    }
}
