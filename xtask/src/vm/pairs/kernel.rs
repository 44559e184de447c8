//! What the kernel decided, as the module under `vm/oracle` wrote it down.
//!
//! The file is believed only as a whole: a cut one, one with a pair too few, or one whose
//! two kernel functions contradict each other (a sign that the static one was called
//! wrongly) is refused, since comparing the rest would look like success.

use peerdma::pcie::PciAddr;
use std::collections::BTreeMap;
use std::fmt;

/// The kernel's `enum pci_p2pdma_map_type`, as far as it answers with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum MapType {
    NotSupported,
    BusAddr,
    ThruHostBridge,
}

impl MapType {
    pub(crate) const ALL: [Self; 3] = [Self::NotSupported, Self::BusAddr, Self::ThruHostBridge];

    /// The kernel's number (Linux 7.3 `include/linux/pci-p2pdma.h`).
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        match number {
            2 => Some(Self::NotSupported),
            3 => Some(Self::BusAddr),
            4 => Some(Self::ThruHostBridge),
            _ => None,
        }
    }

    /// The kernel's word, which `peerdma` uses too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NotSupported => "NOT_SUPPORTED",
            Self::BusAddr => "BUS_ADDR",
            Self::ThruHostBridge => "THRU_HOST_BRIDGE",
        }
    }
}

impl fmt::Display for MapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who reaches for whose memory, in the kernel's order of arguments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pair {
    pub(crate) provider: PciAddr,
    pub(crate) client: PciAddr,
}

impl Pair {
    /// Whether both are the same function: compared, but never counted as a pair.
    pub(crate) fn is_one_function(self) -> bool {
        self.provider == self.client
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.client, self.provider)
    }
}

/// One decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decision {
    pub(crate) map_type: MapType,
    /// Hops, also where refused.
    pub(crate) distance: u32,
}

/// One function as the kernel knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Function {
    /// Type 0 header.
    pub(crate) is_device: bool,
    pub(crate) is_virtual: bool,
}

/// Everything one reading of the module's file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answers {
    /// `uname -r`.
    pub(crate) release: String,
    pub(crate) functions: BTreeMap<PciAddr, Function>,
    pub(crate) decisions: BTreeMap<Pair, Decision>,
}

/// Why a file is not believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// A line of another form.
    Line { number: usize, text: String },
    /// No last line, or not as many functions and pairs as it says.
    Incomplete { functions: usize, pairs: usize, said: Option<usize> },
    /// The kernel's two functions do not agree.
    Contradiction { pair: Pair, distance_many: i64, decision: Decision },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, text } => write!(
                f,
                "line {number} of the kernel's answers reads {text:?}, which vm/oracle/p2p_oracle.c does not write; \
                 change xtask/src/vm/pairs/kernel.rs together with it"
            ),
            Self::Incomplete { functions, pairs, said: None } => write!(
                f,
                "the kernel's answers end after {functions} functions and {pairs} pairs without the line that ends them: \
                 the guest was stopped while reading"
            ),
            Self::Incomplete { functions, pairs, said: Some(said) } => write!(
                f,
                "the kernel's answers hold {functions} functions and {pairs} pairs but say {said} functions: \
                 one was removed meanwhile"
            ),
            Self::Contradiction { pair, distance_many, decision } => write!(
                f,
                "for {pair} the kernel's pci_p2pdma_distance_many says {distance_many} but calc_map_type_and_dist {} at \
                 distance {}: was the kernel built with the flags of vm/oracle/README.md?",
                decision.map_type, decision.distance
            ),
        }
    }
}

impl Answers {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// See [`Unreadable`]; none of its text was believed then.
    pub(crate) fn read(text: &str) -> Result<Self, Unreadable> {
        let mut answers = Self { release: String::new(), functions: BTreeMap::new(), decisions: BTreeMap::new() };
        let mut said = None;
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let read = match words.as_slice() {
                ["kernel", release] => {
                    answers.release = (*release).into();
                    Some(())
                }
                ["function", rest @ ..] => function(rest).map(|(address, function)| {
                    answers.functions.insert(address, function);
                }),
                ["end", count] => value(&[count], "functions").map(|count| said = Some(count)),
                words => match decision(words) {
                    Some((pair, distance_many, decision)) => {
                        check(pair, distance_many, decision)?;
                        answers.decisions.insert(pair, decision);
                        Some(())
                    }
                    None => None,
                },
            };
            if read.is_none() {
                return Err(Unreadable::Line { number: index + 1, text: line.chars().take(120).collect() });
            }
        }
        let (functions, pairs) = (answers.functions.len(), answers.decisions.len());
        if said != Some(functions) || functions.checked_mul(functions) != Some(pairs) || answers.release.is_empty() {
            return Err(Unreadable::Incomplete { functions, pairs, said });
        }
        Ok(answers)
    }

    /// `7.3` of `7.3.4-amd64`.
    pub(crate) fn series(&self) -> &str {
        let second_dot = self.release.match_indices(['.', '-']).nth(1).map(|(at, _)| at);
        &self.release[..second_dot.unwrap_or(self.release.len())]
    }

    /// Addresses of all functions, or of those with a type 0 header.
    pub(crate) fn addresses(&self, devices_only: bool) -> impl Iterator<Item = PciAddr> + '_ {
        let wanted = self.functions.iter().filter(move |(_, function)| !devices_only || function.is_device);
        wanted.map(|(address, _)| *address)
    }
}

