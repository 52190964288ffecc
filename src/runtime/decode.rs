//! A text in the making: tokens that the device chooses and feeds back to itself.
//!
//! The step's recording ends by choosing a token and making it the next step's, so that the host only
//! queues replays and collects. It keeps up to three groups of steps queued, and waits for all but the
//! last, which runs while the next are queued. How many steps a group has follows from how long they take
//! ([`GROUP_TIME`]), so that the host wakes rarely where steps are short, and no token is kept back for long
//! where they are not.
//!
//! The host waits by sleeping until shortly after they are due, and looks how far the device has got,
//! which costs no call of a driver: drivers' own waiting takes an H100's host 70 µs of processor time, a
//! question about an event 5, a nap 12 to 16. Being late costs nothing while another group is queued.
//! After a nap a launch takes 13 to 30 µs, of one step or of sixteen; right behind another it takes 2 to 10.
//! So groups are queued two at a time, when one is left.
//!
//! The end of a text is the host's decision, and comes late: steps that were queued beyond it have run
//! or will. Their cache rows lie beyond the sequence's end, where every step writes before it reads;
//! their logits are computed anew where somebody asks for those of the text's end ([`Decode::end`]).

use super::session::{Ran, Session, SessionError};
use crate::gpu::{GROUP_STEPS, RING};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

/// Groups that are queued at most; two where a group is a step, which takes so long that launching is nothing.
const GROUPS: usize = 3;

/// The most steps of a group: what a device launches at once.
const GROUP_MOST: u32 = GROUP_STEPS;

// Two that are done can be unread, one runs, and there is room for one behind it.
const _: () = assert!((GROUPS as u32 + 1) * GROUP_MOST <= RING);

/// What a group may take: of two less than anyone sees, and long beside waking up.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// The shortest nap: systems wake nobody much sooner.
const NAP: Duration = Duration::from_micros(50);

/// How far the device was seen to be.
struct Seen {
    at: Instant,
    /// Steps that were done.
    steps: u32,
}

/// Tokens that follow a session's sequence, each chosen when the one before is in the cache.
///
/// The sequence grows with each token: the session's position counts those that are in the cache,
/// which are all but the last that was given out.
pub struct Decode<'s> {
    session: &'s mut Session,
    /// The session's position when this began.
    start: u32,
    /// Tokens to give out at most, and those given out.
    limit: usize,
    given: usize,
    /// Steps that may be queued at most, that are, and that are known to be done.
    most: u32,
    queued: u32,
    done: u32,
    /// The steps up to the end of each queued group, in order, and how many groups there are.
    ends: [u32; GROUPS],
    groups: usize,
    /// Whether groups are being queued until there are as many as may be.
    filling: bool,
    seen: Seen,
    /// The last token given out and the one before it.
    last: [u32; 2],
    every_logits: bool,
}

impl<'s> Decode<'s> {
    pub(super) fn new(session: &'s mut Session, limit: usize, every_logits: bool) -> Self {
        let start = session.position();
        let room = session.context() - start;
        let wanted = u32::try_from(limit).unwrap_or(u32::MAX).saturating_sub(1);
        Decode {
            start,
            limit,
            given: 0,
            most: room.min(wanted),
            queued: 0,
            done: 0,
            ends: [0; GROUPS],
            groups: 0,
            filling: false,
            seen: Seen {
                at: Instant::now(),
                steps: 0,
            },
            last: [0; 2],
            every_logits,
            session,
        }
    }

    /// The next token; `None` after as many as were asked for, and where the context is full. The first
    /// is the one that the session's last step or prompt chose.
    ///
    /// # Errors
    /// [`SessionError::Sampler`] where the logits were no distribution, and the device's.
    #[expect(clippy::should_implement_trait, reason = "an end is no error here")]
    pub fn next(&mut self) -> Result<Option<u32>, SessionError> {
        let step = self.given as u32;
        if self.given == self.limit || step > self.most {
            return Ok(None);
        }
        if step > self.done {
            self.wait_for(step)?;
        } else if self.filling {
            self.queue()?;
        }
        let token = self.session.chosen_for(self.start + step)?;
        self.given += 1;
        if step > 0 {
            // The one before has been computed by the step that chose this one.
            self.session.tokens.push(self.last[0]);
        }
        self.last = [token, self.last[0]];
        self.session.now_at(self.start + step, self.queued == step);
        Ok(Some(token))
    }

