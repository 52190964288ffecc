//! The prompter of a configuration: which template, for which model.

use std::path::Path;

use jiff::ZonedDateTime;

use super::super::config::Config;
use super::super::error::CliError;
use super::super::text;
use crate::chat::{Prompter, Source, built_in_names};
use crate::loader::Metadata;
use crate::tokenizer::Tokenizer;

/// Reads the template that the configuration chooses.
pub fn prompter<'t>(
    config: &Config,
    metadata: &Metadata,
    tokenizer: &'t Tokenizer,
) -> Result<Prompter<'t>, CliError> {
    let source = source(config, metadata)?;
    let now = ZonedDateTime::now();
    Prompter::new(metadata, tokenizer, &source, config.thinking, now).map_err(CliError::input)
}

fn source(config: &Config, metadata: &Metadata) -> Result<Source, CliError> {
    let choice = config.template.as_ref();
    let name = choice.map(|choice| choice.name.as_str());
    let found = Source::find(metadata, name).map_err(CliError::input)?;
    match (found, choice) {
        (Some(source), _) => Ok(source),
        (None, Some(choice)) if is_file(&choice.file) => Ok(Source {
            name: choice.file.display().to_string(),
            text: text::read(&choice.file)?,
        }),
        (None, choice) => {
            let name = choice.map_or("", |choice| choice.name.as_str());
            let own = own_names(metadata)?;
            let known = built_in_names();
            let model = metadata.file().display();
            let text = format!(
                "--template {name}: no file, none of the model's ({model}: {own}), and none of the built-in {known}"
            );
            Err(CliError::Input(text))
        }
    }
}

/// Also what is not there but was meant as a file, so that reading it says what is wrong.
fn is_file(path: &Path) -> bool {
    path.exists() || path.extension().is_some() || path.components().count() > 1
}

/// The names that `tokenizer.chat_templates` lists, for people.
fn own_names(metadata: &Metadata) -> Result<String, CliError> {
    let names = metadata.strings("tokenizer.chat_templates");
    let names = names.map_err(CliError::input)?;
    let names: Vec<String> = match &names {
        None => Vec::new(),
        Some(names) => names.iter().map(str::to_string).collect(),
    };
    Ok(match names.is_empty() {
        true => "it names none".to_string(),
        false => names.join(", "),
    })
}
