//! Printing that does not mind when nobody listens any more.
//!
//! `println!` panics when the reader of a pipe has gone (`cargo xtask … | head`).

/// Writes a line to standard output.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // With the reader gone there is nobody to tell.
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}
