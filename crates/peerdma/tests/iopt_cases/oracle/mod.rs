//! What page tables should say, from code that knows nothing of the crate's.
//!
//! [`decoder`] reads tables, [`model`] knows which leaves there should be, [`subject`] is
//! the crate behind numbers, and [`sequence`] runs operations on both and holds them
//! against each other. Property tests draw the operations, and the fuzz target `iopt`, which
//! includes these files, mutates them.

pub(crate) mod decoder;
pub(crate) mod model;
pub(crate) mod sequence;
pub(crate) mod shapes;
pub(crate) mod subject;

pub(crate) use decoder::{Kind, Layout, Leaf, Shape};

/// What a mapping asks for, in the words that Linux has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) cache: bool,
    pub(crate) mmio: bool,
    pub(crate) noexec: bool,
    pub(crate) privileged: bool,
}

/// What a leaf says besides where it leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Says {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    pub(crate) privileged: bool,
    pub(crate) kind: Kind,
}

impl Leaf {
    pub(crate) fn says(&self) -> Says {
        let Self { read, write, execute, privileged, kind, .. } = *self;
        Says { read, write, execute, privileged, kind }
    }
}

/// What a leaf says that was asked for with these rights, as far as its format can.
pub(crate) fn told(shape: &Shape, rights: Rights) -> Says {
    let arm = shape.layout.is_arm();
    let kind = match (arm, rights.mmio, rights.cache) {
        (false, ..) => Kind::Untold,
        (true, true, _) => Kind::Device,
        (true, false, true) => Kind::Cached,
        (true, false, false) => Kind::NotCached,
    };
    Says {
        read: rights.read || !shape.layout.has_write_only(),
        write: rights.write,
        execute: !(arm && rights.noexec),
        privileged: shape.layout == Layout::ArmStage1 && rights.privileged,
        kind,
    }
}
