//! Choosing the next token from a row of logits: what is promised, and the twin that every device is compared with.
//!
//! # Order of operations
//!
//! The order is llama.cpp's, so that settings tuned there carry over:
//!
//! 1. **Penalties.** Every distinct token among the last `repeat_last_n` of the sequence, prompt included, has its logit
//!    divided by `repeat_penalty` if positive and multiplied by it otherwise; then `frequency_penalty` is subtracted as
//!    often as the token is there, and `presence_penalty` once.
//! 2. **Check.** A NaN or `+∞` logit is an error that names its index; so is a row that is `−∞` throughout. `−∞` by
//!    itself is a legal way to forbid a token.
//! 3. **Greedy**, if `temperature` is 0: the largest logit, the lowest index on ties. No random number is used.
//! 4. **top-k**: the `top_k` largest logits survive (ties: lowest index).
//! 5. **top-p**: the shortest prefix of the survivors, in descending order, whose weight reaches `top_p` of theirs.
//!    Weights are those of temperature 1 over the survivors of step 4.
//! 6. **min-p**: tokens whose logit is at most `ln min_p` below the largest.
//! 7. **Temperature** and one draw: in order of index, the first token at which the cumulative weight of the survivors
//!    exceeds a number drawn below their total.
//!
//! # The same token on every device
//!
//! From the same logits, settings and position every device chooses the same token, by construction:
//!
//! - A token's weight is an integer, `⌊2⁴⁰ · e^((x − max) / T)⌋` ([`weight()`]): the exponential is one fixed polynomial
//!   of fused multiply-adds, which IEEE defines to the last bit, and the rest is shifts. Integers add up to the same sum
//!   in any order, so that a thousand lanes and one thread agree. A weight is 0 below e^−27.7; a vocabulary of 262,144
//!   such tokens together weighs less than 2.4·10⁻⁷ of the likeliest.
//! - Penalties are a division or a multiplication and two additions, with every rounding fixed ([`Rule::penalised`]).
//! - Thresholds are computed once, on the host ([`Rule`]): `1 / T`, `ln min_p`, and `top_p` as a fraction of 2⁶⁴, of
//!   which a device takes the upper half of a product of integers.
//! - Random words are numbered: the token for position `p` takes word `p` of the seed's sequence ([`word()`]).
//!
//! # What a seed means
//!
//! The generator is ChaCha8, keyed by the seed's eight little-endian bytes followed by 24 zero bytes, stream 0: a
//! published cipher, so that a seed means the same text in every version and on every device. Its output is taken as
//! 64-bit words; word `p` times the total weight, divided by 2⁶⁴, is the number drawn for position `p`. The same
//! sequence with the same seed goes on with the same text, however often it was cut back and computed again.

mod choose;
mod logprobs;
mod rule;
mod scan;
mod settings;
#[cfg(test)]
mod tests;
mod weight;

pub use choose::{Chooser, Weigh};
pub use logprobs::top_logprobs;
pub use rule::{RULE_WORDS, Rule, word};
pub use settings::{SamplerError, Sampling};
pub use weight::{ONE, share, weigh, weight};