    /// Tokens that [`next`](Decode::next) gives without waiting.
    pub fn ready(&self) -> usize {
        let known = (self.done as usize + 1).min(self.limit);
        known.saturating_sub(self.given)
    }

    /// The logits `[V]` from which the last token was chosen.
    ///
    /// # Panics
    /// When they were not asked for at every token.
    pub fn logits(&self) -> &[f32] {
        assert!(self.every_logits, "only the tokens were asked for");
        self.session.last_logits()
    }

    /// Ends the text after the last token given out. The logits `[V]` are those from which it was
    /// chosen: copied, or computed again if later steps have run since.
    ///
    /// # Errors
    /// The device's.
    pub fn end(mut self) -> Result<&'s [f32], SessionError> {
        let kept = (self.given as u32).saturating_sub(1);
        if kept > 0 && self.queued > kept {
            self.wait_until(self.queued)?;
            self.session.truncate(self.start + kept - 1);
            return self.session.step(self.last[1]);
        }
        if kept > 0 && !self.every_logits {
            self.session.fetch()?;
        }
        Ok(self.session.last_logits())
    }

    /// Waits until `step` steps are done, the next that is not, and keeps more queued where the device takes them.
    fn wait_for(&mut self, step: u32) -> Result<(), SessionError> {
        while self.done < step {
            self.queue()?;
            assert!(
                self.groups > 0,
                "the step asked for is queued, and not done"
            );
            let awaited = (self.groups - 1).max(1);
            let end = self.ends[awaited - 1];
            self.wait_until(end)?;
            self.ends.copy_within(awaited.., 0);
            self.groups -= awaited;
            self.done = end;
            if self.seen.steps < end {
                self.see(end);
            }
            if self.is_ahead() {
                self.queue()?;
            }
        }
        if self.every_logits {
            self.session.fetch()?;
        }
        Ok(())
    }

    /// Whether steps are queued before they are asked for.
    fn is_ahead(&self) -> bool {
        self.session.queues() && !self.every_logits
    }

    /// Waits until `end` steps are done.
    fn wait_until(&mut self, end: u32) -> Result<(), SessionError> {
        while !self.session.told(self.start + end)? {
            let due = self.seen.at + self.session.step_time * (end - self.seen.steps);
            let left = due.saturating_duration_since(Instant::now());
            // What is due and not there may never come. If it did not, asking for the token says so.
            if left.is_zero() && self.session.is_idle()? {
                break;
            }
            // Late rather than early, unless nothing is queued any more.
            let nap = match self.groups {
                1 => left - left / 16,
                _ => left + left / 16,
            };
            // A process that was stopped meanwhile takes the device for slow: not for long.
            thread::sleep(nap.clamp(NAP, 2 * GROUP_TIME));
            self.look()?;
        }
        Ok(())
    }

    /// Looks how far the device has got, and learns how long a step takes.
    fn look(&mut self) -> Result<(), SessionError> {
        let at = Instant::now();
        let mut steps = self.seen.steps;
        while steps < self.queued && self.session.told(self.start + steps + 1)? {
            steps += 1;
        }
        if steps > self.seen.steps {
            self.session.step_time = (at - self.seen.at) / (steps - self.seen.steps);
            self.seen = Seen { at, steps };
        }
        Ok(())
    }

    /// Takes note that `steps` are done, who knows since when.
    fn see(&mut self, steps: u32) {
        let at = Instant::now();
        self.seen = Seen { at, steps };
    }

    /// Queues the next step or, ahead of it and where one group is left or none, as many groups as there may be: those
    /// for which the ring has no room yet when more tokens are read.
    fn queue(&mut self) -> Result<(), SessionError> {
        self.filling |= self.groups <= 1;
        if !self.filling {
            return Ok(());
        }
        if self.groups == 0 {
            self.see(self.queued);
        }
        let (steps, groups) = match self.is_ahead() {
            true => match self.session.group_steps() {
                1 => (1, 2),
                steps => (steps, GROUPS),
            },
            false => (1, 1),
        };
        while self.groups < groups {
            let steps = steps.min(self.most - self.queued);
            if steps == 0 {
                break;
            }
            if self.queued + steps >= self.given as u32 + RING {
                return Ok(());
            }
            let from = self.start + self.queued + 1;
            self.session.advance(from..from + steps)?;
            self.queued += steps;
            self.ends[self.groups] = self.queued;
            self.groups += 1;
        }
        self.filling = false;
        Ok(())
    }
}

