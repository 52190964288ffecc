//! Stop strings in a stream of text.

/// Looks for stop strings in text that arrives in pieces. Text that may be the beginning of one is held back until it
/// is certain; what it gives out never overlaps a stop string.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text held back, after `given` bytes that the last call gave out.
    pending: String,
    given: usize,
}

impl StopMatcher {
    /// A matcher for `stops`; empty ones match nothing.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty());
        Self {
            stops: stops.cloned().collect(),
            pending: String::with_capacity(256),
            given: 0,
        }
    }

    /// Takes the next piece. Returns the text that is now certain, and whether a stop string follows it; after that,
    /// the matcher is done.
    pub fn push(&mut self, piece: &str) -> (&str, bool) {
        self.pending.drain(..self.given);
        self.pending.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| self.pending.find(stop));
        if let Some(at) = found.min() {
            self.given = at;
            return (&self.pending[..at], true);
        }
        let held = self.stops.iter().map(|stop| overlap(&self.pending, stop));
        self.given = self.pending.len() - held.max().unwrap_or(0);
        (&self.pending[..self.given], false)
    }

    /// The text that was held back, once it is certain that no more comes.
    pub fn finish(&mut self) -> &str {
        self.pending.drain(..self.given);
        self.given = self.pending.len();
        &self.pending
    }
}

/// The length of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let fits = |&len: &usize| text.as_bytes()[text.len() - len..] == stop.as_bytes()[..len];
    (1..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of `step` characters.
    fn run(stops: &[&str], text: &str, step: usize) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = String::new();
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(step) {
            let piece: String = piece.iter().collect();
            let (certain, found) = matcher.push(&piece);
            out.push_str(certain);
            if found {
                return (out, true);
            }
        }
        out.push_str(matcher.finish());
        (out, false)
    }

    #[test]
    fn text_ends_before_the_first_stop_string_however_it_is_cut() {
        let check = |stops: &[&str], text: &str, expected: &str, found: bool| {
            for step in 1..=text.chars().count().max(1) {
                let result = run(stops, text, step);
                assert_eq!(result, (expected.to_string(), found), "{text} by {step}");
            }
        };
        check(&[], "hello", "hello", false);
        check(&[""], "hello", "hello", false);
        check(&["ll"], "hello", "he", true);
        check(&["lo!"], "hello", "hello", false);
        check(&["aab"], "aaaab", "aa", true);
        check(&["xyz", "el"], "hello xyz", "h", true);
        check(&["\n\n"], "a\nb\n\nc", "a\nb", true);
        check(&["é!"], "caféé!", "café", true);
        check(&["日本"], "日曜日本", "日曜", true);
        check(&["hello"], "hello", "", true);
    }
}
