//! Lines of a hexadecimal dump: `00: 86 80 c0 29 …`, `1f0: 00 00 …`.

/// Bytes on every line of `lspci -x` and more.
const PER_LINE: usize = 16;

/// Configuration bytes as far as the lines follow on each other.
#[derive(Clone, Debug, Default)]
pub(super) struct HexDump {
    bytes: Vec<u8>,
    /// A line was missing or damaged; what comes after it has no known place.
    broken: bool,
}

impl HexDump {
    /// Takes a line; `false` if it is no line of a dump.
    pub(super) fn line(&mut self, line: &str) -> bool {
        let Some((offset, bytes)) = read(line) else { return false };
        let follows = offset == self.bytes.len() && self.bytes.len() < 4096;
        match bytes {
            Some(bytes) if follows && !self.broken => self.bytes.extend_from_slice(&bytes),
            _ => self.broken = true,
        }
        true
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Hands the bytes out and keeps none.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Whether there was any line of a dump.
    pub(super) fn is_there(&self) -> bool {
        self.broken || !self.bytes.is_empty()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// Offset and bytes of a line; no bytes where they are not exactly sixteen.
fn read(line: &str) -> Option<(usize, Option<[u8; PER_LINE]>)> {
    let line = line.as_bytes();
    let colon = line.iter().take(4).position(|&byte| byte == b':').filter(|&colon| colon >= 2)?;
    let digit =
        |sum, &byte: &u8| (VALUES[usize::from(byte)] < 16).then(|| sum << 4 | usize::from(VALUES[usize::from(byte)]));
    let offset = line[..colon].iter().try_fold(0, digit)?;
    let rest = &line[colon + 1..];
    if rest.first() != Some(&b' ') {
        return None;
    }
    let Some((dump, after)) = rest.split_at_checked(3 * PER_LINE) else { return Some((offset, None)) };
    let mut bytes = [0; PER_LINE];
    let mut damaged = after.iter().any(|byte| !byte.is_ascii_whitespace());
    for (byte, text) in bytes.iter_mut().zip(dump.chunks_exact(3)) {
        let (high, low) = (VALUES[usize::from(text[1])], VALUES[usize::from(text[2])]);
        damaged |= text[0] != b' ' || (high | low) >= 16;
        *byte = high << 4 | low & 0xf;
    }
    Some((offset, (!damaged).then_some(bytes)))
}

/// Values of hexadecimal digits, 16 for what is none.
const VALUES: [u8; 256] = {
    let mut values = [16; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(lines: &[&str]) -> HexDump {
        let mut dump = HexDump::default();
        for line in lines {
            assert!(dump.line(line), "{line}");
        }
        dump
    }

    const ZEROS: &str = " 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00";

    #[test]
    fn lines_are_taken_while_they_follow_on_each_other() {
        let whole = dump(&[&format!("00:{ZEROS}"), &format!("10:{ZEROS} ")]);
        assert_eq!((whole.bytes().len(), whole.is_broken()), (32, false));
        let gap = dump(&[&format!("00:{ZEROS}"), &format!("20:{ZEROS}"), &format!("10:{ZEROS}")]);
        assert_eq!((gap.bytes().len(), gap.is_broken()), (16, true));
    }

    #[test]
    fn a_line_that_is_too_short_or_damaged_ends_the_bytes() {
        for bad in ["10: 00 00", "10: 00 0", "10: zz", &format!("10:{ZEROS} 00"), &format!("10:{ZEROS}0")] {
            let dump = dump(&[&format!("00:{ZEROS}"), bad, &format!("10:{ZEROS}")]);
            assert_eq!(dump.bytes().len(), 16, "{bad}");
        }
    }

    #[test]
    fn other_lines_are_not_mistaken_for_a_dump() {
        for line in ["", "00", "00:1f.0 ISA bridge: x", "Region 0:", "zz: 00", "1: 00", "00000: 00", ":"] {
            assert!(!HexDump::default().line(line), "{line}");
        }
    }
}
