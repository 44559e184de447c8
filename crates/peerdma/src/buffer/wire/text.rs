//! Short text for people, printable by construction.

use super::field::{BadField, Field, Reader, Shape};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// At most `MAX` bytes of UTF-8 without control characters: safe to print on a terminal.
///
/// ```
/// use peerdma::buffer::wire::Text;
///
/// assert_eq!(Text::<8>::new("frame\n7 of 12").as_str(), "frame\u{fffd}");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Hash, Default)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Takes over as much as there is room for; control characters become replacement characters.
    pub fn new(text: &str) -> Self {
        let mut kept = String::new();
        for c in text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }) {
            if kept.len() + c.len_utf8() > MAX {
                break;
            }
            kept.push(c);
        }
        Self(kept)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> Field for Text<MAX> {
    const SHAPE: Shape = Shape { name: "text", shortest: 2, longest: 2 + MAX };

    fn put(&self, out: &mut Vec<u8>) {
        const { assert!(MAX <= u16::MAX as usize, "a text's length has two bytes") };
        // At most MAX, which fits by the assertion above.
        (self.0.len() as u16).put(out);
        out.extend_from_slice(self.0.as_bytes());
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
        let len = usize::from(u16::take(input)?);
        if len > MAX {
            return Err(BadField::TooLong { got: len, max: MAX });
        }
        let text = core::str::from_utf8(input.bytes(len)?).map_err(|_| BadField::Unprintable)?;
        if text.chars().any(char::is_control) {
            return Err(BadField::Unprintable);
        }
        Ok(Self(text.to_owned()))
    }
}
