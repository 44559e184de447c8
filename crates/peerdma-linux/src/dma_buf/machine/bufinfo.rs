//! The kernel's own list (Linux 7.2 `dma_buf_debug_show`).

use super::super::buf::DmaBufId;
use super::Listed;
use peerdma::addr::Bytes;

/// dma-bufs, and how many lines were not understood.
///
/// A name is its user's to choose: it comes last in its line, so that it can only hide what it says itself; one with a line end in
/// it makes lines that are not understood, or that are a device's or another buffer's by their form.
pub(super) fn parse(text: &str) -> (Vec<Listed>, u32) {
    let (mut all, mut strange): (Vec<Listed>, u32) = (Vec::new(), 0);
    let mut devices = false;
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if line == "Dma-buf Objects:" || line.starts_with("size ") || line.starts_with("Total ") {
            devices = false;
        } else if line == "\tAttached Devices:" {
            devices = true;
        } else if let Some(found) = object(line) {
            devices = false;
            all.push(found);
        } else if let Some(device) = line.strip_prefix('\t') {
            // Lines of fences come before those of devices.
            if let (true, Some(Listed { importers: Some(importers), .. })) = (devices, all.last_mut()) {
                importers.push(device.trim().to_string());
            }
        } else {
            strange += 1;
        }
    }
    (all, strange)
}

fn object(line: &str) -> Option<Listed> {
    let mut fields = line.splitn(7, '\t');
    let size = fields.next()?.parse().ok()?;
    let (_flags, _mode, _count) = (fields.next()?, fields.next()?, fields.next()?);
    let exporter = fields.next()?.to_string();
    let inode = fields.next()?.trim().parse().ok()?;
    let name = fields.next()?.trim();
    Some(Listed {
        id: DmaBufId(inode),
        size: Bytes::new(size),
        exporter,
        name: (name != "<none>").then(|| name.to_string()),
        importers: Some(Vec::new()),
        holders: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_are_no_devices_and_what_is_no_line_is_counted() {
        let text = "00004096\t00000002\t00080007\t00000003\tudmabuf\t00000007\tring\n\
                    \tkernel fence:amdgpu gfx seq 12 signalled\n\tAttached Devices:\n\t0000:05:00.0\n\
                    Total 1 devices attached\nrubbish\n";
        let (all, strange) = parse(text);
        assert_eq!((all[0].importers.as_deref(), strange), (Some(&["0000:05:00.0".to_string()][..]), 1));
        assert_eq!(parse(""), (Vec::new(), 0));
    }
}
