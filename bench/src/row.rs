//! What a row of the table is made of.
//!
//! A [`Row`] has sides: ours, the peers and the raw limit (called `L`). All do the same
//! work, a turn at a time, in one process, in turns within every round ([`crate::round`]),
//! and each under callgrind in a process of its own. Gates compare what was found.
//!
//! A side's [`Turn`] is a closure over whatever it has built, so that nothing built counts.

/// Does so many turns of a side's work.
pub type Turn = Box<dyn FnMut(u64)>;

/// The same for one of two threads.
pub type SharedTurn = Box<dyn FnMut(u64) + Send>;

/// One row.
pub struct Row {
    /// As in the table of the README: `PT3`.
    pub id: &'static str,
    /// What is done, in a few words.
    pub what: &'static str,
    /// What one count or time is given for: `page`, `pair`.
    pub unit: &'static str,
    /// Who does it.
    pub sides: Vec<Side>,
    /// Pairs of threads that do it together.
    pub pairs: Vec<Pair>,
    /// What has to hold.
    pub gates: Vec<Gate>,
    /// Figures that are neither times nor counts nor bytes of the heap.
    pub figures: fn() -> Vec<Figure>,
}

impl Row {
    /// A row without sides.
    pub fn new(id: &'static str, what: &'static str, unit: &'static str) -> Self {
        Self { id, what, unit, sides: Vec::new(), pairs: Vec::new(), gates: Vec::new(), figures: Vec::new }
    }

    /// The side of that name.
    pub fn side(&self, name: &str) -> Option<&Side> {
        self.sides.iter().find(|side| side.name == name)
    }
}

/// One who does the work of a row.
#[derive(Clone, Copy)]
pub struct Side {
    /// Unique within the row; `L` for the raw limit.
    pub name: &'static str,
    /// Builds what is needed and returns the work.
    pub start: fn() -> Turn,
    /// Units that one turn does.
    pub units: u64,
    /// Turns of a timed round; 0: it is not timed.
    pub timed: u64,
    /// Turns under callgrind (and three times as many); 0: it is not counted.
    pub counted: u64,
    /// Instructions a unit that were measured for this side when the targets were set.
    pub reference: Option<f64>,
}

impl Side {
    /// A side that is only built, which is enough for the bytes it holds.
    pub const fn new(name: &'static str, start: fn() -> Turn) -> Self {
        Self { name, start, units: 1, timed: 0, counted: 0, reference: None }
    }

    /// Units that one turn does, where that is not one.
    #[must_use]
    pub const fn units(mut self, units: u64) -> Self {
        self.units = units;
        self
    }

    /// Turns of a timed round, a few milliseconds of work, and turns under callgrind.
    #[must_use]
    pub const fn turns(mut self, timed: u64, counted: u64) -> Self {
        (self.timed, self.counted) = (timed, counted);
        self
    }

    /// Instructions a unit that this side takes if the bench is right.
    #[must_use]
    pub const fn reference(mut self, instructions: f64) -> Self {
        self.reference = Some(instructions);
        self
    }
}

/// Two threads on one object: how much more they do together than one of them alone.
#[derive(Clone, Copy)]
pub struct Pair {
    /// Unique among the pairs of the row.
    pub name: &'static str,
    /// Builds the object and the work of both threads.
    pub start: fn() -> [SharedTurn; 2],
    /// Turns of a timed round, for each thread.
    pub timed: u64,
    /// What is wanted of the scaling: at least this, or with [`Pair::stalls`] at most.
    pub wanted: f64,
    /// A peer that is expected not to scale.
    pub stalls: bool,
}

/// What has to hold. Instruction counts and bytes always decide; times only on request.
#[derive(Clone, Copy)]
pub enum Gate {
    /// Instructions a unit of a side.
    Instructions {
        /// Whose.
        of: &'static str,
        /// At most.
        most: f64,
    },
    /// Times a unit, in proportion.
    Ratio {
        /// Whose.
        of: &'static str,
        /// In proportion to whose.
        to: &'static str,
        /// At most.
        most: f64,
    },
    /// Instructions a unit of a side that misses its target, and must not get worse.
    Short {
        /// Whose.
        of: &'static str,
        /// The target.
        most: f64,
        /// Above this it fails.
        held: f64,
    },
    /// Instructions a unit, in proportion, and neither may be much the dearer.
    Equal {
        /// Whose.
        of: &'static str,
        /// In proportion to whose.
        to: &'static str,
        /// At most this far from one.
        within: f64,
    },
    /// Bytes on the heap that a side holds once built, for each unit.
    Held {
        /// Whose.
        of: &'static str,
        /// Bytes a unit at most.
        most: f64,
        /// Bytes once, whatever the units.
        fixed: u64,
    },
    /// Bytes held, in proportion.
    HeldRatio {
        /// Whose.
        of: &'static str,
        /// In proportion to whose.
        to: &'static str,
        /// At most.
        most: f64,
    },
    /// A side's turns take no memory from the heap.
    NoAllocation {
        /// Whose.
        of: &'static str,
    },
}

/// A figure with what it should be.
pub struct Figure {
    /// What was found.
    pub what: String,
    /// Its value.
    pub value: f64,
    /// Its unit: `%`, `bytes`.
    pub unit: &'static str,
    /// What is wanted.
    pub bound: Bound,
    /// Whether the bench fails without.
    pub gates: bool,
}

/// A bound of a figure.
#[derive(Clone, Copy)]
pub enum Bound {
    /// No less than this.
    Least(f64),
    /// No more than this.
    Most(f64),
}
