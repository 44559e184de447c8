//! `peerdma explain`: rules that are data, printed as they are.

mod lifetimes;
mod states;

use crate::args::{ExplainArguments, Topic};
use crate::exit::{Exit, Failure};

pub(crate) fn run(arguments: &ExplainArguments) -> Result<Exit, Failure> {
    match arguments.topic {
        Topic::Lifetimes => lifetimes::explain(&arguments.output),
        Topic::States => states::explain(&arguments.output),
    }
}
