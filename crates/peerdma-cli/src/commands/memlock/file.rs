//! A plan as it stands in its file; docs/memlock.md describes it to people.

use crate::select;
use peerdma::addr::Bytes;
use serde::{Deserialize, Deserializer};

/// The file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    /// The CPU's page size.
    #[serde(default, deserialize_with = "some_size")]
    pub(super) page: Option<Bytes>,
    #[serde(default)]
    pub(super) memory: Vec<MemoryEntry>,
    #[serde(default)]
    pub(super) ring: Vec<RingEntry>,
    #[serde(default)]
    pub(super) pin: Vec<PinEntry>,
}

/// Memory that pins name.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryEntry {
    pub(super) name: String,
    #[serde(deserialize_with = "size")]
    pub(super) size: Bytes,
    /// How far behind a boundary of its pages it begins.
    #[serde(default, deserialize_with = "some_size")]
    pub(super) behind: Option<Bytes>,
    /// Size of its huge pages, or largest folios.
    #[serde(default, deserialize_with = "some_size")]
    pub(super) pages: Option<Bytes>,
}

/// A ring of more than one entry.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RingEntry {
    pub(super) name: String,
    pub(super) entries: u32,
    #[serde(default)]
    pub(super) completions: Option<u32>,
    #[serde(default = "a_process")]
    pub(super) process: String,
}

/// Memory that is pinned.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct PinEntry {
    pub(super) memory: String,
    pub(super) through: String,
    /// What shares charges.
    #[serde(default, rename = "in")]
    pub(super) within: Option<String>,
    #[serde(default = "a_process")]
    pub(super) process: String,
    #[serde(default, deserialize_with = "some_size")]
    pub(super) offset: Option<Bytes>,
    #[serde(default, deserialize_with = "some_size")]
    pub(super) size: Option<Bytes>,
    /// How many such pins, one beside the other in the same container, file or ring.
    #[serde(default = "once")]
    pub(super) times: u32,
}

fn a_process() -> String {
    "process".into()
}

const fn once() -> u32 {
    1
}

/// A size in words, or a number of bytes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Words(String),
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let size = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Some(Bytes::new(bytes)),
        Size::Words(words) => select::size(&words),
    };
    size.ok_or_else(|| serde::de::Error::custom("give a size such as \"8GiB\", \"64 KiB\" or 4096"))
}

fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    size(deserializer).map(Some)
}
