//! `generate`: continue a prompt and stream the text.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{Format, GenerateArgs, OnFull};
use super::chat::template;
use super::config::Config;
use super::error::CliError;
use super::load::{self, Loaded, Wanted};
use super::output::{self, figure, per_second};
use super::progress::Progress;
use super::{interrupt, text};
use crate::chat::{Conversation, Prompter, drop_pieces};
use crate::generate::{Finish, Full, GenerateError, Generation, Generator, Position, Settings};
use crate::model::Logits;
use crate::runtime::Session;
use crate::tokenizer::{Encode, Tokenizer};

/// The object of `--format json`.
#[derive(Serialize)]
struct Json<'a> {
    prompt_tokens: &'a [u32],
    tokens: &'a [u32],
    text: &'a str,
    finish_reason: &'static str,
    /// How often the context was full and the text went on.
    slides: usize,
    logprobs: &'a [Position],
    timings: Timings,
}

/// How long what took; all times in milliseconds.
#[derive(Serialize)]
struct Timings {
    load_ms: f64,
    prompt_ms: f64,
    prompt_tokens_per_s: Option<f64>,
    first_token_ms: Option<f64>,
    decode_ms: f64,
    decode_steps: usize,
    decode_tokens_per_s: Option<f64>,
    decode_ms_per_token: Option<f64>,
    decode_gb_per_s: Option<f64>,
    total_ms: f64,
    replays: u64,
    logits_hash: Option<String>,
    threads: usize,
    device: String,
}

pub fn run(args: &GenerateArgs, process_start: Instant) -> Result<(), CliError> {
    let config = configured(args)?;
    let prompt = text::prompt(args.prompt.as_deref(), args.prompt_file.as_deref())?;
    let progress = Progress::new(args.output.quiet);
    let wanted = Wanted {
        context_at_least: 0,
        logits: Logits::Last,
        progress: &progress,
    };
    let mut loaded = load::load(&config, &wanted)?;
    let mut settings = Settings {
        max_tokens: config.max_tokens,
        stop: config.stop.clone(),
        ignore_eos: config.ignore_eos,
        logprobs: args.logprobs,
        ends: Vec::new(),
    };
    let Prompt { mut tokens, fixed } = encoded(args, &config, &loaded, &prompt, &mut settings)?;
    let context = loaded.session.context() as usize;
    let slides = (config.on_full == OnFull::Slide).then(|| config.keep.unwrap_or(fixed));
    if let Some(keep) = slides {
        check_keep(keep, context)?;
        if tokens.len() > context {
            tokens = slide(&tokens, keep, context, args.output.quiet);
        }
    }
    interrupt::catch()?;
    let (generation, text) = generated(args, &config, &mut loaded, settings, &tokens, slides)?;
    let timings = timings(&generation, &loaded, tokens.len(), process_start);
    report(args, &tokens, &generation, &text, timings)?;
    match generation.finish {
        Finish::Interrupted => Err(CliError::Interrupted),
        _ => Ok(()),
    }
}

/// The configuration, once it is known that the flags go together.
fn configured(args: &GenerateArgs) -> Result<Config, CliError> {
    let of_chat = &args.template;
    if !args.chat
        && (of_chat.system.is_some() || of_chat.template.is_some() || of_chat.thinking.is_some())
    {
        let text = "--system, --template and --thinking need --chat";
        return Err(CliError::Usage(text.into()));
    }
    if args.logprobs > 0 && args.output.format != Format::Json {
        return Err(CliError::Usage("--logprobs needs --format json".into()));
    }
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    config.apply_sampling(&args.sampling);
    config.apply_generate(args).map_err(CliError::input)?;
    config.sampling.validate().map_err(CliError::input)?;
    Ok(config)
}

/// The prompt's tokens; a conversation's template adds to `settings` what ends its answers.
fn encoded(
    args: &GenerateArgs,
    config: &Config,
    loaded: &Loaded,
    prompt: &str,
    settings: &mut Settings,
) -> Result<Prompt, CliError> {
    let (tokenizer, quiet) = (&loaded.tokenizer, args.output.quiet);
    text::note_lost(tokenizer, "the prompt", prompt, quiet);
    if !args.chat {
        return plain_prompt(tokenizer, prompt, config.special);
    }
    if let Some(system) = &config.system {
        text::note_lost(tokenizer, "the system message", system, quiet);
    }
    let prompter = template::prompter(config, &loaded.metadata, tokenizer)?;
    settings.stop.extend_from_slice(prompter.stops());
    settings.ends.extend_from_slice(prompter.ends());
    chat_prompt(&prompter, config.system.clone(), prompt)
}

