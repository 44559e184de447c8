//! Who takes blocks, by name.

use super::error::TooManyOwners;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU8;

/// Somebody who takes blocks of one pool.
///
/// A value of another pool is taken for whoever has the same number here, which spoils reports and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner(NonZeroU8);

impl Owner {
    /// Owners that a pool can tell apart: seven bits of a tag, less the one that says nobody.
    pub const MOST: usize = 127;

    pub(super) fn number(self) -> u8 {
        self.0.get()
    }

    pub(super) fn of_number(number: u8) -> Option<Self> {
        NonZeroU8::new(number).map(Self)
    }
}

/// The names of a pool's owners.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// The owner of that name, who may have been there before.
    pub(super) fn owner(&mut self, name: &str) -> Result<Owner, TooManyOwners> {
        let known = self.0.iter().position(|other| other == name);
        let index = match known {
            Some(index) => index,
            None if self.0.len() == Owner::MOST => return Err(TooManyOwners { name: name.to_string() }),
            None => {
                self.0.push(name.to_string());
                self.0.len() - 1
            }
        };
        // At most 127, as just seen.
        Owner::of_number(index as u8 + 1).ok_or_else(|| TooManyOwners { name: name.to_string() })
    }

    pub(super) fn of(&self, owner: Owner) -> &str {
        self.0.get(usize::from(owner.number()) - 1).map_or("somebody of another pool", String::as_str)
    }
}
