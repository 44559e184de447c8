//! The few options of the kernel's configuration that decide about peer traffic.

use crate::archive;
use crate::tree::Tree;
use std::collections::BTreeMap;

/// Options kept in snapshots and captures.
const OPTIONS: [&str; 9] = [
    "PCI",
    "PCI_P2PDMA",
    "ZONE_DEVICE",
    "DMABUF_MOVE_NOTIFY",
    "DMA_SHARED_BUFFER",
    "VFIO_PCI",
    "VFIO_PCI_DMABUF",
    "IOMMUFD",
    "INFINIBAND",
];

/// Most bytes of a configuration; distributions' have some 300 KiB.
const MAX_TEXT: u64 = 4 << 20;

/// Reads the configuration of the running or copied kernel, wherever it lies.
///
/// Empty where none is readable. Where one is, every option of the list is in it:
/// an option that a configuration does not mention is off.
pub(crate) fn read(tree: &Tree, release: Option<&str>) -> BTreeMap<String, String> {
    let mut places = vec!["proc/config.gz".to_string(), "proc/config".to_string()];
    if let Some(release) = release.filter(|release| !release.contains('/')) {
        places.push(format!("boot/config-{release}"));
    }
    places
        .into_iter()
        .find_map(|place| {
            let bytes = tree.read(&place)?;
            options(&String::from_utf8_lossy(&archive::decompress_at_most(&bytes, MAX_TEXT).ok()?))
        })
        .unwrap_or_default()
}

/// `None` for a text that is no kernel configuration, or not all of one.
fn options(text: &str) -> Option<BTreeMap<String, String>> {
    // A configuration names its architecture's word size; half a file may lack the end.
    if !text.contains("CONFIG_64BIT") && !text.contains("CONFIG_PCI=") {
        return None;
    }
    let mut found: BTreeMap<String, String> =
        OPTIONS.iter().map(|option| (format!("CONFIG_{option}"), "n".to_string())).collect();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once('=')
            && let Some(slot) = found.get_mut(name.trim())
        {
            *slot = value.trim().to_string();
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_not_mentioned_is_off() {
        let found =
            options("CONFIG_64BIT=y\nCONFIG_PCI=y\n# CONFIG_PCI_P2PDMA is not set\nCONFIG_VFIO_PCI=m\n").unwrap();
        assert_eq!(found["CONFIG_PCI_P2PDMA"], "n");
        assert_eq!(found["CONFIG_ZONE_DEVICE"], "n");
        assert_eq!(found["CONFIG_VFIO_PCI"], "m");
    }

    #[test]
    fn a_file_that_is_no_configuration_tells_nothing() {
        assert_eq!(options("hello = world\n"), None);
    }
}
