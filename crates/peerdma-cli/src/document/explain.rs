//! Documents of `explain`.

mod lifetimes;
mod states;

pub(crate) use lifetimes::LifetimesDocument;
pub(crate) use states::StatesDocument;
