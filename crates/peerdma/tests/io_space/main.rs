//! Address spaces: the contract suite on the recording space, on our own spaces, on a paged
//! model that shares none of their code, and on spaces that are broken on purpose.

mod broken;
mod broken_soft;
mod contract;
mod facts;
mod paged;
mod plain;
mod random;
mod soft;

use peerdma::addr::{AddrRange, Bytes, Iova};

/// `len` bytes of IOVA from `start`.
fn iova(start: u64, len: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(start), Bytes::new(len)).expect("ranges of tests are not empty and do not wrap")
}
