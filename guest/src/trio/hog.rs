//! A process that attaches, maps and stores, and never lets go.

use super::LONG;
use super::child::say;
use super::owner::HOGS;
use crate::checks::Stop;
use peerdma::access::Prot;
use peerdma::buffer::wire::{Declare, Heard};
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma_linux::share::Importer;
use std::path::Path;
use std::time::Instant;

pub(super) fn run(socket: &Path) -> Result<(), Stop> {
    let mut declare = Declare::of_process("hog", Prot::ReadWrite);
    (declare.takes, declare.enforcement) = (Lifetime::Revocable, Enforcement::Cooperative);
    let mut importer = Importer::attach(socket, declare, Instant::now() + LONG)?;
    let mapped = importer.map(Instant::now() + LONG)?;
    say("holds");
    loop {
        let heard = importer.next(Instant::now() + LONG)?;
        if let Some(Heard::LetGo { .. }) = heard {
            // It has heard, and stores all the same.
            mapped.write(HOGS, &[0xff; 8])?;
            say("stays");
        }
    }
}
