//! The loader at its boundary: what other readers of GGUF agree on, and what must be refused and how.

#[path = "loader/broken.rs"]
mod broken;
#[path = "support/gguf_writer.rs"]
mod gguf_writer;
#[path = "loader/peers.rs"]
mod peers;
