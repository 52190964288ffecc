//! A recording looked into and timed, for `graph` and `bench`.

use super::bench::go_to;
use super::error::CliError;
use crate::runtime::recorded::Recorded;
use crate::runtime::{Contents, Part, Profile, Session};

/// Tokens in the cache where nobody says otherwise.
const POSITION: usize = 256;

/// What was found out about one recording of a session.
pub struct Measured {
    device: String,
    contents: Contents,
    position: u32,
    profile: Option<Profile>,
    stream: Option<f64>,
}

impl Measured {
    /// Set beside the program, ready to be written.
    pub fn recorded<'r>(&'r self, session: &'r Session, part: Part) -> Recorded<'r> {
        Recorded {
            device: &self.device,
            program: session.program(part),
            contents: &self.contents,
            position: self.position,
            profile: self.profile.as_ref(),
            stream_bytes_per_second: self.stream,
        }
    }
}

/// The position of a step of `rows` tokens: as asked for, or the usual one if it fits.
pub fn position(asked: Option<usize>, rows: u32, context: u32) -> Result<u32, CliError> {
    let Some(last) = context.checked_sub(rows) else {
        let text = format!("a context of {context} does not hold a step of {rows} rows");
        return Err(CliError::Input(text));
    };
    let position = asked.unwrap_or(POSITION.min(last as usize));
    let fits = u32::try_from(position).ok().filter(|&p| p <= last);
    fits.ok_or_else(|| {
        let end = position.saturating_add(rows as usize);
        CliError::Input(format!(
            "--position {position} needs a context of {end}, but it holds {context}; raise it with --ctx"
        ))
    })
}

/// What the recording holds, without times.
pub fn look(session: &mut Session, part: Part, position: u32) -> Result<Measured, CliError> {
    Ok(Measured {
        device: session.report().device,
        contents: session.contents(part).map_err(CliError::runtime)?,
        position,
        profile: None,
        stream: None,
    })
}

/// What the recording holds and how long each node takes: the median of `repetitions` steps at
/// `position`, after that many made-up tokens. `stream` is what the device reads in bytes a second.
pub fn measure(
    session: &mut Session,
    part: Part,
    position: u32,
    repetitions: usize,
    stream: f64,
) -> Result<Measured, CliError> {
    let mut measured = look(session, part, position)?;
    session.reset();
    go_to(session, position)?;
    let tokens = vec![1; session.program(part).rows as usize];
    let profile = session.profile(part, &tokens, repetitions);
    measured.profile = Some(profile.map_err(CliError::runtime)?);
    measured.stream = Some(stream);
    Ok(measured)
}
