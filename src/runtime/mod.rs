//! The runtime: a model becomes a session, and a session answers tokens with logits.
//!
//! [`compile()`] is the pipeline of the crate as one function of values: Graph, passes, Plan,
//! Program. A [`Backend`] holds what the recordings of one model share on a device and records
//! programs; [`Session`] compiles one decode step and a few sizes of prompt chunks, has them recorded,
//! and from then on only replays: with tokens and a position it is given, or ([`Decode`]) with those
//! that the device itself chose.

mod backend;
mod chunks;
mod compile;
mod contents;
mod decode;
mod device;
mod dump;
mod prefix;
pub mod recorded;
mod session;

pub use backend::{Backend, BackendError, Recording};
pub use compile::{
    CompileError, Compiled, FAST_ROWS, PromptPrecision, UnknownPrecision, compile, compile_with,
};
pub use contents::{Contents, Profile, RecordedNode};
pub use decode::Decode;
pub use device::{DeviceChoice, UnknownDevice};
pub use dump::{Format, Stage, dump};
pub use session::{Part, Report, Session, SessionError, SessionOptions};
