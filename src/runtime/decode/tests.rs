//! Decoding on a made-up device with a queue, which gets on whenever it is looked at.

use super::{GROUP_MOST, GROUPS};
use crate::gpu::{GpuError, RING};
use crate::loader::Loading;
use crate::program::{Program, Step};
use crate::runtime::{
    Backend, BackendError, Contents, Recording, Session, SessionError, SessionOptions,
};
use crate::sampler::{Rule, SamplerError};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const VOCABULARY: u32 = 1009;
const CONTEXT: u32 = 400;

/// What the device chooses after `token` at `position`.
fn after(position: u32, token: u32) -> u32 {
    (token * 31 + position * 17 + 5) % VOCABULARY
}

/// Why a device gets no further.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// It says so when it is asked whether it is idle.
    Fails,
    /// It is idle, and has told nobody what it chose.
    Forgets,
}

#[derive(Default)]
struct State {
    /// The next step's.
    position: u32,
    token: u32,
    queued: u32,
    most_queued: u32,
    /// The token at each position that a step was taken for.
    cache: Vec<u32>,
    /// What was chosen, for which position.
    ring: Vec<Option<(u32, u32)>>,
    /// Positions that were expected and not asked for, and the last that was expected.
    unread: BTreeSet<u32>,
    expected: u32,
    /// How often it was asked whether it is idle.
    queries: u32,
    /// Steps it takes when it is looked at: the last two digits of a sequence that repeats late.
    pace: u32,
    /// Where, and how, it ends.
    end: Option<(u32, End)>,
}

impl State {
    fn step(&mut self) {
        let (position, token) = (self.position, self.token);
        assert!(position < CONTEXT, "a step at {position}");
        self.cache.truncate(position as usize);
        assert_eq!(self.cache.len(), position as usize, "a gap in the cache");
        self.cache.push(token);
        self.position += 1;
        self.token = after(position, token);
        self.ring[(self.position % RING) as usize] = Some((self.position, self.token));
    }

    fn get_on(&mut self) {
        self.pace = self.pace * 37 % 101;
        for _ in 0..self.pace % 12 {
            if self.queued > 0 && self.end.is_none_or(|(at, _)| self.position < at) {
                self.step();
                self.queued -= 1;
            }
        }
    }

    fn is_stuck(&self) -> Option<End> {
        let end = self.end.filter(|&(at, _)| self.position >= at);
        end.map(|(_, end)| end)
    }
}

#[derive(Clone)]
struct Device(Arc<Mutex<State>>);

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked meanwhile")
    }
}

impl Backend for Device {
    fn describe(&self) -> String {
        "made up".into()
    }
    fn threads(&self) -> usize {
        1
    }
    fn weight_bytes(&self) -> u64 {
        0
    }
    fn loading(&self) -> Loading {
        unreachable!("nothing is loaded")
    }
    fn record(&self, _: Program) -> Result<Box<dyn Recording>, BackendError> {
        unreachable!("there is no program")
    }
    fn stream_bytes_per_second(&self) -> Result<f64, BackendError> {
        unreachable!("there is no memory")
    }
    fn set_rule(&self, _: &Rule) -> Result<(), BackendError> {
        Ok(())
    }

    fn expect(&self, positions: Range<u32>) -> Result<(), BackendError> {
        let mut state = self.state();
        for position in positions {
            let slot = position % RING;
            let taken = state.unread.iter().find(|&&of| of % RING == slot);
            assert_eq!(taken, None, "{position} takes the slot");
            state.unread.insert(position);
            state.expected = position;
            state.ring[slot as usize] = None;
        }
        Ok(())
    }

    fn told(&self, position: u32) -> Result<bool, BackendError> {
        let mut state = self.state();
        state.get_on();
        assert!(
            position + RING > state.expected,
            "{position}'s slot is of another"
        );
        let slot = state.ring[(position % RING) as usize];
        Ok(slot.is_some_and(|(of, _)| of == position))
    }

