//! What `/proc/PID/fdinfo` says of a dma-buf. No other file has a line that names an exporter.

use peerdma::addr::Bytes;

/// Facts of one descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FdInfo {
    pub(super) size: Bytes,
    /// How many descriptors and importers hold it.
    pub(super) count: u64,
    pub(super) exporter: String,
    pub(super) name: Option<String>,
    pub(super) inode: Option<u64>,
}

/// Reads the text; `None` if it is no dma-buf's.
///
/// The name is its user's to choose, and comes last: no line behind it is believed.
pub(super) fn parse(text: &str) -> Option<FdInfo> {
    let (mut size, mut count, mut exporter, mut name, mut inode) = (None, None, None, None, None);
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "ino" => inode = value.parse().ok(),
            "size" => size = value.parse().ok(),
            "count" => count = value.parse().ok(),
            "exp_name" => exporter = Some(value.to_string()),
            "name" => {
                name = Some(value.to_string());
                break;
            }
            _ => {}
        }
    }
    Some(FdInfo { size: Bytes::new(size?), count: count?, exporter: exporter?, name, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 7.3 writes it.
    const TEXT: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t7\nsize:\t4096\ncount:\t2\nexp_name:\tudmabuf\n";

    #[test]
    fn a_dma_buf_is_what_has_a_size_a_count_and_an_exporter() {
        let info = parse(TEXT).unwrap();
        assert_eq!((info.size, info.count, info.exporter.as_str()), (Bytes::new(4096), 2, "udmabuf"));
        assert_eq!((info.name, info.inode), (None, Some(7)));
        assert_eq!(parse(&format!("{TEXT}name:\tring\n")).unwrap().name.as_deref(), Some("ring"));
        for missing in ["size", "count", "exp_name"] {
            let cut: String =
                TEXT.lines().filter(|line| !line.starts_with(missing)).map(|l| format!("{l}\n")).collect();
            assert_eq!(parse(&cut), None, "{missing}");
        }
        assert_eq!(parse("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t7\neventfd-count: 0\n"), None);
    }

    #[test]
    fn a_name_that_looks_like_a_line_is_a_name() {
        let info = parse(&format!("{TEXT}name:\tx\nsize:\t1\nexp_name:\tother\n")).unwrap();
        assert_eq!((info.size, info.exporter.as_str()), (Bytes::new(4096), "udmabuf"));
    }
}
