//! The conversation itself: what is said, answered, and told about it.

use std::io::Write;
use std::ops::ControlFlow;

use super::super::args::OnFull;
use super::super::config::Config;
use super::super::error::CliError;
use super::super::output::{self, figure, per_second, printable};
use super::super::{generate, interrupt, text as texts};
use crate::chat::{Conversation, Prompter, fit};
use crate::generate::{Finish, Full, Generation, Generator, Settings};
use crate::runtime::Session;
use crate::sampler::Sampling;
use crate::tokenizer::Tokenizer;

/// What holds for every answer.
pub struct Rules {
    sampling: Sampling,
    settings: Settings,
    on_full: OnFull,
    keep: usize,
}

impl Rules {
    /// The rules of a configuration.
    pub fn of(config: &Config, prompter: &Prompter, context: usize) -> Result<Rules, CliError> {
        let keep = config.keep.unwrap_or(0);
        generate::check_keep(keep, context)?;
        let mut stop = config.stop.clone();
        stop.extend_from_slice(prompter.stops());
        Ok(Rules {
            sampling: config.sampling,
            settings: Settings {
                max_tokens: config.max_tokens,
                stop,
                ignore_eos: config.ignore_eos,
                logprobs: 0,
                ends: prompter.ends().to_vec(),
            },
            on_full: config.on_full,
            keep,
        })
    }
}

/// A conversation and the machinery that answers.
pub struct Talk<'t> {
    session: Session,
    tokenizer: &'t Tokenizer,
    prompter: Prompter<'t>,
    rules: Rules,
    conversation: Conversation,
    last: Option<Last>,
    failures: Failures,
    quiet: bool,
}

/// Entries that came to nothing.
#[derive(Default)]
struct Failures {
    count: usize,
    first: Option<CliError>,
}

/// Figures of the last answer.
struct Last {
    prompt_tokens: usize,
    generation: Generation,
}

