//! The binary: parse, run, print one error, leave with its exit code. Everything else is in the library.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use greta_infer::cli::{args::Cli, error, printable, run};

fn main() -> ExitCode {
    let process_start = Instant::now();
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli.command, process_start),
        Err(error) if error.use_stderr() && !is_help(&error) => Err(error::usage_line(&error)),
        // Help and version; a reader that has gone is no error.
        Err(help) => {
            let _closed_is_fine = help.print();
            return ExitCode::from(if help.use_stderr() { 2 } else { 0 });
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                // It may quote what a file says. If standard error is closed as well, there is nobody left to tell.
                let line = printable(&error.to_string());
                let _nobody = writeln!(std::io::stderr(), "error: {line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn is_help(error: &clap::Error) -> bool {
    use clap::error::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}
