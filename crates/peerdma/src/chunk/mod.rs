//! Memory as ranges with an owner.
