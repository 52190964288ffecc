//! `greta_infer` turns *one decode step* of a Llama-family model into a graph, plans every buffer
//! once, records the step once, and replays the recording for every token.
//!
//! ```text
//! Definition ─→ Graph ─→ (passes) ─→ Plan ─→ Program ─→ Recording ─→ replay, replay, replay …
//! graphs/*.toml  IR      fuse, DCE   arena    launches   a GPU graph
//!                                    offsets  + cost     or the CPU's task list
//! ```
//!
//! Every noun is a value that can be printed, compared and tested without a device, and every
//! arrow is a free function:
//!
//! | noun | what it is | room |
//! |---|---|---|
//! | [`Definition`](model::Definition) | a family's step as data: nodes and weight names | [`model`] |
//! | [`Graph`](graph::Graph) | typed nodes over `[rows, cols]` values, verified | [`graph`] |
//! | passes | Graph → Graph, each reporting how often it fired and why not | [`pass`] |
//! | [`Plan`](plan::Plan) | an arena offset for every temporary, proved | [`plan`] |
//! | [`Program`](program::Program) | launches with resolved operands and their costs | [`program`] |
//! | [`Recording`](runtime::Recording) | the program resolved to addresses on a device | [`cpu`], [`gpu`], [`runtime`] |
//!
//! A [`Step`](program::Step) (tokens and a position) is the only thing that differs between two
//! replays; everything else is frozen when the program is recorded. A decode step ends by choosing a
//! token and makes it the next step itself, so that a text needs the host only to collect. Prompts use the same pipeline
//! with `R` rows instead of one, as a program and a recording for each of a few chunk sizes.
//!
//! # Who may import whom
//!
//! `dtype`, `hip`, `sampler` ← nothing; `graph`, `loader` ← `dtype`; `pass`, `plan` ← `graph`; `model` ← `graph`,
//! `loader`; `import` ← `loader`, `model`, `tokenizer`; `program` ← `graph`, `plan`; `cpu` ← `program`, `loader`,
//! `sampler`; `gpu` ← those and `hip`, `kernels`; `runtime` joins them; `generate` ← `runtime`, `tokenizer`,
//! `sampler`; `chat` ← `tokenizer`, `loader`, `sampler`; `cli` on top.
//!
//! [`loader`] reads what lies on the disk, GGUF files as a [`Checkpoint`](loader::Checkpoint). [`import`] presents a
//! Hugging Face folder as the same, and any checkpoint in another weight type.
//!
//! [`hip`] is HIP made safe, for AMD's driver and, call for call, NVIDIA's, both loaded when a device
//! is asked for. [`kernels`] holds what `build.rs` compiled from `kernels/*.hip`. [`gpu`] lowers a
//! program to kernel launches, captures them once into the driver's graph and replays that.
//!
//! # What never happens
//!
//! 1. `graph` knows no file, kernel or device; `plan` knows no op; `hip` knows no graph of ours;
//!    `loader` knows no model.
//! 2. A graph reaches the planner only as [`Verified`](graph::Verified), and offsets reach a
//!    program only as a checked [`Plan`](plan::Plan).
//! 3. After a session is built nothing is allocated a token, on the device or on the host.
//! 4. Whatever a recording points at is owned beside it and dropped after it.
//! 5. Weights, types or prompts that are not supported never run anyway: the error names the file,
//!    the tensor, both sides of the mismatch, and what is supported.
//! 6. Only `cli` prints or reads the environment; only `loader` and `cli` touch files. The one exception is the line with
//!    which a thread of a [`cpu`] team that has panicked ends the process.
//! 7. A recording is never updated, and holds kernels only: no copies, no fills. What was captured is
//!    counted against the program, and replays are counted.
//! 8. `unsafe` stands only in `cpu`, `gpu`, `hip`, `loader`'s memory map, where `cli` asks which signals are ignored, and
//!    where `runtime` promises to run one of the processor's recordings at a time; each block argues its case. `tests/style.rs` checks this and the first half of 6.
//!
//! # Adding a backend
//!
//! 1. A variant of [`Target`](program::Target), and what [`program::lower`] does differently for it.
//! 2. A room that resolves a [`Program`](program::Program) into launches on the device: kernels,
//!    addresses, the step's words in memory. It imports `program`, never `graph`'s builder.
//! 3. [`Backend`](runtime::Backend) and [`Recording`](runtime::Recording) for it, in `runtime`.
//! 4. Every kernel compared with its CPU twin and with the f64 oracle of the tests.

pub mod chat;
pub mod cli;
pub mod cpu;
pub mod dtype;
pub mod generate;
pub mod gpu;
pub mod graph;
pub mod hip;
pub mod import;
pub mod kernels;
pub mod loader;
pub mod model;
pub mod pass;
pub mod plan;
pub mod program;
pub mod runtime;
pub mod sampler;
pub mod tokenizer;