impl Session {
    /// Decodes up to `limit` tokens by the settings of [`Session::set_sampling`], beginning with the one
    /// that the last step or prompt chose.
    ///
    /// # Errors
    /// [`SessionError::NothingChosen`] where no step or prompt came last.
    pub fn decode(&mut self, limit: usize) -> Result<Decode<'_>, SessionError> {
        self.chosen()?;
        Ok(Decode::new(self, limit, false))
    }

    /// As [`Session::decode`], one step at a time, with every step's logits.
    pub fn decode_with_logits(&mut self, limit: usize) -> Result<Decode<'_>, SessionError> {
        self.chosen()?;
        Ok(Decode::new(self, limit, true))
    }

    /// The token that the last step or prompt chose; it is not in the sequence yet.
    ///
    /// # Errors
    /// [`SessionError::NothingChosen`] where no step or prompt came last, and
    /// [`SessionError::Sampler`] where its logits were no distribution.
    pub fn chosen(&self) -> Result<u32, SessionError> {
        if !self.linked {
            return Err(SessionError::NothingChosen);
        }
        self.chosen_for(self.position())
    }

    fn chosen_for(&self, position: u32) -> Result<u32, SessionError> {
        Ok(self.backend.chosen(position)??)
    }

    /// The sequence has `position` tokens; `linked` says whether the device agrees.
    fn now_at(&mut self, position: u32, linked: bool) {
        self.position = position;
        self.linked = linked;
    }

    fn queues(&self) -> bool {
        self.decode.queues()
    }

    /// Steps of a group: as many as fit in its time, and one while nothing is known.
    fn group_steps(&self) -> u32 {
        let fit = GROUP_TIME.as_nanos().checked_div(self.step_time.as_nanos());
        let fit = u32::try_from(fit.unwrap_or(1)).unwrap_or(u32::MAX);
        fit.clamp(1, GROUP_MOST)
    }

    /// Queues steps that choose for these positions.
    fn advance(&mut self, positions: Range<u32>) -> Result<(), SessionError> {
        // Until the token is known: it may turn out to be none.
        self.linked = false;
        self.last = Ran::Decode;
        let steps = positions.len() as u32;
        self.backend.expect(positions)?;
        Ok(self.decode.advance(steps, self.options.eager)?)
    }

    fn told(&self, position: u32) -> Result<bool, SessionError> {
        Ok(self.backend.told(position)?)
    }

    fn is_idle(&self) -> Result<bool, SessionError> {
        Ok(self.decode.is_idle()?)
    }

    fn fetch(&mut self) -> Result<(), SessionError> {
        Ok(self.decode.fetch()?)
    }

    /// The logits that were copied to the host last.
    pub(super) fn last_logits(&self) -> &[f32] {
        match self.last {
            Ran::Decode => self.decode.result(0),
            Ran::Prompt { index, row } => self.prompts[index].result(row),
        }
    }
}

#[cfg(test)]
mod tests;
