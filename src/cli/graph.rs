//! `graph`: print the graph of one decode step.

use super::args::GraphArgs;
use super::error::CliError;

pub fn run(_args: &GraphArgs) -> Result<(), CliError> {
    Err(CliError::Runtime("graph is not built yet".into()))
}
