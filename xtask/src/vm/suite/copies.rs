//! `peerdma copy` in a guest: real bytes from one device to another's memory.

use super::Test;

pub(super) fn tests() -> Vec<Test> {
    Vec::new()
}