impl<'t> Talk<'t> {
    pub fn new(
        session: Session,
        tokenizer: &'t Tokenizer,
        prompter: Prompter<'t>,
        rules: Rules,
        conversation: Conversation,
        quiet: bool,
    ) -> Talk<'t> {
        Talk {
            session,
            tokenizer,
            prompter,
            rules,
            conversation,
            last: None,
            failures: Failures::default(),
            quiet,
        }
    }

    pub fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// A line for people.
    pub fn tell(&self, line: &str) {
        output::note(self.quiet, line);
    }

    /// A line that says what went wrong. It is shown even if the rest is not.
    pub fn complain(&mut self, why: CliError) {
        let line = printable(&why.to_string());
        let _nobody = writeln!(std::io::stderr(), "error: {line}");
        self.failures.count += 1;
        self.failures.first.get_or_insert(why);
    }

    /// How a conversation ends that nobody has watched: with an error of the first failure's kind if there was one.
    pub fn outcome(&self) -> Result<(), CliError> {
        let text = match self.failures.count {
            1 => "one entry failed, as told above".to_string(),
            count => format!("{count} entries failed, as told above"),
        };
        match &self.failures.first {
            None => Ok(()),
            Some(CliError::Input(_)) => Err(CliError::Input(text)),
            Some(_) => Err(CliError::Runtime(text)),
        }
    }

    /// The first line.
    pub fn greeting(&self) -> String {
        let report = self.session.report();
        let context = self.session.context();
        let turns = match self.conversation.turns().len() {
            0 => String::new(),
            n => format!("{n} turns so far. "),
        };
        format!(
            "{turns}Context {context} tokens, {}. /help lists commands.",
            report.device
        )
    }

    pub fn show_system(&self) {
        match &self.conversation.system {
            None => self.tell("(no system message)"),
            Some(text) => self.tell(text),
        }
    }

    /// Says what the vocabulary lacks for the system message.
    pub fn note_lost(&self) {
        if let Some(text) = &self.conversation.system {
            texts::note_lost(self.tokenizer, "the system message", text, self.quiet);
        }
    }

    /// Sets the system message, if the template has a place for it.
    pub fn set_system(&mut self, text: Option<String>) {
        let before = std::mem::replace(&mut self.conversation.system, text);
        match self
            .prompter
            .tokens(&self.conversation.messages(Some("?")), true)
        {
            Ok(_) if self.conversation.system.is_none() => {
                self.tell("(there is no system message now)");
            }
            Ok(_) => {
                self.note_lost();
                self.tell("(the system message is set)");
            }
            Err(error) => {
                self.conversation.system = before;
                self.complain(CliError::input(error));
            }
        }
    }

    pub fn reset(&mut self) {
        self.conversation.reset();
        self.tell("(forgotten)");
    }

    pub fn set_conversation(&mut self, conversation: Conversation) {
        match self
            .prompter
            .tokens(&conversation.messages(Some("?")), true)
        {
            Ok(_) => {
                self.conversation = conversation;
                self.tell(&format!("({} turns)", self.conversation.turns().len()));
            }
            Err(error) => self.complain(CliError::input(error)),
        }
    }

    /// Says `text` and streams the answer. What goes wrong is told, and then nothing was said.
    pub fn say(&mut self, text: &str) -> Result<(), CliError> {
        texts::note_lost(self.tokenizer, "the message", text, self.quiet);
        let mut said = String::new();
        let mut lost = None;
        let answered = self.answer(text, &mut |piece| {
            said.push_str(piece);
            match output::text(piece) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    lost = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        interrupt::set_answering(false);
        if let Some(error) = lost {
            return Err(error);
        }
        if !said.is_empty() && !said.ends_with('\n') {
            output::text("\n")?;
        }
        let last = match answered {
            Ok(last) => last,
            Err(why) => {
                self.complain(why);
                return Ok(());
            }
        };
        self.close(text, said, &last.generation);
        self.last = Some(last);
        Ok(())
    }

    /// Records a turn and says why the answer ended, unless the model ended it.
    fn close(&mut self, text: &str, said: String, generation: &Generation) {
        let max_tokens = self.rules.settings.max_tokens;
        match generation.finish {
            Finish::EndOfGeneration | Finish::Stop if said.is_empty() => self.tell("(no answer)"),
            Finish::EndOfGeneration | Finish::Stop => {}
            Finish::Length => self.tell(&format!("(stopped after {max_tokens} tokens: --max-tokens)")),
            Finish::Context => self.tell(&format!(
                "(stopped: the context of {} tokens is full; /reset, --on-full slide or a larger --ctx)",
                self.session.context()
            )),
            Finish::Interrupted if said.is_empty() => {
                self.tell("(stopped before anything was said; the message is forgotten)");
                return;
            }
            Finish::Interrupted => self.tell("(stopped)"),
        }
        self.conversation.push(text.to_string(), said);
    }

    fn answer(
        &mut self,
        text: &str,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Last, CliError> {
        let (context, keep, quiet) = (self.session.context() as usize, self.rules.keep, self.quiet);
        let slides = self.rules.on_full == OnFull::Slide;
        let (prompter, conversation) = (&self.prompter, &mut self.conversation);
        let messages = conversation.messages(Some(text));
        let mut tokens = prompter.tokens(&messages, true).map_err(CliError::input)?;
        if tokens.len() >= context {
            let fitted = match slides {
                true => fit(prompter, conversation, text, &[], context, keep)
                    .map_err(CliError::input)?,
                false => None,
            };
            let Some(fitted) = fitted else {
                let why = too_long(prompter, conversation, text, tokens.len(), context, slides);
                return Err(CliError::Input(why));
            };
            output::note(quiet, &slid(fitted.hidden, fitted.tokens.len(), context));
            tokens = fitted.tokens;
        }
        interrupt::set_answering(true);
        let mut problem = None;
        let mut on_full =
            |full: Full<'_>| match fit(prompter, conversation, text, full.generated, context, keep)
            {
                Ok(Some(fitted)) => {
                    output::note(quiet, &slid(fitted.hidden, fitted.tokens.len(), context));
                    Some(fitted.tokens)
                }
                Ok(None) => None,
                Err(error) => {
                    problem = Some(CliError::input(error));
                    None
                }
            };
        let (sampling, settings) = (self.rules.sampling, self.rules.settings.clone());
        let mut generator = Generator::new(&mut self.session, self.tokenizer, sampling, settings);
        if slides {
            generator = generator.on_full(&mut on_full);
        }
        let generation = generator.run(&tokens, &interrupt::asked, on_text);
        let generation = generation.map_err(generate::error)?;
        match problem {
            Some(problem) => Err(problem),
            None => Ok(Last {
                prompt_tokens: tokens.len(),
                generation,
            }),
        }
    }

    /// The text of `/stats`.
    pub fn statistics(&self) -> String {
        let mut lines = Vec::new();
        if let Some(Last {
            prompt_tokens,
            generation,
        }) = &self.last
        {
            let steps: usize = generation.steps.iter().map(ExactSizeIterator::len).sum();
            let computed = prompt_tokens - generation.reused;
            let seconds = generation.prompt_time.as_secs_f64();
            lines.push(format!(
                "last prompt: {prompt_tokens} tokens, {} reused, {computed} computed, {} tok/s",
                generation.reused,
                figure(per_second(computed as f64, seconds)),
            ));
            let seconds = generation.decode_time.as_secs_f64();
            lines.push(format!(
                "last answer: {} tokens, {} tok/s; ended by {}; slides: {}",
                generation.tokens.len(),
                figure(per_second(steps as f64, seconds).filter(|_| steps > 0)),
                generation.finish.name(),
                generation.slides,
            ));
        }
        let (used, context) = (self.session.position(), self.session.context());
        lines.push(format!(
            "context: {used} of {context} tokens used, {} free",
            context - used
        ));
        let turns = self.conversation.turns().len();
        let hidden = self.conversation.hidden();
        lines.push(format!(
            "conversation: {turns} turns, {hidden} out of the model's sight"
        ));
        let report = self.session.report();
        lines.push(format!(
            "since the start: {} prompt tokens computed, {} replays",
            report.prompt_rows, report.replays
        ));
        lines.join("\n")
    }
}

/// What a slide is told as.
fn slid(hidden: usize, tokens: usize, context: usize) -> String {
    let turns = if hidden == 1 { "turn" } else { "turns" };
    format!(
        "(context full: the oldest {hidden} {turns} forgotten; {tokens} of {context} tokens are left)"
    )
}

/// Why a message cannot be answered, and what helps.
fn too_long(
    prompter: &Prompter,
    conversation: &Conversation,
    text: &str,
    tokens: usize,
    context: usize,
    slides: bool,
) -> String {
    let alone = Conversation::new(conversation.system.clone()).messages(Some(text));
    let alone = prompter.tokens(&alone, true).map(|tokens| tokens.len());
    match alone {
        Ok(alone) if alone >= context => format!(
            "the message alone makes {alone} tokens, and the context holds {context}: shorten it or raise --ctx; \
             it is forgotten"
        ),
        _ if slides => format!(
            "the message and the turns that are kept make {tokens} tokens, and the context holds {context}: lower --keep \
             or raise --ctx; the message is forgotten"
        ),
        _ => format!(
            "the conversation makes {tokens} tokens, and the context holds {context}: /reset, or start with --on-full \
             slide or a larger --ctx; the message is forgotten"
        ),
    }
}
