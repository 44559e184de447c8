//! Which kernels have which parameter, and which of them compute the word wrongly.

use crate::pcie::Fact;
use crate::topology::KernelVersion;

/// First series with `disable_acs_redir=`: written in July 2018, for 4.19.
pub(in crate::route) const DISABLE_ACS_REDIR_SINCE: (u32, u32) = (4, 19);

/// First series with `config_acs=`: commit 47c8846a49ba, merged in July 2024 after the
/// release of 6.10.
pub(in crate::route) const CONFIG_ACS_SINCE: (u32, u32) = (6, 11);

/// Whether the kernel computes the words of both parameters wrongly, and of a list of
/// `config_acs=` reads the first element only.
///
/// Commit 47c8846a49ba took the bits to write from firmware and only added to them, so
/// what firmware had set stayed set. "PCI/ACS: Fix 'pci=config_acs=' parameter" mended
/// it in 6.15 and, in April 2025, in the stable series then alive. Unknown for those
/// where the patch level is not told.
pub(in crate::route) fn computes_wrong_word(kernel: KernelVersion) -> Fact<bool> {
    let last_wrong = match kernel.series() {
        (6, 11) => return Fact::Known(true),
        (6, 12) => 22,
        (6, 13) => 10,
        (6, 14) => 1,
        _ => return Fact::Known(false),
    };
    kernel.patch.map(|patch| patch <= last_wrong).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_releases_with_config_acs_compute_wrong_words() {
        let of = |kernel: &str| computes_wrong_word(kernel.parse().unwrap());
        for wrong in ["6.11", "6.11.11", "6.12.22", "6.13.0", "6.14.1"] {
            assert_eq!(of(wrong), Fact::Known(true), "{wrong}");
        }
        for right in ["6.10.14", "6.12.23", "6.13.11", "6.14.2", "6.15", "7.2.13"] {
            assert_eq!(of(right), Fact::Known(false), "{right}");
        }
        assert_eq!(of("6.12"), Fact::Unknown, "which of its releases is not told");
    }
}
