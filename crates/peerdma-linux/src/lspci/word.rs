//! Small pieces of `lspci` text: numbers, sizes, flags.
//!
//! A line may have been wrapped by a mail client or a terminal, so a number is
//! believed only together with what must follow it.

use peerdma::addr::Bytes;

/// The hexadecimal number that `text` starts with, at most 16 digits, and the rest.
pub(super) fn hex(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take(17).take_while(u8::is_ascii_hexdigit).count();
    if digits > 16 {
        return None;
    }
    let (number, rest) = text.split_at(digits);
    Some((u64::from_str_radix(number, 16).ok()?, rest))
}

/// The decimal number that `text` starts with, and the rest.
pub(super) fn decimal(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// The size that `text` starts with, `32G` or `64MB`, and the rest.
pub(super) fn size(text: &str) -> Option<(Bytes, &str)> {
    let (number, rest) = decimal(text)?;
    let shift = match rest.as_bytes().first() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        Some(b'P') => 50,
        _ => 0,
    };
    let rest = if shift == 0 { rest } else { &rest[1..] };
    let bytes = number.checked_mul(1 << shift)?;
    Some((Bytes::new(bytes), rest.strip_prefix('B').unwrap_or(rest)))
}

/// The text after `key`.
pub(super) fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    // Quicker than `find` for texts of a line's length: no tables are set up.
    let first = key.chars().next()?;
    text.match_indices(first).find_map(|(at, _)| text[at..].strip_prefix(key))
}

/// The words that end in `+` or `-`, such as `Mem+ BusMaster-, Enable+`.
pub(super) fn flags(text: &str) -> impl Iterator<Item = (&str, bool)> {
    text.split([' ', '\t']).filter_map(|word| {
        let word = word.strip_suffix(',').unwrap_or(word);
        match word.as_bytes().last() {
            Some(b'+') => Some((&word[..word.len() - 1], true)),
            Some(b'-') => Some((&word[..word.len() - 1], false)),
            _ => None,
        }
    })
}

/// The value of one flag.
pub(super) fn flag(text: &str, name: &str) -> Option<bool> {
    flags(text).find(|(found, _)| *found == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_with_and_without_the_letter_of_bytes() {
        assert_eq!(size("32G]"), Some((Bytes::new(32 << 30), "]")));
        assert_eq!(size("64MB 128MB"), Some((Bytes::new(64 << 20), " 128MB")));
        assert_eq!(size("128]"), Some((Bytes::new(128), "]")));
        assert_eq!(size("99999999999999T"), None);
        assert_eq!(size("G"), None);
    }

    #[test]
    fn a_flag_is_a_whole_word() {
        assert_eq!(flag("I/O- Mem+ MemWINV-", "Mem"), Some(true));
        assert_eq!(flag("\tEnable-, Smallest", "Enable"), Some(false));
        assert_eq!(flag("ReqRedir", "ReqRedir"), None);
    }

    #[test]
    fn numbers_that_are_too_long_are_none() {
        assert_eq!(hex("0123456789abcdef0"), None);
        assert_eq!(hex("fda00000-"), Some((0xfda0_0000, "-")));
        assert_eq!(hex("xyz"), None);
        assert_eq!(decimal("99999999999999999999"), None);
    }
}
