//! How a model's authors would have it sampled.

use crate::loader::{LoadError, Metadata};
use crate::sampler::Sampling;

/// [`Sampling::default`], with what the model file recommends: `general.sampling.temp`, `top_k`, `top_p`, `min_p`,
/// `penalty_repeat` and `penalty_last_n`, where llama.cpp's converters put a checkpoint's `generation_config.json`.
///
/// # Errors
/// [`LoadError`] if a value has the wrong type or sign.
pub fn recommended(metadata: &Metadata) -> Result<Sampling, LoadError> {
    let standard = Sampling::default();
    let number = |name: &str| metadata.f32(&format!("general.sampling.{name}"));
    let top_k = metadata.u32("general.sampling.top_k")?;
    let last_n = metadata.i32("general.sampling.penalty_last_n")?;
    Ok(Sampling {
        temperature: number("temp")?.unwrap_or(standard.temperature),
        top_k: top_k.unwrap_or(standard.top_k),
        top_p: number("top_p")?.unwrap_or(standard.top_p),
        min_p: number("min_p")?.unwrap_or(standard.min_p),
        repeat_penalty: number("penalty_repeat")?.unwrap_or(standard.repeat_penalty),
        // No model file recommends these.
        frequency_penalty: standard.frequency_penalty,
        presence_penalty: standard.presence_penalty,
        // A negative number stands for the whole context there; no context is longer than this.
        repeat_last_n: match last_n {
            None => standard.repeat_last_n,
            Some(n) => usize::try_from(n).unwrap_or(1 << 24),
        },
        seed: standard.seed,
    })
}
