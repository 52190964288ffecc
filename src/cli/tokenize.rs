//! `tokenize`: show the tokens of a text.

use serde::Serialize;

use super::args::{Format, TokenizeArgs};
use super::config::Config;
use super::error::CliError;
use super::progress::Progress;
use super::{load, output, text};
use crate::tokenizer::Encode;

#[derive(Serialize)]
struct Json {
    tokens: Vec<u32>,
    pieces: Vec<String>,
}

pub fn run(args: &TokenizeArgs) -> Result<(), CliError> {
    let config = Config::load(&args.model).map_err(CliError::input)?;
    let text = text::prompt(args.prompt.as_deref(), args.prompt_file.as_deref())?;
    let tokenizer = load::tokenizer(&config, &Progress::new(args.output.quiet))?;
    let options = Encode {
        special: config.special && !args.no_special,
        bos: !args.no_bos,
    };
    text::note_lost(&tokenizer, "the text", &text, args.output.quiet);
    let tokens = tokenizer.encode(&text, options).map_err(CliError::input)?;
    let pieces: Vec<String> = tokens
        .iter()
        .map(|&token| tokenizer.piece_str(token).to_string())
        .collect();
    match args.output.format {
        Format::Json => output::json(&Json { tokens, pieces }),
        Format::Text => {
            let lines = tokens.iter().zip(&pieces);
            let lines: String = lines
                .map(|(token, piece)| format!("{token}\t{piece:?}\n"))
                .collect();
            output::text(&lines)
        }
    }
}
