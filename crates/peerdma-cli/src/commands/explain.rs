//! `peerdma explain`: the tables that the library decides by.

mod states;

use crate::args::{ExplainArguments, SubjectArgument};
use crate::exit::{Exit, Failure};

pub(crate) fn run(arguments: &ExplainArguments) -> Result<Exit, Failure> {
    match arguments.subject {
        SubjectArgument::States => states::run(&arguments.output),
    }
}
