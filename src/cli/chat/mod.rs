//! `chat`: a conversation at a terminal, or by lines through a pipe.
//!
//! Answers go to standard output; everything else goes to standard error. Whatever goes wrong with a message or a
//! command is one line there, and the conversation goes on. Without a terminal, where nobody may have seen that line, the
//! process then ends with an error as well.

mod command;
mod input;
mod save;
mod talk;
pub mod template;

use super::args::ChatArgs;
use super::config::Config;
use super::error::CliError;
use super::interrupt;
use super::load::{self, Loaded, Wanted};
use super::output;
use super::progress::Progress;
use crate::chat::{Conversation, recommended};
use crate::loader::Metadata;
use crate::model::Logits;
use command::Command;
use input::{Event, Input};
use talk::{Rules, Talk};

pub fn run(args: &ChatArgs) -> Result<(), CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    let progress = Progress::new(args.quiet);
    let wanted = Wanted {
        context_at_least: 0,
        logits: Logits::Last,
        progress: &progress,
    };
    let Loaded {
        session,
        tokenizer,
        metadata,
        ..
    } = load::load(&config, &wanted)?;
    let config = with_recommended(args, &metadata)?;
    let prompter = template::prompter(&config, &metadata, &tokenizer)?;
    let mut conversation = match &args.load {
        None => Conversation::new(None),
        Some(file) => save::load(file)?,
    };
    if config.system.is_some() && (args.template.system.is_some() || conversation.system.is_none())
    {
        conversation.system.clone_from(&config.system);
    }
    // What the template says of the system message is said now, and not after the first question.
    prompter
        .tokens(&conversation.messages(Some("?")), true)
        .map_err(CliError::input)?;
    let mut input = Input::new()?;
    interrupt::catch_in_conversation(!input.is_terminal())?;
    let rules = Rules::of(&config, &prompter, session.context() as usize)?;
    let mut talk = Talk::new(
        session,
        &tokenizer,
        prompter,
        rules,
        conversation,
        args.quiet,
    );
    if input.is_terminal() {
        output::note(args.quiet, &talk.greeting());
    }
    talk.note_lost();
    converse(&mut talk, &mut input)?;
    match input.is_terminal() {
        true => Ok(()),
        false => talk.outcome(),
    }
}

/// Entries until there are no more.
fn converse(talk: &mut Talk, input: &mut Input) -> Result<(), CliError> {
    let mut asked_to_leave = false;
    loop {
        let entry = match input.next()? {
            Event::Entry(entry) => entry,
            Event::Unreadable(why) => {
                talk.complain(CliError::Input(why));
                continue;
            }
            Event::AskedToLeave if asked_to_leave => return Ok(()),
            Event::AskedToLeave => {
                asked_to_leave = true;
                talk.tell("(Ctrl-C again, or Ctrl-D, leaves)");
                continue;
            }
            Event::End => return Ok(()),
        };
        asked_to_leave = false;
        match Command::parse(entry) {
            Command::Nothing => {}
            Command::Exit => return Ok(()),
            Command::Help => talk.tell(&command::help()),
            Command::Wrong(why) => talk.complain(CliError::Input(why)),
            Command::Say(text) => talk.say(&text)?,
            Command::Reset => talk.reset(),
            Command::Stats => talk.tell(&talk.statistics()),
            Command::ShowSystem => talk.show_system(),
            Command::SetSystem(text) => talk.set_system(text),
            Command::Save(path) => match save::save(talk.conversation(), &path) {
                Ok(()) => talk.tell(&format!("saved to {}", path.display())),
                Err(error) => talk.complain(error),
            },
            Command::Load(path) => match save::load(&path) {
                Ok(conversation) => talk.set_conversation(conversation),
                Err(error) => talk.complain(error),
            },
        }
    }
}

/// The whole configuration: over the built-in defaults what the model recommends for sampling, and answers as long as
/// they like; over that the file and the flags.
fn with_recommended(args: &ChatArgs, metadata: &Metadata) -> Result<Config, CliError> {
    let beneath = Config {
        sampling: recommended(metadata).map_err(CliError::input)?,
        max_tokens: usize::MAX,
        ..Config::default()
    };
    let mut config = Config::load_over(beneath, &args.model).map_err(CliError::input)?;
    config.apply_sampling(&args.sampling);
    config
        .apply_end(args.max_tokens, &args.stop, &args.full)
        .map_err(CliError::input)?;
    config.apply_template(&args.template);
    config.sampling.validate().map_err(CliError::input)?;
    Ok(config)
}
