//! The command line: args (what was typed) → config (what it means) → one file a subcommand.
//!
//! This is the only room that prints or reads the environment, and, with the loader, the only one that touches files.

pub mod args;
mod bench;
mod chat;
pub mod config;
mod convert;
mod devices;
pub mod error;
mod generate;
mod graph;
mod info;
mod interrupt;
mod load;
mod output;
mod perplexity;
mod profile;
pub mod progress;
pub mod source;
mod svg;
mod text;
mod threads;
mod tokenize;
mod whole_file;

use std::time::Instant;

use args::Command;
use error::CliError;
pub use output::printable;

/// Runs a command; `process_start` is what the time to the first token is counted from.
pub fn run(command: Command, process_start: Instant) -> Result<(), CliError> {
    interrupt::catch_file_limit()?;
    match command {
        Command::Generate(args) => generate::run(&args, process_start),
        Command::Chat(args) => chat::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Bench(args) => bench::run(&args, process_start),
        Command::Info(args) => info::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Devices(args) => devices::run(&args),
    }
}
