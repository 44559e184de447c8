//! Documents of `explain`.

mod states;

pub(crate) use states::StatesDocument;