fn check(pair: Pair, distance_many: i64, decision: Decision) -> Result<(), Unreadable> {
    let expected = if decision.map_type == MapType::NotSupported { -1 } else { i64::from(decision.distance) };
    if distance_many == expected { Ok(()) } else { Err(Unreadable::Contradiction { pair, distance_many, decision }) }
}

fn function(words: &[&str]) -> Option<(PciAddr, Function)> {
    let (address, rest) = words.split_first()?;
    let header: u8 = value(rest, "header")?;
    let is_virtual: u8 = value(rest, "virtual")?;
    Some((address.parse().ok()?, Function { is_device: header == 0, is_virtual: is_virtual == 1 }))
}

fn decision(words: &[&str]) -> Option<(Pair, i64, Decision)> {
    let [provider, client, rest @ ..] = words else { return None };
    let pair = Pair { provider: provider.parse().ok()?, client: client.parse().ok()? };
    let map_type = MapType::from_number(value(rest, "type")?)?;
    Some((pair, value(rest, "distance_many")?, Decision { map_type, distance: value(rest, "dist")? }))
}

/// The value of `name=VALUE`.
fn value<T: std::str::FromStr>(words: &[&str], name: &str) -> Option<T> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A root port and two functions below it, as a guest answered.
    pub(crate) const THREE: &str = "\
kernel 7.3.4
function 0000:00:06.0 header=1 virtual=0 id=1b36:000c acs=0x148
function 0000:08:00.0 header=0 virtual=0 id=1234:11e8 acs=0x0
function 0000:08:00.1 header=0 virtual=0 id=1234:11e8 acs=0x0
0000:00:06.0 0000:00:06.0 distance_many=-1 dist=0 type=2
0000:00:06.0 0000:08:00.0 distance_many=-1 dist=1 type=2
0000:00:06.0 0000:08:00.1 distance_many=-1 dist=1 type=2
0000:08:00.0 0000:00:06.0 distance_many=-1 dist=1 type=2
0000:08:00.0 0000:08:00.0 distance_many=0 dist=0 type=3
0000:08:00.0 0000:08:00.1 distance_many=-1 dist=2 type=2
0000:08:00.1 0000:00:06.0 distance_many=-1 dist=1 type=2
0000:08:00.1 0000:08:00.0 distance_many=-1 dist=2 type=2
0000:08:00.1 0000:08:00.1 distance_many=0 dist=0 type=3
end functions=3
";

    #[test]
    fn a_whole_file_gives_every_pair() {
        let answers = Answers::read(THREE).unwrap();
        assert_eq!((answers.series(), answers.functions.len(), answers.decisions.len()), ("7.3", 3, 9));
        assert_eq!(answers.addresses(true).count(), 2);
        let pair = Pair { provider: "0000:08:00.0".parse().unwrap(), client: "0000:08:00.1".parse().unwrap() };
        assert_eq!(answers.decisions[&pair], Decision { map_type: MapType::NotSupported, distance: 2 });
    }

    #[test]
    fn a_file_cut_anywhere_is_not_believed() {
        for len in 0..THREE.len() - 1 {
            assert!(Answers::read(&THREE[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_file_that_lacks_a_pair_is_not_believed() {
        let lacking = THREE.replace("0000:08:00.0 0000:08:00.1 distance_many=-1 dist=2 type=2\n", "");
        let expected = Unreadable::Incomplete { functions: 3, pairs: 8, said: Some(3) };
        assert_eq!(Answers::read(&lacking), Err(expected));
    }

    #[test]
    fn kernel_functions_that_contradict_each_other_are_not_believed() {
        for (was, becomes) in [("many=-1 dist=2 type=2", "many=-1 dist=2 type=4"), ("many=0 dist=0", "many=0 dist=7")] {
            assert!(matches!(Answers::read(&THREE.replace(was, becomes)), Err(Unreadable::Contradiction { .. })));
        }
    }

    #[test]
    fn map_types_that_the_kernel_never_answers_with_are_refused() {
        for number in [0, 1, 5, -1] {
            let line = format!("dist=0 type={number}");
            assert!(matches!(Answers::read(&THREE.replace("dist=0 type=3", &line)), Err(Unreadable::Line { .. })));
        }
    }

    #[test]
    fn the_series_is_told_from_every_way_of_writing_a_release() {
        for (release, series) in [("7.3.4", "7.3"), ("6.19-rc1", "6.19"), ("7.4", "7.4"), ("7.2.13+deb-amd64", "7.2")] {
            let text = THREE.replace("kernel 7.3.4", &format!("kernel {release}"));
            assert_eq!(Answers::read(&text).unwrap().series(), series);
        }
    }
}
