//! A toy model that can be talked with.

use std::path::{Path, PathBuf};

use greta_infer::chat::{Prompter, Source};
use greta_infer::loader::{Checkpoint, Metadata};
use greta_infer::tokenizer::Tokenizer;

use crate::support::oracle::Format;
use crate::support::toy::Recipe;

/// Short turns, so that small contexts hold some: `<|im_start|>u` text `<|im_end|>`.
pub const TEMPLATE: &str = "\
{%- for m in messages %}{{ '<|im_start|>' + m.role[0] + m.content + '<|im_end|>' }}{% endfor %}\
{%- if add_generation_prompt %}{{ '<|im_start|>a' }}{% endif %}";

/// Writes the toy with a template into a folder.
pub fn write(folder: &Path, template: &str) -> PathBuf {
    let path = folder.join("talks.gguf");
    let toy = Recipe::of(Format::by_name("Q8_0")).build();
    toy.gguf()
        .meta_str("tokenizer.chat_template", template)
        .meta_str(
            "tokenizer.chat_template.loud",
            "{{ messages[-1].content.upper() }}",
        )
        .meta_strings("tokenizer.chat_templates", &["loud".to_string()])
        .write(&path);
    path
}

/// The metadata and tokenizer of a file.
pub fn open(path: &Path) -> (Metadata, Tokenizer) {
    let checkpoint = Checkpoint::open(path).expect("the toy");
    let metadata = checkpoint.metadata().clone();
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("its tokenizer");
    (metadata, tokenizer)
}

/// A prompter with a template of its own.
pub fn prompter<'t>(metadata: &Metadata, tokenizer: &'t Tokenizer, template: &str) -> Prompter<'t> {
    let source = Source {
        name: "test".to_string(),
        text: template.to_string(),
    };
    Prompter::new(metadata, tokenizer, &source, None, now()).expect("the template")
}

/// Some day.
pub fn now() -> jiff::ZonedDateTime {
    let day = jiff::civil::date(2026, 11, 7).at(9, 5, 3, 0);
    day.in_tz("UTC").expect("a time zone")
}
