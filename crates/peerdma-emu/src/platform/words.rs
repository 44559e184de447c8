//! Closed sets of words that a platform file may use.

/// Declares an enum of words; each reads from and writes as exactly its word.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as it stands in a platform file.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            // Not serde's derive: that would also take a table `{ root = {} }` for the word.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::ALL.iter().copied().find(|known| known.word() == text).ok_or_else(|| unknown_word(&text, &[$($word),+]))
            }
        }
    };
}

use serde::de::{Deserialize, Deserializer, Error};
use std::fmt;

fn unknown_word<E: Error>(found: &str, words: &[&str]) -> E {
    E::custom(format_args!("{found:?} is not one of the words known here: {}", words.join(", ")))
}

words! {
    /// What a port is.
    PortKind {
        /// Root port of a root complex.
        Root = "root",
        /// Upstream port of a switch.
        Upstream = "upstream",
        /// Downstream port of a switch.
        Downstream = "downstream",
        /// Bridge to conventional PCI.
        PciePci = "pcie-pci",
    }
}

words! {
    /// What a function behaves like when it is emulated.
    Model {
        /// Graphics processor with movable memory behind a BAR.
        Gpu = "gpu",
        /// NVMe controller.
        Nvme = "nvme",
        /// Network interface with remote memory regions and doorbells.
        Nic = "nic",
        /// Engine that copies between two addresses.
        Dma = "dma",
        /// BARs and nothing else.
        Plain = "plain",
        /// Processing accelerator with an address space per process.
        Accel = "accel",
    }
}

words! {
    /// What a host bridge does with a request from below for another device below a host bridge.
    PeerForwarding {
        /// Delivers reads and writes.
        Forwards = "forwards",
        /// Delivers writes; reads fail.
        WritesOnly = "writes_only",
        /// Drops writes and answers reads with all ones.
        AllOnes = "all_ones",
        /// Delivers nothing.
        None = "none",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

words! {
    /// Which IOMMU the machine has.
    IommuKind {
        /// Intel VT-d.
        Vtd = "vtd",
        /// AMD-Vi.
        Amd = "amd",
        /// Arm SMMU version 3.
        Smmu = "smmu",
        /// One window of bus addresses with a flat table, as POWER's TCE.
        Window = "window",
        /// None.
        None = "none",
    }
}

words! {
    /// State of a function's trusted device interface (PCIe 6.0 §11.2, TDISP).
    TdiState {
        /// `CONFIG_UNLOCKED`: may be reconfigured, is not trusted.
        Unlocked = "unlocked",
        /// `CONFIG_LOCKED`: configuration is frozen, not yet trusted.
        Locked = "locked",
        /// `RUN`: may reach private memory.
        Run = "run",
        /// `ERROR`: nothing is let through.
        Error = "error",
    }
}

words! {
    /// How the IOMMU treats requests; the core's `IommuMode` in the file's words.
    ModeWord {
        /// Addresses are translated.
        Translated = "translated",
        /// Addresses are passed through.
        Identity = "identity",
        /// There is no IOMMU, or it is off.
        None = "none",
    }
}

impl Model {
    /// Class code of a function that states none.
    pub const fn default_class(self) -> peerdma::pcie::ClassCode {
        peerdma::pcie::ClassCode::new(match self {
            Self::Gpu => 0x03_0200,
            Self::Nvme => 0x01_0802,
            Self::Nic => 0x02_0000,
            Self::Dma => 0x08_0100,
            Self::Accel => 0x12_0000,
            // "Device does not fit in any defined class".
            Self::Plain => 0xff_0000,
        })
    }
}
