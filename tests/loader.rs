//! The loader at its boundary: what other readers of GGUF agree on, and what must be refused and how.

#[path = "support/gguf_writer.rs"]
mod gguf_writer;

#[path = "loader/broken.rs"]
mod broken;
#[path = "loader/damage.rs"]
mod damage;
#[path = "loader/desk.rs"]
mod desk;
#[path = "loader/foreign.rs"]
mod foreign;
#[path = "loader/peers.rs"]
mod peers;
#[path = "loader/real.rs"]
mod real;
