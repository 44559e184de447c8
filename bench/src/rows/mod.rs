//! The rows of the table, a file for each kind.

pub mod bounce;
pub mod iova;
mod lists;
pub mod metadata;
pub mod tables;
pub mod translate;
pub mod two_step;

use crate::row::Row;

/// All rows, in the table's order.
pub fn all() -> Vec<Row> {
    let mut rows: Vec<Row> = [iova::rows(), tables::rows(), two_step::rows(), translate::rows(), metadata::rows(), bounce::rows()]
        .into_iter()
        .flatten()
        .collect();
    // PT7 stands between PT6 and PT8.
    rows.sort_by_key(|row| ORDER.iter().position(|kind| row.id.starts_with(kind)).map(|kind| (kind, row.id)));
    rows
}

/// Kinds of rows, by the beginning of their ids.
const ORDER: [&str; 5] = ["I", "PT", "T", "M", "BO"];

/// The row with that id.
pub fn row(id: &str) -> Option<Row> {
    all().into_iter().find(|row| row.id == id)
}
