//! Calling each of several, also those after one that panics.

/// Calls `f` with each item, also with those after one whose call panicked.
///
/// For what would be lost with the rest of the list. The panic goes on when all were called; a second one meanwhile ends
/// the process, as any that leaves a destructor.
pub(crate) fn for_every<I: IntoIterator>(items: I, f: impl FnMut(I::Item)) {
    Rest { items: items.into_iter(), f }.call();
}

struct Rest<I: Iterator, F: FnMut(I::Item)> {
    items: I,
    f: F,
}

impl<I: Iterator, F: FnMut(I::Item)> Rest<I, F> {
    fn call(&mut self) {
        for item in self.items.by_ref() {
            (self.f)(item);
        }
    }
}

impl<I: Iterator, F: FnMut(I::Item)> Drop for Rest<I, F> {
    /// Nothing is left but after a panic.
    fn drop(&mut self) {
        self.call();
    }
}
