//! What several test files share: oracles, toy models, randomness. No test uses all of it.
#![allow(dead_code, unused_imports)]

pub mod command;
pub mod compare;
pub mod decode;
pub mod family;
pub mod gguf_writer;
pub mod oracle;
pub mod planes;
pub mod rng;
pub mod skip;
pub mod toy;
