//! Tokens that a session chooses and feeds back to itself, beside the same ones fed to it step by step.

use super::compare::assert_same_bits;
use greta_infer::runtime::{Session, SessionError};
use greta_infer::sampler::{Chooser, Rule, Sampling, weigh};
use std::ops::ControlFlow;

/// Settings of a few kinds.
fn all_settings() -> [Sampling; 4] {
    let hot = Sampling {
        temperature: 1.5,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 11,
        ..Sampling::default()
    };
    [
        Sampling::greedy(),
        Sampling {
            seed: 3,
            repeat_penalty: 1.3,
            frequency_penalty: 0.2,
            presence_penalty: 0.4,
            repeat_last_n: 5,
            ..Sampling::default()
        },
        hot,
        Sampling { top_p: 0.7, ..hot },
    ]
}

fn prefill(session: &mut Session, prompt: &[u32]) -> Vec<f32> {
    session.reset();
    let logits = session.prefill(prompt, &mut |_| ControlFlow::Continue(()));
    logits.unwrap_or_else(|e| panic!("{e}")).to_vec()
}

/// Every token and its logits, from a prompt to the end of the context, fed back by hand; each token is what the twin
/// chooses from the logits.
fn by_hand(session: &mut Session, prompt: &[u32], settings: Sampling) -> (Vec<u32>, Vec<Vec<f32>>) {
    let rule = Rule::new(&settings);
    let mut chooser = Chooser::new(session.vocabulary() as usize);
    let mut sequence = prompt.to_vec();
    let mut all = vec![prefill(session, prompt)];
    loop {
        let token = session.chosen().unwrap_or_else(|e| panic!("{e}"));
        let recent = rule.window(&sequence, sequence.len());
        let position = sequence.len() as u32;
        let logits = all.last().expect("one at least");
        let twin = chooser.choose(&rule, logits, recent, position, &weigh);
        assert_eq!(twin, Ok(token), "{settings:?} at {position}");
        sequence.push(token);
        if position == session.context() {
            return (sequence.split_off(prompt.len()), all);
        }
        let logits = session.step(token).unwrap_or_else(|e| panic!("{e}"));
        all.push(logits.to_vec());
    }
}

/// Decodes in every way, by every kind of settings, and compares.
pub fn decoding_is_stepping(session: &mut Session, prompt: &[u32], place: &str) {
    for settings in all_settings() {
        let place = &format!("{place}, {settings:?}");
        session
            .set_sampling(&settings)
            .unwrap_or_else(|e| panic!("{e}"));
        let (tokens, logits) = by_hand(session, prompt, settings);

        for eager in [false, true] {
            session.set_eager(eager);
            prefill(session, prompt);
            let mut decode = session.decode(usize::MAX).unwrap_or_else(|e| panic!("{e}"));
            let mut got = Vec::new();
            while let Some(token) = decode.next().unwrap_or_else(|e| panic!("{e}")) {
                got.push(token);
                // What is said to be there is there.
                for _ in 0..decode.ready() {
                    got.extend(decode.next().unwrap_or_else(|e| panic!("{e}")));
                }
            }
            assert_eq!(got, tokens, "{place}");
            let last = decode.end().unwrap_or_else(|e| panic!("{e}")).to_vec();
            assert_same_bits(&last, &logits[logits.len() - 1], place);
            assert_eq!(session.position(), session.context(), "{place}");
        }
        session.set_eager(false);

        prefill(session, prompt);
        let mut decode = session
            .decode_with_logits(6)
            .unwrap_or_else(|e| panic!("{e}"));
        for (want, logits) in tokens.iter().zip(&logits).take(6) {
            let got = decode.next().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(got, Some(*want), "{place}");
            assert_same_bits(decode.logits(), logits, place);
        }
        assert_eq!(decode.next().unwrap_or_else(|e| panic!("{e}")), None);

        // Ended by the host where more is queued: the sequence and the logits are those of the token before.
        for kept in [1, 4] {
            prefill(session, prompt);
            let mut decode = session.decode(usize::MAX).unwrap_or_else(|e| panic!("{e}"));
            for want in &tokens[..kept] {
                let got = decode.next().unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(got, Some(*want), "{place}");
            }
            let last = decode.end().unwrap_or_else(|e| panic!("{e}")).to_vec();
            assert_same_bits(&last, &logits[kept - 1], place);
            assert_eq!(session.position() as usize, prompt.len() + kept - 1);
            let next = session.step(tokens[kept - 1]);
            let next = next.unwrap_or_else(|e| panic!("{e}")).to_vec();
            assert_same_bits(&next, &logits[kept], place);
            assert_eq!(session.chosen().ok(), Some(tokens[kept]), "{place}");
        }

        // Left without a word, and cut back: what was queued changes nothing before it, nor what follows.
        prefill(session, prompt);
        let mut decode = session.decode(usize::MAX).unwrap_or_else(|e| panic!("{e}"));
        for _ in 0..3 {
            decode.next().unwrap_or_else(|e| panic!("{e}"));
        }
        session.truncate(prompt.len() as u32 - 1);
        let nothing = session.chosen();
        assert!(matches!(nothing, Err(SessionError::NothingChosen)));
        let first = prefill(session, prompt);
        assert_same_bits(&first, &logits[0], place);
        let mut decode = session.decode(5).unwrap_or_else(|e| panic!("{e}"));
        for want in &tokens[..5] {
            let got = decode.next().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(got, Some(*want), "{place}");
        }
        assert_eq!(decode.next().unwrap_or_else(|e| panic!("{e}")), None);
        assert_eq!(session.chosen().ok(), Some(tokens[4]), "{place}");
    }
}
