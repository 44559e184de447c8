//! `peerdma vfio`: functions and their drivers, handed to VFIO and back, and reset.

mod change;
mod list;
mod reset;

use crate::args::{VfioArguments, VfioCommand};
use crate::exit::{Exit, Failure};
use peerdma_linux::vfio::binding::Direction;

pub(crate) fn run(arguments: &VfioArguments) -> Result<Exit, Failure> {
    match &arguments.command {
        VfioCommand::List(arguments) => list::run(arguments),
        VfioCommand::Bind(arguments) => change::run(arguments, change::Action::Driver(Direction::Bind)),
        VfioCommand::Unbind(arguments) => change::run(arguments, change::Action::Driver(Direction::Unbind)),
        VfioCommand::Reset(arguments) => change::run(arguments, change::Action::Reset),
    }
}
