//! Linux's list of host bridges, copied as facts from its sources of 6.1, 6.12, 7.2 and 7.3.

pub(crate) const UNLISTED: (u16, u16) = (0x10de, 0x2330);
const SAME_ONLY: [u16; 4] = [0x3c00, 0x3c01, 0x2f00, 0x2f01];
const FROM_6_1: [u16; 6] = [0x2030, 0x2031, 0x2032, 0x2033, 0x2020, 0x09a2];
const FROM_7_2: [u16; 10] = [0x0b25, 0x0cfe, 0x11fb, 0x1212, 0x1216, 0x4940, 0x4942, 0x4944, 0x4946, 0x4948];
const FROM_7_3: [u16; 4] = [0x2f95, 0x2f96, 0x2f97, 0x2f98];
/// One of every kind, for functions whose ID is not told.
pub(crate) const ANY_ID: [(u16, u16); 6] =
    [UNLISTED, (0x8086, 0x3c00), (0x8086, 0x2030), (0x8086, 0x0b25), (0x1ae0, 0x0042), (0x10de, 0x2f95)];

pub(crate) fn listed(series: (u32, u32), (vendor, device): (u16, u16), same: bool) -> bool {
    match vendor {
        0x8086 if SAME_ONLY.contains(&device) => same,
        0x8086 => FROM_6_1.contains(&device) || series >= (7, 2) && FROM_7_2.contains(&device),
        0x1ae0 => series >= (7, 2),
        0x10de => series >= (7, 3) && FROM_7_3.contains(&device),
        _ => false,
    }
}

/// The series whose lists may hold; none below the oldest known.
pub(crate) fn series(kernel: Option<&str>) -> Vec<(u32, u32)> {
    match kernel {
        None | Some("7.3" | "8.0") => vec![(7, 3)],
        Some("5.10") => vec![],
        Some("6.1") => vec![(6, 1)],
        Some("6.5.3") => vec![(6, 1), (6, 12)],
        Some("6.12.107") => vec![(6, 12)],
        Some("6.18") => vec![(6, 12), (7, 2)],
        Some("7.2.13") => vec![(7, 2)],
        Some(other) => panic!("no series for {other}"),
    }
}
