//! The file as it is written: shapes and positions, nothing checked but types.
//!
//! Every value keeps its span, so that whatever turns out to be wrong with it
//! later can be told with its line.

use super::words::{IommuKind, ModeWord, Model, PeerForwarding, PortKind, TdiState};
use peerdma::pcie::PciId;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use toml::Spanned;

/// Just enough to tell a file of another schema from a file with mistakes.
#[derive(serde::Deserialize)]
pub(super) struct Head {
    pub(super) schema: Spanned<Integer>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) schema: Spanned<Integer>,
    pub(super) platform: Option<Table<Named>>,
    pub(super) cpu: Option<Table<Cpu>>,
    pub(super) kernel: Option<Table<Kernel>>,
    pub(super) iommu: Option<Table<Iommu>>,
    #[serde(default)]
    pub(super) ram: Tables<Ram>,
    #[serde(default)]
    pub(super) host_bridge: Tables<HostBridge>,
    #[serde(default)]
    pub(super) port: Tables<Port>,
    #[serde(default)]
    pub(super) function: Tables<Function>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: Spanned<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cpu {
    pub(super) vendor: Spanned<String>,
    pub(super) family: Option<Spanned<Integer>>,
    pub(super) model: Option<Spanned<Integer>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernel {
    pub(super) version: Option<Spanned<String>>,
    pub(super) cmdline: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Iommu {
    pub(super) kind: Spanned<IommuKind>,
    pub(super) mode: Option<Spanned<ModeWord>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ram {
    pub(super) base: Spanned<Integer>,
    pub(super) size: Spanned<Size>,
    pub(super) node: Option<Spanned<Integer>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostBridge {
    pub(super) name: Spanned<String>,
    pub(super) segment: Option<Spanned<Integer>>,
    pub(super) buses: Option<Spanned<Vec<Spanned<Integer>>>>,
    pub(super) node: Option<Spanned<Integer>>,
    pub(super) first_device: Option<Spanned<Id>>,
    #[serde(default)]
    pub(super) windows: Vec<Table<Window>>,
    pub(super) peer: Option<PeerForwarding>,
    pub(super) replaces_requester: Option<bool>,
    pub(super) between_ports: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub(super) cpu: Spanned<Integer>,
    pub(super) bus: Spanned<Integer>,
    pub(super) size: Spanned<Size>,
    pub(super) prefetch: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Spanned<String>,
    pub(super) parent: Spanned<String>,
    pub(super) kind: PortKind,
    pub(super) bdf: Spanned<String>,
    pub(super) id: Option<Id>,
    pub(super) number: Option<Spanned<Integer>>,
    pub(super) mps: Option<Spanned<Integer>>,
    pub(super) link: Option<Spanned<Table<Link>>>,
    pub(super) atomics: Option<Table<PortAtomics>>,
    pub(super) acs: Option<Spanned<Acs>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    pub(super) name: Spanned<String>,
    pub(super) parent: Spanned<String>,
    pub(super) bdf: Spanned<String>,
    pub(super) id: Option<Id>,
    pub(super) class: Option<Spanned<Integer>>,
    pub(super) model: Option<Model>,
    #[serde(default)]
    pub(super) bars: Vec<Table<Bar>>,
    pub(super) memory: Option<Spanned<Size>>,
    pub(super) acs: Option<Spanned<Acs>>,
    pub(super) ats: Option<Spanned<bool>>,
    pub(super) pasid_bits: Option<Spanned<Integer>>,
    pub(super) mps: Option<Spanned<Integer>>,
    pub(super) mrrs: Option<Spanned<Integer>>,
    pub(super) relaxed_ordering: Option<Spanned<bool>>,
    pub(super) no_snoop: Option<Spanned<bool>>,
    pub(super) atomics: Option<Spanned<Table<FunctionAtomics>>>,
    pub(super) link: Option<Spanned<Table<Link>>>,
    pub(super) mask_bits: Option<Spanned<Integer>>,
    pub(super) driver: Option<Spanned<String>>,
    pub(super) iommu_mode: Option<Spanned<ModeWord>>,
    pub(super) tdi: Option<Spanned<TdiState>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) speed: Spanned<String>,
    pub(super) width: Spanned<Integer>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortAtomics {
    pub(super) routing: Option<bool>,
    pub(super) egress_blocked: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionAtomics {
    pub(super) requester: Option<bool>,
    pub(super) completer: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bar {
    pub(super) n: Spanned<Integer>,
    pub(super) size: Spanned<Size>,
    pub(super) prefetch: Option<bool>,
    pub(super) resizable: Option<Spanned<Vec<Spanned<Size>>>>,
}

/// A table, and nothing else.
///
/// serde's derive would also take an array for a table, key by key in the order of
/// declaration, which no document describes.
pub(super) struct Table<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Table<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// Tables that are written one by one under `[[a heading]]`.
pub(super) struct Tables<T>(Vec<T>);

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Tables<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tables<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Tables<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tables; write the heading with two brackets, `[[…]]`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tables<T>, A::Error> {
                let mut tables = Vec::new();
                while let Some(Table(table)) = list.next_element()? {
                    tables.push(table);
                }
                Ok(Tables(tables))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// An integer before anybody asks whether it is in range.
///
/// Wider than any key takes, so that the complaint is about the key's range and
/// not about a Rust type.
#[derive(Clone, Copy)]
pub(super) struct Integer(pub(super) i128);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Integer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_i64<E: Error>(self, found: i64) -> Result<Integer, E> {
                Ok(Integer(found.into()))
            }
            fn visit_u64<E: Error>(self, found: u64) -> Result<Integer, E> {
                Ok(Integer(found.into()))
            }
            fn visit_i128<E: Error>(self, found: i128) -> Result<Integer, E> {
                Ok(Integer(found))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A number of bytes: an integer, or a string with a unit.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size: bytes as an integer, or a string such as \"16MiB\"")
            }
            fn visit_i64<E: Error>(self, found: i64) -> Result<Size, E> {
                u64::try_from(found).map(Size).map_err(|_| E::custom(format_args!("a size cannot be {found}")))
            }
            fn visit_u64<E: Error>(self, found: u64) -> Result<Size, E> {
                Ok(Size(found))
            }
            fn visit_str<E: Error>(self, found: &str) -> Result<Size, E> {
                size_of_text(found).map(Size).ok_or_else(|| {
                    E::custom(format_args!(
                        "{found:?} is not a size below 2^64 bytes; write a whole number with B, KiB, MiB, GiB or TiB"
                    ))
                })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn size_of_text(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let shift = match text[digits..].trim_start_matches(' ') {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A vendor and device ID, `vvvv:dddd`.
#[derive(Clone, Copy)]
pub(super) struct Id(pub(super) PciId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let half = |part: &str| {
            let digits = part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u16::from_str_radix(part, 16).ok())?
        };
        let id = text.split_once(':').and_then(|(vendor, device)| Some((half(vendor)?, half(device)?)));
        match id {
            // A vendor of all ones is what reads where no function answers.
            Some((vendor, device)) if vendor != 0xffff => Ok(Self(PciId { vendor, device })),
            _ => Err(D::Error::custom(format_args!(
                "{text:?} is not an ID; write vendor and device in hexadecimal, such as \"8086:09a2\""
            ))),
        }
    }
}

/// What a file says about a function's ACS.
pub(super) enum Acs {
    /// `"none"`: it has no such capability.
    None,
    /// `"unknown"`: whether it has one was not read.
    Unknown,
    /// The registers.
    Registers(AcsRegisters),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcsRegisters {
    pub(super) cap: Spanned<Integer>,
    pub(super) ctl: Spanned<Integer>,
    pub(super) egress: Option<Spanned<Integer>>,
}

impl<'de> Deserialize<'de> for Acs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Acs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ACS as { cap = …, ctl = … }, \"none\" or \"unknown\"")
            }
            fn visit_str<E: Error>(self, found: &str) -> Result<Acs, E> {
                match found {
                    "none" => Ok(Acs::None),
                    "unknown" => Ok(Acs::Unknown),
                    _ => Err(E::custom(format_args!(
                        "{found:?} is not what ACS can be; write {{ cap = …, ctl = … }}, \"none\" or \"unknown\""
                    ))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Acs, A::Error> {
                AcsRegisters::deserialize(MapAccessDeserializer::new(map)).map(Acs::Registers)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_that_says_1024_and_must_fit() {
        assert_eq!(size_of_text("16MiB"), Some(16 << 20));
        assert_eq!(size_of_text("64 GiB"), Some(64 << 30));
        assert_eq!(size_of_text("512B"), Some(512));
        assert_eq!(size_of_text("16777215TiB"), Some(16777215 << 40));
        for text in ["", "16", "16MB", "16M", "MiB", "-1MiB", "1.5GiB", "16777216TiB", "99999999999999999999B", "1GiB "]
        {
            assert_eq!(size_of_text(text), None, "{text}");
        }
    }
}
