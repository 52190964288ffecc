//! The command line: args (what was typed) → config (what it means) → one file a subcommand.

pub mod args;
pub mod config;
pub mod error;
pub mod progress;
pub mod source;