/// Continues the prompt, streaming what is to be streamed; the whole text as well. With `slides`, a full context keeps so
/// many tokens at the beginning and goes on.
fn generated(
    args: &GenerateArgs,
    config: &Config,
    loaded: &mut Loaded,
    settings: Settings,
    tokens: &[u32],
    slides: Option<usize>,
) -> Result<(Generation, String), CliError> {
    let (context, quiet) = (loaded.session.context() as usize, args.output.quiet);
    let keep = slides.unwrap_or(0);
    let mut on_full = |full: Full<'_>| {
        let newest = full.generated.last();
        let sequence: Vec<u32> = full.held.iter().chain(newest).copied().collect();
        Some(slide(&sequence, keep, context, quiet))
    };
    let streams = args.output.format == Format::Text;
    let mut collected = String::new();
    let mut lost: Option<CliError> = None;
    let mut on_text = |piece: &str| {
        collected.push_str(piece);
        if streams && let Err(error) = output::text(piece) {
            lost = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let (session, tokenizer) = (&mut loaded.session, &loaded.tokenizer);
    let mut generator = Generator::new(session, tokenizer, config.sampling, settings);
    if slides.is_some() {
        generator = generator.on_full(&mut on_full);
    }
    let generation = generator
        .run(tokens, &interrupt::asked, &mut on_text)
        .map_err(|error| failure(error, streams && !collected.is_empty()))?;
    match lost {
        Some(error) => Err(error),
        None => Ok((generation, collected)),
    }
}

/// The end of a streamed text and its statistics, or everything as JSON.
fn report(
    args: &GenerateArgs,
    tokens: &[u32],
    generation: &Generation,
    text: &str,
    timings: Timings,
) -> Result<(), CliError> {
    match args.output.format {
        Format::Text => {
            if !text.ends_with('\n') {
                output::text("\n")?;
            }
            let line = statistics(&timings, generation, tokens.len());
            output::note(args.output.quiet, &line);
            Ok(())
        }
        Format::Json => output::json(&Json {
            prompt_tokens: tokens,
            tokens: &generation.tokens,
            text,
            finish_reason: generation.finish.name(),
            slides: generation.slides,
            logprobs: &generation.logprobs,
            timings,
        }),
    }
}

/// A prompt's tokens, and how many of them at the beginning sliding keeps unless told otherwise.
struct Prompt {
    tokens: Vec<u32>,
    fixed: usize,
}

/// The prompt as it stands. An empty one begins as every text does, if the model has a token for that.
fn plain_prompt(tokenizer: &Tokenizer, prompt: &str, special: bool) -> Result<Prompt, CliError> {
    let options = Encode { special, bos: true };
    let mut tokens = tokenizer.encode(prompt, options).map_err(CliError::input)?;
    if tokens.is_empty() {
        tokens.extend(tokenizer.bos());
    }
    let begins = tokens
        .first()
        .is_some_and(|&token| Some(token) == tokenizer.bos());
    let fixed = usize::from(begins);
    Ok(Prompt { tokens, fixed })
}

/// The prompt as what a person says.
fn chat_prompt(
    prompter: &Prompter,
    system: Option<String>,
    prompt: &str,
) -> Result<Prompt, CliError> {
    let conversation = Conversation::new(system);
    let messages = conversation.messages(Some(prompt));
    let tokens = prompter.tokens(&messages, true).map_err(CliError::input)?;
    let begins = prompter.adds_bos();
    // A template that has no system turn of its own begins with no more than what both have in common.
    let opening = prompter.tokens(&conversation.messages(None), false);
    let same = |opening: Vec<u32>| {
        let pairs = opening.iter().zip(&tokens);
        pairs.take_while(|(a, b)| a == b).count()
    };
    let fixed = opening.map_or(0, same).max(usize::from(begins));
    Ok(Prompt { tokens, fixed })
}

/// Whether keeping so many tokens leaves room to slide.
pub fn check_keep(keep: usize, context: usize) -> Result<(), CliError> {
    if keep.saturating_add(2) <= context {
        return Ok(());
    }
    Err(CliError::Input(format!(
        "--keep {keep} leaves no room in a context of {context} tokens"
    )))
}

/// A shorter sequence, and a line about it.
fn slide(tokens: &[u32], keep: usize, context: usize, quiet: bool) -> Vec<u32> {
    let shorter = drop_pieces(tokens, keep, context);
    let dropped = tokens.len() - shorter.len();
    let line = format!(
        "(context full: {dropped} tokens after the first {keep} dropped; {} of {context} are left)",
        shorter.len()
    );
    output::note(quiet, &line);
    shorter
}

/// The error of a text that broke off; its line must not begin in the middle of the text.
fn failure(error: GenerateError, mid_line: bool) -> CliError {
    if mid_line {
        // The error itself matters more than this newline.
        let _closed_is_fine = output::text("\n");
    }
    self::error(error)
}

/// The error of a text, which is the prompt's fault or the machinery's.
pub fn error(error: GenerateError) -> CliError {
    if error.is_input() {
        CliError::input(error)
    } else {
        CliError::runtime(error)
    }
}

fn timings(
    generation: &Generation,
    loaded: &Loaded,
    prompt_tokens: usize,
    process_start: Instant,
) -> Timings {
    let report = loaded.session.report();
    let steps: usize = generation.steps.iter().map(ExactSizeIterator::len).sum();
    let decode_s = generation.decode_time.as_secs_f64();
    let prompt_s = generation.prompt_time.as_secs_f64();
    let first_token = generation.first_token_at.map(|at| at - process_start);
    // Of a prompt that was interrupted nobody counted what had been computed.
    let whole_prompt = first_token.is_some() || generation.finish != Finish::Interrupted;
    let prompt_rate = per_second(prompt_tokens as f64, prompt_s).filter(|_| whole_prompt);
    let ranges = generation.steps.iter().cloned();
    let bytes: u64 = ranges.map(|steps| step_bytes(&loaded.session, steps)).sum();
    // Without a step, what passed is only the choice of one token: no rate can be told.
    let rate = |count: f64| per_second(count, decode_s).filter(|_| steps > 0);
    Timings {
        load_ms: ms(loaded.load_time),
        prompt_ms: ms(generation.prompt_time),
        prompt_tokens_per_s: prompt_rate,
        first_token_ms: first_token.map(ms),
        decode_ms: ms(generation.decode_time),
        decode_steps: steps,
        decode_tokens_per_s: rate(steps as f64),
        decode_ms_per_token: (steps > 0).then(|| 1e3 * decode_s / steps as f64),
        decode_gb_per_s: rate(bytes as f64 / 1e9),
        total_ms: ms(process_start.elapsed()),
        replays: report.replays,
        logits_hash: generation.logits_hash.map(|hash| format!("{hash:016x}")),
        threads: report.threads,
        device: report.device,
    }
}

/// Bytes that the steps from each of `positions` move.
pub fn step_bytes(session: &Session, positions: Range<usize>) -> u64 {
    let program = session.decode_program();
    // A step sees its own position as well.
    positions
        .map(|position| program.bytes_at(position as u64 + 1))
        .sum()
}

/// Milliseconds, with their fraction.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// One line about the run, for people.
fn statistics(timings: &Timings, generation: &Generation, prompt_tokens: usize) -> String {
    format!(
        "# prompt: {prompt_tokens} tokens, {} tok/s; decode: {} tokens, {} tok/s, {} ms/tok, {} GB/s; \
         first token: {} ms; replays: {}; finish: {}; hash: {}",
        figure(timings.prompt_tokens_per_s),
        generation.tokens.len(),
        figure(timings.decode_tokens_per_s),
        figure(timings.decode_ms_per_token),
        figure(timings.decode_gb_per_s),
        figure(timings.first_token_ms),
        timings.replays,
        generation.finish.name(),
        timings.logits_hash.as_deref().unwrap_or("-"),
    )
}
