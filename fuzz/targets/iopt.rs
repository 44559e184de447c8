//! I/O page tables: operations against an oracle, and walks through tables that a stranger wrote.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::page_tables;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    if let Some((first, rest)) = data.split_first() {
        match first % 2 {
            0 => _ = page_tables::operate(rest),
            _ => _ = page_tables::walk(rest),
        }
    }
});
