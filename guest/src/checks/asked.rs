//! The command line of `peerdma-guest checks`.

use peerdma::pcie::PciAddr;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Asked {
    pub(super) group: String,
    /// The engine.
    pub(super) edu: Option<PciAddr>,
    /// The function whose memory the engine is to reach: an `ivshmem-plain`.
    pub(super) target: Option<PciAddr>,
    /// Another function like the target, at another root port.
    pub(super) far: Option<PciAddr>,
    /// Another engine, a register of which is a doorbell.
    pub(super) bell: Option<PciAddr>,
    /// A controller whose BAR 0 holds an MSI-X table, bound to vfio-pci.
    pub(super) nvme: Option<PciAddr>,
    /// A graphics device whose driver imports dma-bufs.
    pub(super) importer: Option<PciAddr>,
    /// A controller that the kernel's own driver has, which shares its memory as p2pmem.
    pub(super) shared: Option<PciAddr>,
    /// Set by the supervisor for its worker: the first claim to try.
    pub(super) worker_from: Option<usize>,
}

impl Asked {
    /// Takes the words after `checks`.
    pub(super) fn parse(words: &[String]) -> Result<Self, String> {
        let mut asked = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{word} takes a value"));
            match word.as_str() {
                "--edu" => asked.edu = Some(address(value()?)?),
                "--target" => asked.target = Some(address(value()?)?),
                "--far" => asked.far = Some(address(value()?)?),
                "--bell" => asked.bell = Some(address(value()?)?),
                "--nvme" => asked.nvme = Some(address(value()?)?),
                "--importer" => asked.importer = Some(address(value()?)?),
                "--shared" => asked.shared = Some(address(value()?)?),
                "--worker" => {
                    let from = value()?;
                    asked.worker_from =
                        Some(from.parse().map_err(|_| format!("--worker takes a number, not `{from}`"))?);
                }
                option if option.starts_with("--") => return Err(format!("no option is called `{option}`")),
                group if asked.group.is_empty() => asked.group = group.into(),
                extra => return Err(format!("one group at a time: `{extra}` comes after `{}`", asked.group)),
            }
        }
        if asked.group.is_empty() {
            return Err("name a group".into());
        }
        Ok(asked)
    }
}

/// PCI addresses may leave out their domain, as everywhere in peerdma.
pub(crate) fn address(word: &str) -> Result<PciAddr, String> {
    let whole = if word.matches(':').count() == 1 { format!("0000:{word}") } else { word.into() };
    whole.parse().map_err(|_| format!("`{word}` is no PCI address such as 0000:05:00.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, String> {
        Asked::parse(&line.split_whitespace().map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn a_group_and_its_functions_are_taken_in_any_order() {
        let asked = parsed("--edu 05:00.0 type1 --target 0000:06:00.0").unwrap();
        assert_eq!(asked.group, "type1");
        assert_eq!(asked.edu.unwrap().to_string(), "0000:05:00.0");
        assert_eq!(asked.target.unwrap().to_string(), "0000:06:00.0");
        assert_eq!((asked.nvme, asked.worker_from), (None, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, word) in [
            ("", "group"),
            ("export --edu", "--edu"),
            ("export --edu five", "`five`"),
            ("export type1", "`type1`"),
            ("export --fast", "`--fast`"),
            ("export --worker x", "`x`"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
