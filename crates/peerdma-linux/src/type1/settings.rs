//! How the module `vfio_iommu_type1` is set, which is one setting for every container of the machine.

use crate::tree::Tree;

const PARAMETERS: &str = "sys/module/vfio_iommu_type1/parameters";

/// Settings of type1, as sysfs tells them; `None` where it does not, as without the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// Whether contiguous pages become large entries of an IOMMU's table (`disable_hugepages=N`). Looked at when memory is mapped
    /// (Linux 7.2 `vfio_pin_pages_remote`).
    pub huge_pages: Option<bool>,
    /// How many mappings a container holds that is opened from now on (`dma_entry_limit`).
    pub entry_limit: Option<u32>,
    /// Whether devices are given away although interrupts could be forged (`allow_unsafe_interrupts=Y`).
    pub unsafe_interrupts: Option<bool>,
}

impl Settings {
    /// Reads the module's parameters.
    ///
    /// # Examples
    /// ```
    /// use peerdma_linux::{tree::Tree, type1::settings::Settings};
    ///
    /// match Settings::read(&Tree::live()).huge_pages {
    ///     Some(true) => println!("type1 puts pages together"),
    ///     Some(false) => println!("type1 maps page by page, since somebody set disable_hugepages"),
    ///     None => println!("type1 is not loaded, or sysfs is not there"),
    /// }
    /// ```
    pub fn read(tree: &Tree) -> Self {
        let text = |name: &str| tree.text(&format!("{PARAMETERS}/{name}"));
        let flag = |name: &str| match text(name).as_deref().map(str::trim) {
            Some("Y" | "1") => Some(true),
            Some("N" | "0") => Some(false),
            _ => None,
        };
        Self {
            huge_pages: flag("disable_hugepages").map(|disabled| !disabled),
            entry_limit: text("dma_entry_limit").and_then(|text| text.trim().parse().ok()),
            unsafe_interrupts: flag("allow_unsafe_interrupts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_parameter_that_is_not_there_or_says_something_else_is_unknown() {
        let root = std::env::temp_dir().join(format!("peerdma-type1-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let folder = root.join(PARAMETERS);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
        fs::write(folder.join("disable_hugepages"), "Y\n").unwrap();
        fs::write(folder.join("allow_unsafe_interrupts"), "perhaps\n").unwrap();
        let read = Settings::read(&Tree::from_directory(&root).unwrap());
        assert_eq!(read, Settings { huge_pages: Some(false), entry_limit: None, unsafe_interrupts: None });
        fs::write(folder.join("dma_entry_limit"), "65535\n").unwrap();
        fs::write(folder.join("disable_hugepages"), "N\n").unwrap();
        let read = Settings::read(&Tree::from_directory(&root).unwrap());
        assert_eq!((read.huge_pages, read.entry_limit), (Some(true), Some(65535)));
        fs::remove_dir_all(&root).unwrap();
    }
}
