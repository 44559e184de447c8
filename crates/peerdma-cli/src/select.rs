//! From what people type to functions of a topology.

use crate::exit::Failure;
use peerdma::addr::Bytes;
use peerdma::pcie::decode::HeaderType;
use peerdma::pcie::{ClassCode, PciAddr};
use peerdma::route::Target;
use peerdma::topology::{Function, FunctionId, FunctionInfo, Origin, Topology};

/// Functions that `matrix` shows without being told: worth pairing, not virtual.
pub(crate) fn is_worth_pairing(function: &Function) -> bool {
    let Some(class) = function.info().registers.class else { return false };
    let kind = matches!(class.word(), Some("display" | "network" | "storage" | "accelerator"));
    kind && has_device_header(function.info()) && function.physical().is_none()
}

/// Whether the function has a type 0 header, as far as the input tells.
pub(crate) fn has_device_header(info: &FunctionInfo) -> bool {
    match info.registers.header {
        Some(header) => header == HeaderType::Device,
        None => !info.is_bridge() && info.origin != Origin::PathOnly,
    }
}

/// One filter of `matrix`.
enum Filter {
    ClassWord(String),
    ClassDigits(String),
    Driver(String),
    Address(PciAddr),
    AddressPrefix(String),
    Name(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(class) = text.strip_prefix("class:") {
            if ClassCode::WORDS.contains(&class) {
                return Ok(Self::ClassWord(class.to_string()));
            }
            let digits = class.strip_prefix("0x").unwrap_or(class);
            if (2..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Ok(Self::ClassDigits(digits.to_ascii_lowercase()));
            }
            let words = ClassCode::WORDS.join(", ");
            return Err(Failure::usage(format!(
                "no class is called {class:?}: give one of {words}, or 2 to 6 hex digits"
            )));
        }
        if let Some(driver) = text.strip_prefix("driver:") {
            return Ok(Self::Driver(driver.to_string()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains(':') && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return Ok(Self::AddressPrefix(text.to_ascii_lowercase()));
        }
        Ok(Self::Name(text.to_string()))
    }

    fn admits(&self, function: &Function) -> bool {
        let info = function.info();
        match self {
            Self::ClassWord(word) => info.registers.class.is_some_and(|class| class.word() == Some(word)),
            Self::ClassDigits(digits) => {
                info.registers.class.is_some_and(|class| class.to_string().starts_with(digits))
            }
            Self::Driver(driver) => info.driver.as_ref() == Some(driver),
            Self::Address(address) => info.address == *address,
            Self::AddressPrefix(prefix) => {
                let address = info.address.to_string();
                address.starts_with(prefix) || address.split_once(':').is_some_and(|(_, rest)| rest.starts_with(prefix))
            }
            Self::Name(name) => info.names.contains(name),
        }
    }
}

/// The functions that any of the filters admits, in order of addresses.
///
/// A filter that admits nothing is an error: most likely it is a typing mistake.
pub(crate) fn filtered(topology: &Topology, filters: &[String]) -> Result<Vec<FunctionId>, Failure> {
    let parsed: Vec<Filter> = filters.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
    for (filter, text) in parsed.iter().zip(filters) {
        if !topology.functions().any(|(_, function)| filter.admits(function)) {
            return Err(Failure::usage(format!(
                "no function of the input satisfies {text:?}; peerdma topo lists them all"
            )));
        }
    }
    let admitted = |function: &Function| parsed.iter().any(|filter| filter.admits(function));
    Ok(topology.functions().filter(|(_, function)| admitted(function)).map(|(id, _)| id).collect())
}

/// The function with this address or name.
pub(crate) fn function(topology: &Topology, text: &str) -> Result<FunctionId, Failure> {
    if let Ok(address) = text.parse::<PciAddr>() {
        return topology.at(address).ok_or_else(|| {
            Failure::usage(format!(
                "{address} is not among the {} functions of the input; peerdma topo lists them",
                topology.functions().len()
            ))
        });
    }
    let mut named = topology.functions().filter(|(_, function)| function.info().names.iter().any(|name| name == text));
    match (named.next(), named.next()) {
        (Some((id, _)), None) => Ok(id),
        (Some((_, first)), Some((_, second))) => Err(Failure::usage(format!(
            "{text} is a name of {} and of {}, at least; give the address",
            first.address(),
            second.address()
        ))),
        (None, _) => Err(Failure::usage(format!(
            "{text:?} is neither an address such as 0000:41:00.0 nor a name of a PCI function of the input; peerdma topo lists both"
        ))),
    }
}

/// A target, and whether its BAR was named or chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) target: Target,
    pub(crate) bar_is_named: bool,
}

/// Splits `FUNCTION[/barN[+OFFSET,LEN]]` and checks the range against the BAR. Without a
/// BAR the largest is meant.
pub(crate) fn target(topology: &Topology, text: &str) -> Result<Asked, Failure> {
    let Some((name, range)) = text.split_once('/') else {
        let target = Target::largest_bar(topology, function(topology, text)?);
        return Ok(Asked { target, bar_is_named: false });
    };
    let id = function(topology, name)?;
    let form = || {
        Failure::usage(format!(
            "{text:?}: after the / comes barN, with N from 0 to 5, or barN+OFFSET,LEN, such as bar0+0x1000,4KiB"
        ))
    };
    let (bar, slice) = match range.split_once('+') {
        Some((bar, slice)) => (bar, Some(slice)),
        None => (range, None),
    };
    let number: u8 = bar.strip_prefix("bar").and_then(|n| n.parse().ok()).filter(|&n| n < 6).ok_or_else(form)?;
    let slice = match slice {
        None => None,
        Some(slice) => {
            let (offset, len) = slice.split_once(',').ok_or_else(form)?;
            Some((size(offset).ok_or_else(form)?, size(len).filter(|&len| len != Bytes::ZERO).ok_or_else(form)?))
        }
    };
    let target = Target::of_bar(topology, id, number, slice).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Asked { target, bar_is_named: true })
}

/// Reads an address: hexadecimal with `0x`, else decimal.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        None if text.bytes().all(|digit| digit.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// Reads `0x1000`, `4096`, `4KiB`, `64K`, `2MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Option<Bytes> {
    if let Some(plain) = number(text) {
        return Some(Bytes::new(plain));
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let shift = match text[end..].trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_units_and_never_wrap() {
        assert_eq!(size("0x1000"), Some(Bytes::new(4096)));
        assert_eq!(size("4KiB"), Some(Bytes::new(4096)));
        assert_eq!(size("64G"), Some(Bytes::new(64 << 30)));
        for text in ["", "KiB", "4kb", "-1", "99999999999999999999", "99999999TiB", "0x", "0x+10"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