    fn chosen(&self, position: u32) -> Result<Result<u32, SamplerError>, BackendError> {
        let mut state = self.state();
        state.unread.remove(&position);
        match state.ring[(position % RING) as usize] {
            Some((of, token)) if of == position => Ok(Ok(token)),
            other => Err(BackendError::Gpu(GpuError::NotTold {
                position,
                found: other.map(|(of, _)| of),
            })),
        }
    }
}

/// The step of such a device; its logits are its position and its token.
struct Steps(Device, [f32; 2]);

impl Steps {
    fn keep_result(&mut self) {
        let state = self.0.state();
        let position = state.position - 1;
        self.1 = [position as f32, state.cache[position as usize] as f32];
    }
}

impl Recording for Steps {
    fn program(&self) -> &Program {
        unreachable!("there is no program")
    }

    fn replay(&mut self, step: Step<'_>) -> Result<(), BackendError> {
        let mut state = self.0.state();
        while state.queued > 0 {
            state.step();
            state.queued -= 1;
        }
        state.unread.clear();
        state.expected = 0;
        (state.position, state.token) = (step.position, step.tokens[0]);
        state.step();
        drop(state);
        self.keep_result();
        Ok(())
    }

    fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), BackendError> {
        self.replay(step)
    }

    fn advance(&mut self, steps: u32, _: bool) -> Result<(), BackendError> {
        let mut state = self.0.state();
        state.queued += steps;
        state.most_queued = state.most_queued.max(state.queued);
        Ok(())
    }

    fn is_idle(&self) -> Result<bool, BackendError> {
        let mut state = self.0.state();
        state.queries += 1;
        match state.is_stuck() {
            Some(End::Fails) => Err(BackendError::Gpu(GpuError::MissingWeight {
                name: "made up".into(),
            })),
            Some(End::Forgets) => Ok(true),
            None => Ok(state.queued == 0),
        }
    }

    fn queues(&self) -> bool {
        true
    }

    fn fetch(&mut self) -> Result<(), BackendError> {
        self.keep_result();
        Ok(())
    }

    fn result(&self, _: usize) -> &[f32] {
        &self.1
    }
    fn replays(&self) -> u64 {
        0
    }
    fn eager_steps(&self) -> u64 {
        0
    }
    fn nodes(&self) -> usize {
        0
    }
    fn contents(&mut self) -> Result<Contents, BackendError> {
        unreachable!("there are no nodes")
    }
    fn time_nodes(&mut self, _: Step<'_>) -> Result<Vec<Duration>, BackendError> {
        unreachable!("there are no nodes")
    }
    fn write_driver_dot(&mut self, _: &Path) -> Result<bool, BackendError> {
        Ok(false)
    }
}

/// A session on a device of some pace, which ends somewhere.
fn session(pace: u32, end: Option<(u32, End)>) -> (Session, Device) {
    let device = Device(Arc::new(Mutex::new(State {
        ring: vec![None; RING as usize],
        pace,
        end,
        ..State::default()
    })));
    let options = SessionOptions {
        context: CONTEXT,
        ..SessionOptions::default()
    };
    let steps = Box::new(Steps(device.clone(), [0.0; 2]));
    let session = Session::new(Box::new(device.clone()), steps, &options, VOCABULARY);
    (session, device)
}

/// The tokens after `token` at `position`.
fn text(position: u32, token: u32) -> impl Iterator<Item = u32> {
    let first = (position, after(position, token));
    let next = |&(position, token): &(u32, u32)| Some((position + 1, after(position + 1, token)));
    std::iter::successors(Some(first), next).map(|(_, token)| token)
}

fn decoded(session: &mut Session, limit: usize) -> Vec<u32> {
    let mut decode = session.decode(limit).expect("a step was taken");
    let mut tokens = Vec::new();
    while let Some(token) = decode.next().expect("the device goes on") {
        tokens.push(token);
    }
    decode.end().expect("the device goes on");
    tokens
}

