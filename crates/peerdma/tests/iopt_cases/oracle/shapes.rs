//! Formats with the options that are tried by chance.

use super::{Layout, Shape};

/// A format of 4K pages as it is used most.
fn usual(layout: Layout) -> Shape {
    let arm = layout.is_arm();
    Shape {
        layout,
        granule: 12,
        input_bits: if layout == Layout::Amd { 64 } else { 48 },
        output_bits: if arm { 48 } else { 52 },
        levels: if layout == Layout::Amd { 3 } else { 4 },
        sign_extend: layout == Layout::X86,
        upper: false,
        sme_bit: None,
        force_snoop: false,
        force_writeable: false,
        incoherent_walk: false,
        hardware_dirty: false,
        non_secure: false,
        forced_write_back: false,
        replaces_tables: false,
        sizes: if layout == Layout::Amd { 0 } else { 0x4020_1000 },
    }
}

/// A name to be found again by, and a shape.
pub(crate) fn shapes() -> Vec<(&'static str, Shape)> {
    let (vtd, x86, amd) = (usual(Layout::Vtd), usual(Layout::X86), usual(Layout::Amd));
    let (arm1, arm2) = (usual(Layout::ArmStage1), usual(Layout::ArmStage2));
    vec![
        ("VT-d", vtd.clone()),
        ("VT-d of 3 levels", Shape { input_bits: 39, levels: 3, output_bits: 39, force_snoop: true, ..vtd.clone() }),
        ("VT-d of 5 levels", Shape { input_bits: 57, levels: 5, incoherent_walk: true, ..vtd.clone() }),
        ("VT-d of pages only", Shape { sizes: 0x1000, force_writeable: true, ..vtd }),
        ("x86", x86.clone()),
        ("x86 of 5 levels", Shape { input_bits: 57, levels: 5, sme_bit: Some(47), output_bits: 46, ..x86.clone() }),
        ("x86 without an upper half", Shape { input_bits: 47, sign_extend: false, sizes: 0x20_1000, ..x86 }),
        ("AMD", amd.clone()),
        ("AMD of 48 bits", Shape { input_bits: 48, sme_bit: Some(47), output_bits: 46, ..amd.clone() }),
        ("AMD of three sizes", Shape { sizes: 0x4020_1000, input_bits: 57, ..amd }),
        ("Arm stage 1", arm1.clone()),
        ("Arm stage 1 with marks", Shape { hardware_dirty: true, non_secure: true, ..arm1.clone() }),
        ("Arm TTBR1", Shape { upper: true, input_bits: 39, levels: 3, incoherent_walk: true, ..arm1.clone() }),
        ("Arm 16K", Shape { granule: 14, input_bits: 47, levels: 3, sizes: 0x200_4000, ..arm1.clone() }),
        ("Arm stage 2", arm2.clone()),
        (
            "Arm stage 2, concatenated",
            Shape { input_bits: 42, output_bits: 42, levels: 3, forced_write_back: true, ..arm2.clone() },
        ),
        (
            "Arm stage 2 of 64K and 52 bits",
            Shape { granule: 16, input_bits: 52, output_bits: 52, levels: 3, sizes: 0x400_2001_0000, ..arm2 },
        ),
    ]
}
