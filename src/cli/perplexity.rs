//! `perplexity`: how well the model predicts a text, by llama.cpp's method, so that figures compare.
//!
//! The text's tokens are cut into chunks of the context's length; what does not fill a chunk is left out. Each chunk is
//! computed from an empty context. If the model wants a token that begins every text, it takes the place of the chunk's
//! first. Of a chunk with `S` tokens, those at `S/2 … S−2` are scored by how likely they make the token that follows, so
//! that every scored token has half a context before it. The perplexity is `exp` of the mean negative log-likelihood.

use serde::Serialize;

use super::args::{Format, PerplexityArgs};
use super::config::Config;
use super::error::CliError;
use super::load::{self, Wanted};
use super::progress::Progress;
use super::{interrupt, output, text};
use crate::model::Logits;
use crate::runtime::Session;
use crate::tokenizer::Encode;

/// The chunk length that llama.cpp's tool takes unless told otherwise.
const DEFAULT_CONTEXT: usize = 512;

#[derive(Serialize)]
struct Json {
    perplexity: f64,
    standard_error: Option<f64>,
    tokens_scored: usize,
    chunks: usize,
    context: usize,
}

pub fn run(args: &PerplexityArgs) -> Result<(), CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    let context = *config.context.get_or_insert(DEFAULT_CONTEXT);
    if context < 4 {
        let name = config.context_name();
        let text = format!("{name} {context}: perplexity needs a context of at least 4 tokens");
        return Err(CliError::Input(text));
    }
    let text = text::read(&args.file)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);

    let progress = Progress::new(args.output.quiet);
    let wanted = Wanted {
        context_at_least: 0,
        logits: Logits::All,
        progress: &progress,
    };
    let mut loaded = load::load(&config, &wanted)?;
    // Special tokens in the text are read as plain text: what is measured is the file as it stands.
    let options = Encode {
        special: false,
        bos: true,
    };
    let name = args.file.display().to_string();
    text::note_lost(&loaded.tokenizer, &name, text, args.output.quiet);
    let tokens = loaded
        .tokenizer
        .encode(text, options)
        .map_err(CliError::input)?;
    let first = loaded
        .tokenizer
        .bos()
        .filter(|_| loaded.tokenizer.adds_bos());
    let available = tokens.len() / context;
    if available == 0 {
        let file = args.file.display();
        let text = format!(
            "{file}: {} tokens do not fill one chunk of {context} ({})",
            tokens.len(),
            config.context_name()
        );
        return Err(CliError::Input(text));
    }
    let count = args.chunks.map_or(available, |most| most.min(available));

    interrupt::catch()?;
    let bar = progress.steps("chunks", count as u64);
    let mut score = Score::default();
    let mut done = 0;
    for chunk in tokens.chunks_exact(context).take(count) {
        let mut chunk = chunk.to_vec();
        chunk[0] = first.unwrap_or(chunk[0]);
        let Some(scored) = scored(&mut loaded.session, &chunk, score)? else {
            break;
        };
        score = scored;
        done += 1;
        bar.add(1);
        output::note(
            args.output.quiet,
            &format!("[{done}/{count}] {}", score.sentence()),
        );
    }
    drop(bar);
    if score.count > 0 {
        report(args.output.format, &score, done, context)?;
    }
    if done < count {
        return Err(CliError::Interrupted);
    }
    Ok(())
}

/// Tokens that are computed before Ctrl-C is asked about: the longest that is computed at once.
const PART: usize = 512;

/// `score` with the predictions of the second half of a chunk; `None` after Ctrl-C.
fn scored(
    session: &mut Session,
    chunk: &[u32],
    mut score: Score,
) -> Result<Option<Score>, CliError> {
    let wanted = chunk.len() / 2..chunk.len() - 1;
    session.reset();
    for (part, tokens) in chunk.chunks(PART).enumerate() {
        if interrupt::asked() {
            return Ok(None);
        }
        session
            .prefill_each(tokens, &mut |row, logits| {
                let row = part * PART + row;
                if wanted.contains(&row) {
                    score.add(logits, chunk[row + 1]);
                }
            })
            .map_err(CliError::runtime)?;
    }
    Ok(Some(score))
}

fn report(format: Format, score: &Score, chunks: usize, context: usize) -> Result<(), CliError> {
    let perplexity = score.perplexity();
    if !perplexity.is_finite() {
        let text = format!("the perplexity is {perplexity}: the model's logits are not usable");
        return Err(CliError::Runtime(text));
    }
    match format {
        Format::Json => output::json(&Json {
            perplexity,
            standard_error: score.standard_error(),
            tokens_scored: score.count,
            chunks,
            context,
        }),
        Format::Text => output::text(&format!(
            "perplexity: {}, {} tokens scored in {chunks} chunks of {context}\n",
            score.sentence(),
            score.count
        )),
    }
}

/// The running estimate.
#[derive(Clone, Copy, Default)]
struct Score {
    count: usize,
    sum: f64,
    sum_of_squares: f64,
}

impl Score {
    /// Scores one prediction: `logits [V]` for what turned out to be `next`.
    fn add(&mut self, logits: &[f32], next: u32) {
        let nll = negative_log_likelihood(logits, next);
        self.count += 1;
        self.sum += nll;
        self.sum_of_squares += nll * nll;
    }

    fn perplexity(&self) -> f64 {
        (self.sum / self.count as f64).exp()
    }

    /// Of the perplexity, from the spread of the scores; none for a single score.
    fn standard_error(&self) -> Option<f64> {
        let count = self.count as f64;
        let mean = self.sum / count;
        let variance = self.sum_of_squares / count - mean * mean;
        (self.count > 1 && variance >= 0.0)
            .then(|| self.perplexity() * (variance / (count - 1.0)).sqrt())
    }

    fn sentence(&self) -> String {
        match self.standard_error() {
            Some(error) => format!("{:.4} ± {error:.4}", self.perplexity()),
            None => format!("{:.4}", self.perplexity()),
        }
    }
}

/// `−ln softmax(logits)[next]`, in f64. Four sums run side by side, as this takes as long as a layer otherwise.
fn negative_log_likelihood(logits: &[f32], next: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f64; 4];
    for part in logits.chunks(4) {
        for (sum, &logit) in sums.iter_mut().zip(part) {
            *sum += f64::from((logit - max).exp());
        }
    }
    let sum: f64 = sums.iter().sum();
    sum.ln() - f64::from(logits[next as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_formulas() {
        let check = |logits: &[f32], next: u32, probability: f64| {
            let nll = negative_log_likelihood(logits, next);
            assert!((nll + probability.ln()).abs() < 1e-6, "{nll}");
        };
        check(&[0.0; 8], 3, 1.0 / 8.0);
        check(&[1000.0, 1000.0], 1, 0.5);
        check(&[0.0, 3f32.ln(), 0.0, 0.0, 0.0], 1, 3.0 / 7.0);

        let mut score = Score::default();
        score.add(&[0.0; 4], 0);
        assert_eq!(score.standard_error(), None);
        score.add(&[0.0; 16], 0);
        assert!((score.perplexity() - 8.0).abs() < 1e-6);
        let spread = (16f64.ln() - 4f64.ln()) / 2.0;
        let error = score.standard_error().unwrap();
        assert!((error - 8.0 * spread).abs() < 1e-6, "{error}");
    }

    #[test]
    fn nan_logits_are_seen() {
        assert!(negative_log_likelihood(&[f32::NAN, 1.0], 1).is_nan());
    }
}