#[test]
fn every_token_comes_once_and_in_order_at_any_pace() {
    let mut most_of_all = 0;
    for pace in 1..40 {
        let (mut session, device) = session(pace, None);
        for limit in [1, 2, 16, 17, 200] {
            session.reset();
            session.step(7).expect("the device goes on");
            let tokens = decoded(&mut session, limit);
            let expected: Vec<u32> = text(0, 7).take(limit).collect();
            assert_eq!(tokens, expected, "pace {pace}");
            // All are in the cache but the last, which the next step takes.
            assert_eq!(session.position() as usize, limit);
            assert_eq!(session.tokens[1..], expected[..limit - 1]);
        }
        let most = device.state().most_queued;
        assert!(most <= GROUPS as u32 * GROUP_MOST, "{most} were queued");
        most_of_all = most_of_all.max(most);
    }
    // Some are quick enough for the next steps to be queued before those of a whole group are done.
    assert!(
        most_of_all > GROUP_MOST,
        "{most_of_all} were queued at most"
    );
}

#[test]
fn who_reads_late_is_waited_for_without_asking_the_driver() {
    for pause in [1, 20, 70, 150] {
        let (mut session, device) = session(9, None);
        session.step(7).expect("the device goes on");
        let mut decode = session.decode(300).expect("a step was taken");
        for (index, expected) in text(0, 7).take(300).enumerate() {
            if index == pause {
                // Everything that is queued is done meanwhile.
                let mut state = device.state();
                while state.queued > 0 {
                    state.step();
                    state.queued -= 1;
                }
            }
            let token = decode.next().expect("the device goes on");
            assert_eq!(token, Some(expected));
        }
        let queries = device.state().queries;
        assert!(queries < 150, "asked {queries} times");
    }
}

#[test]
fn a_text_ends_with_the_context() {
    let (mut session, _) = session(5, None);
    session.step(7).expect("the device goes on");
    let tokens = decoded(&mut session, usize::MAX);
    assert_eq!(session.position(), CONTEXT);
    assert!(text(0, 7).take(CONTEXT as usize).eq(tokens));
}

#[test]
fn a_text_that_ends_early_goes_on_where_it_ended() {
    for (pace, stop) in (1..40).zip((1..200).step_by(5)) {
        let (mut session, device) = session(pace, None);
        session.step(7).expect("the device goes on");
        let mut decode = session.decode(300).expect("a step was taken");
        let mut last = 7;
        for expected in text(0, 7).take(stop) {
            let token = decode.next().expect("the device goes on");
            assert_eq!(token, Some(expected));
            last = expected;
        }
        // Whatever was queued beyond it.
        let logits = decode.end().expect("the device goes on");
        let before = text(0, 7).take(stop - 1).last().unwrap_or(7);
        assert_eq!(logits, [(stop - 1) as f32, before as f32]);
        assert_eq!(session.position() as usize, stop);
        session.step(last).expect("the device goes on");
        let rest = decoded(&mut session, 40);
        assert!(text(0, 7).skip(stop).take(40).eq(rest));
        let cache = device.state().cache.clone();
        assert_eq!(session.tokens, cache[..session.tokens.len()]);
    }
}

#[test]
fn with_logits_steps_are_taken_one_at_a_time() {
    let (mut session, device) = session(3, None);
    session.step(7).expect("the device goes on");
    let mut decode = session.decode_with_logits(30).expect("a step was taken");
    let mut before = 7;
    for (position, expected) in text(0, 7).take(30).enumerate() {
        let token = decode.next().expect("the device goes on");
        assert_eq!(token, Some(expected));
        assert_eq!(decode.logits(), [position as f32, before as f32]);
        before = expected;
    }
    assert_eq!(device.state().most_queued, 1);
}

#[test]
fn a_device_that_gets_no_further_is_an_error() {
    for pace in 1..20 {
        for (end, fails) in [(End::Fails, true), (End::Forgets, false)] {
            let (mut session, _) = session(pace, Some((57, end)));
            session.step(7).expect("the device goes on");
            let mut decode = session.decode(300).expect("a step was taken");
            let error = loop {
                match decode.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the device ended before"),
                    Err(error) => break error,
                }
            };
            let SessionError::Backend(BackendError::Gpu(error)) = error else {
                panic!("{error}");
            };
            assert_eq!(fails, matches!(error, GpuError::MissingWeight { .. }));
            let not_told = matches!(error, GpuError::NotTold { position, .. } if position >= 57);
            assert_eq!(fails, !not_told);
        }
    }
}
