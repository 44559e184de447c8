//! The few options of the kernel's configuration that decide about peer traffic.

use crate::archive;
use crate::tree::Tree;
use std::collections::BTreeMap;

/// Options kept in snapshots and captures.
const OPTIONS: [&str; 19] = [
    "PCI",
    "PCI_P2PDMA",
    "ZONE_DEVICE",
    // Who hands device memory out, and who takes it.
    "DMABUF_MOVE_NOTIFY",
    "DMA_SHARED_BUFFER",
    "DMABUF_HEAPS_SYSTEM",
    "UDMABUF",
    "HSA_AMD_P2P",
    "VFIO_PCI",
    "VFIO_PCI_DMABUF",
    "IOMMUFD",
    "INFINIBAND",
    // How the IOMMU treats devices where the command line does not say.
    "INTEL_IOMMU",
    "INTEL_IOMMU_DEFAULT_ON",
    "AMD_IOMMU",
    "ARM_SMMU_V3",
    "IOMMU_DEFAULT_PASSTHROUGH",
    "IOMMU_DEFAULT_DMA_LAZY",
    "IOMMU_DEFAULT_DMA_STRICT",
];

/// Most bytes of a configuration; distributions' have some 300 KiB.
const MAX_TEXT: u64 = 4 << 20;

/// Reads the configuration of the running or copied kernel, wherever it lies.
///
/// Empty where none is readable. Where a whole one is, every option of the list is in
/// it: an option that it does not mention is off.
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

/// `None` for a text that tells of none of the options.
fn options(text: &str) -> Option<BTreeMap<String, String>> {
    // Kconfig ends every configuration so since Linux 5.2; only then is silence "off".
    let is_whole = text.contains("# end of Kernel hacking");
    let mut found = BTreeMap::new();
    if is_whole {
        found.extend(OPTIONS.iter().map(|option| (format!("CONFIG_{option}"), "n".to_string())));
    }
    let is_wanted = |name: &str| name.strip_prefix("CONFIG_").is_some_and(|name| OPTIONS.contains(&name));
    // A last line without its end may be cut.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let line = line.trim_end();
        let off = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set"));
        if let Some((name, value)) = line.split_once('=').or(off.map(|name| (name, "n")))
            && is_wanted(name)
        {
            found.insert(name.to_string(), value.to_string());
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "# end of Kernel hacking\n";

    #[test]
    fn in_a_whole_configuration_an_option_that_is_not_mentioned_is_off() {
        let text = format!("CONFIG_PCI=y\n# CONFIG_PCI_P2PDMA is not set\nCONFIG_VFIO_PCI=m\n{END}");
        let found = options(&text).unwrap();
        assert_eq!(found["CONFIG_PCI_P2PDMA"], "n");
        assert_eq!(found["CONFIG_ZONE_DEVICE"], "n");
        assert_eq!(found["CONFIG_VFIO_PCI"], "m");
    }

    #[test]
    fn half_a_configuration_tells_only_what_it_says() {
        let found = options("CONFIG_64BIT=y\nCONFIG_PCI=y\nCONFIG_ZONE_DEVICE=").unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("CONFIG_PCI".to_string(), "y".to_string())]);
    }

    #[test]
    fn a_file_that_is_no_configuration_tells_nothing() {
        assert_eq!(options("hello = world\n"), None);
    }
}
