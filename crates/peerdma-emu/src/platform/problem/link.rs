//! Links, speeds, widths and port numbers.

/// What is wrong with a link.
///
/// Fields named `line` are where the other party to a conflict stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkProblem {
    /// Not a speed of a link.
    #[error("{speed:?} is not the speed of a link; it is 2.5GT/s, 5GT/s, 8GT/s, 16GT/s, 32GT/s or 64GT/s")]
    LinkSpeed {
        /// The text.
        speed: String,
    },
    /// Not a width of a link.
    #[error("link.width = {found} is not the width of a link; it is 1, 2, 4, 8, 12, 16 or 32 lanes")]
    LinkWidth {
        /// The number found.
        found: i128,
    },
    /// A link where there is none.
    #[error("{name} sits on the root bus of {host_bridge} and has no link; remove the key")]
    NoLink {
        /// The function.
        name: String,
        /// The host bridge.
        host_bridge: String,
    },
    /// Two ends of a link that say different things.
    #[error("this link is {link}, but its other end, {other} (line {line}), says {other_link}")]
    LinkEndsDiffer {
        /// This end.
        link: String,
        /// Who is at the other end.
        other: String,
        /// What stands there.
        other_link: String,
        /// Its line.
        line: usize,
    },
    /// Two ports of one parent with one port number.
    #[error("port number {number} is that of {other} (line {line}) too; ports of one parent have numbers of their own")]
    PortNumberTaken {
        /// The number.
        number: u8,
        /// The other port.
        other: String,
        /// Line of its name.
        line: usize,
    },
}
