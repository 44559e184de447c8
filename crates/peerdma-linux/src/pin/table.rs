//! Pins by number and generation.

/// Names a pin of one [`Pinner`](super::Pinner), and no other pin ever after.
///
/// The index is used again once the pin is gone, with the next generation; an id of before then names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PinId {
    index: u32,
    generation: u32,
}

impl std::fmt::Display for PinId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pin {}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Row<T> {
    generation: u32,
    value: Option<T>,
}

/// Values by [`PinId`].
#[derive(Debug)]
pub(super) struct Table<T> {
    rows: Vec<Row<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Puts a value in.
    pub(super) fn insert(&mut self, value: T) -> PinId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Row { generation: 0, value: None });
            (self.rows.len() - 1) as u32
        });
        let row = &mut self.rows[index as usize];
        row.value = Some(value);
        PinId { index, generation: row.generation }
    }

    /// What an id names, if it is still there.
    pub(super) fn at(&self, id: PinId) -> Option<&T> {
        self.rows.get(id.index as usize).filter(|row| row.generation == id.generation)?.value.as_ref()
    }

    /// Takes a value out; its id names nothing from now on.
    pub(super) fn remove(&mut self, id: PinId) -> Option<T> {
        let row = self.rows.get_mut(id.index as usize).filter(|row| row.generation == id.generation)?;
        let value = row.value.take()?;
        // An index whose generations are used up is never used again.
        if let Some(next) = row.generation.checked_add(1) {
            row.generation = next;
            self.free.push(id.index);
        }
        Some(value)
    }

    /// All of them, in the order of their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PinId, &T)> {
        let id = |(index, row): (usize, &Row<T>)| PinId { index: index as u32, generation: row.generation };
        self.rows.iter().enumerate().filter_map(move |(index, row)| Some((id((index, row)), row.value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_before_names_nothing_although_its_index_is_used_again() {
        let mut table = Table::default();
        let first = table.insert('a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b');
        assert_eq!(first.index, second.index);
        assert_eq!(table.remove(first), None);
        assert_eq!((table.at(first), table.at(second)), (None, Some(&'b')));
    }

    #[test]
    fn an_index_whose_generations_are_used_up_is_left_alone() {
        let mut table = Table::default();
        let id = table.insert('a');
        table.rows[0].generation = u32::MAX;
        let last = PinId { generation: u32::MAX, ..id };
        assert_eq!(table.remove(last), Some('a'));
        assert_eq!((table.insert('b').index, table.at(last)), (1, None));
    }
}
