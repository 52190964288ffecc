//! Causal attention of query heads that share key/value heads, over a cache of f32, f16 or Q8_0, without storing the scores.
//!
//! out [R, H, D] = softmax(scale · q [R, H, D] · Kᵀ) · V, with K and V [G, S, D] and H/G query heads to a K/V head. Row
//! `r` stands at position `base + r` and sees the positions up to its own; with a window, the last `window` of them.
//!
//! One algorithm serves prompt and decode (`flash.rs`): the queries that share a K/V head form one small matrix, which
//! walks the positions tile by tile with a running maximum, sum and weighted sum, so that a tile of K and V is converted
//! once for all of them.
//!
//! - Prompt: a unit is a K/V head and [`AttentionShape::row_tile`] rows; it writes its rows of the output.
//! - Decode: one row gives too few units, so the context is cut into splits, of a length that only the capacity decides;
//!   a unit is a K/V head and a split, and writes a partial result a query head. [`attention_combine`] merges them in
//!   the order of positions, so the result does not depend on the number of threads.

mod combine;
mod few;
mod flash;
mod stored;
#[cfg(test)]
mod tests;

use super::isa::Isa;
use super::kv::CacheShape;
use crate::program::ATTENTION_UNIT_QUERIES;
use flash::{Layout, Unit};

/// Queries that a unit of a prompt gathers.
const QUERIES: usize = ATTENTION_UNIT_QUERIES as usize;

/// What is the same at every position: all that a recording freezes.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// H: query heads, a multiple of the cache's heads.
    pub heads: usize,
    /// G, S and D of the cache; D is at most 256.
    pub cache: CacheShape,
    /// What scores are multiplied by, usually 1/√D.
    pub scale: f32,
    /// How many positions a row sees, its own included; all before it when absent.
    pub window: Option<usize>,
    /// Positions to a split in decode.
    pub split_len: usize,
}

impl AttentionShape {
    /// Query heads to a K/V head.
    pub fn group(&self) -> usize {
        self.heads / self.cache.heads
    }

    /// Units of a prompt of `rows` rows.
    pub fn prompt_units(&self, rows: usize) -> usize {
        self.cache.heads * rows.div_ceil(self.row_tile())
    }

    /// Units of one row at `position`.
    pub fn decode_units(&self, position: usize) -> usize {
        self.cache.heads * self.live_splits(position).len()
    }

    /// Rows to a unit of a prompt.
    pub fn row_tile(&self) -> usize {
        (QUERIES / self.group()).max(1)
    }

    /// Splits the capacity is cut into.
    pub fn splits(&self) -> usize {
        self.cache.capacity.div_ceil(self.split_len)
    }

    /// f32 that decode's partial results take.
    pub fn partials_len(&self) -> usize {
        self.heads * self.splits() * self.partial_stride()
    }

    /// Bytes of scratch a thread lends, 64-byte aligned.
    pub fn scratch_bytes(&self) -> usize {
        Layout::new(self.cache.head, self.row_tile() * self.group()).bytes()
    }

    /// A partial result: the weighted sum (D rounded up to 16), the maximum, the sum, and padding to whole lines.
    fn partial_stride(&self) -> usize {
        self.cache.head.next_multiple_of(16) + 16
    }

    /// The first position that a row at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window
            .map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The splits that hold a position seen from `position`.
    fn live_splits(&self, position: usize) -> std::ops::Range<usize> {
        self.first_seen(position) / self.split_len..position / self.split_len + 1
    }
}

/// Attention of `rows` rows from position `base` on: `q [rows][H·D]` and `out [rows][H·D]`, `q_stride` and `out_stride`
/// f32 from row to row. Does the `units` named, each below [`AttentionShape::prompt_units`]; any few that follow one
/// another cost about as much as any others.
///
/// # Safety
/// The machine runs `isa`; `q` is readable and `out` writable in those sizes; `k` and `v` hold a cache of the shape whose
/// positions `..base + rows` are written (later ones are not read); `base + rows ≤ capacity`; `scratch` is
/// [`AttentionShape::scratch_bytes`] long, 64-byte aligned, and this thread's own. Threads with different units may run at
/// once.
#[allow(clippy::too_many_arguments)]
pub unsafe fn attention_prompt(
    isa: Isa,
    shape: &AttentionShape,
    (q, q_stride): (*const f32, usize),
    k: *const u8,
    v: *const u8,
    base: usize,
    rows: usize,
    (out, out_stride): (*mut f32, usize),
    units: impl Iterator<Item = usize>,
    scratch: *mut u8,
) {
    debug_assert!(base + rows <= shape.cache.capacity);
    let flash = flash::flash_fn(isa, shape.cache.kv_type);
    let finish = flash::finish_fn(isa);
    let (group, d, row_tile) = (shape.group(), shape.cache.head, shape.row_tile());
    let tiles = rows.div_ceil(row_tile);
    for unit in units {
        let (i, g) = (unit / shape.cache.heads, unit % shape.cache.heads);
        // Later rows see more: the first tile, the last, the second, the last but one.
        let tile = match i % 2 {
            0 => i / 2,
            _ => tiles - 1 - i / 2,
        };
        let row = tile * row_tile;
        let count = row_tile.min(rows - row);
        // SAFETY: rows `row..row + count` and K/V head `g` exist; the positions are below `base + rows`.
        unsafe {
            let at = g * group * d;
            let unit = Unit {
                q: q.add(row * q_stride + at),
                q_stride,
                rows: count,
                group,
                d,
                k: shape.cache.head_rows(k, g),
                v: shape.cache.head_rows(v, g),
                base: base + row,
                from: shape.first_seen(base + row),
                to: base + row + count,
                window: shape.window,
                scale: shape.scale,
            };
            flash(&unit, scratch.cast());
            finish(
                &unit,
                scratch.cast(),
                out.add(row * out_stride + at),
                out_stride,
            );
        }
    }
}

/// The partial results of one row at `position`: `q [H·D]`, `partials` [`AttentionShape::partials_len`] f32. Does the
/// `units` named (K/V head, split), each below [`AttentionShape::decode_units`]; splits past the position cost nothing.
///
/// # Safety
/// As for [`attention_prompt`] with one row; `partials` is writable, and read by [`attention_combine`] only after every
/// unit is done.
#[allow(clippy::too_many_arguments)]
pub unsafe fn attention_decode(
    isa: Isa,
    shape: &AttentionShape,
    q: *const f32,
    k: *const u8,
    v: *const u8,
    position: usize,
    partials: *mut f32,
    units: impl Iterator<Item = usize>,
    scratch: *mut u8,
) {
    debug_assert!(position < shape.cache.capacity);
    let flash = flash::flash_fn(isa, shape.cache.kv_type);
    let partial = flash::partial_fn(isa);
    let (group, d) = (shape.group(), shape.cache.head);
    let live = shape.live_splits(position);
    for unit in units {
        let (g, split) = (unit / live.len(), live.start + unit % live.len());
        // SAFETY: K/V head `g` exists and the split's positions end at `position`.
        unsafe {
            let unit = Unit {
                q: q.add(g * group * d),
                q_stride: 0,
                rows: 1,
                group,
                d,
                k: shape.cache.head_rows(k, g),
                v: shape.cache.head_rows(v, g),
                base: position,
                from: shape.first_seen(position).max(split * shape.split_len),
                to: ((split + 1) * shape.split_len).min(position + 1),
                window: shape.window,
                scale: shape.scale,
            };
            flash(&unit, scratch.cast());
            let stride = shape.partial_stride();
            let at = (g * group * shape.splits() + split) * stride;
            partial(
                &unit,
                scratch.cast(),
                partials.add(at),
                shape.splits() * stride,
            );
        }
    }
}

/// Merges the partial results of a row at `position` into `out [H·D]`, heads of the `part`-th of `parts` shares.
///
/// # Safety
/// The machine runs `isa`; `partials` holds what [`attention_decode`] wrote, every part of it, for the same shape and
/// position; `out` holds H·D writable f32.
pub unsafe fn attention_combine(
    isa: Isa,
    shape: &AttentionShape,
    partials: *const f32,
    position: usize,
    out: *mut f32,
    (part, parts): (usize, usize),
) {
    let combine = combine::combine_fn(isa);
    let (d, stride) = (shape.cache.head, shape.partial_stride());
    let live = shape.live_splits(position);
    for head in super::team::share(shape.heads, part, parts) {
        // SAFETY: the head's live splits are written, which the caller promises.
        unsafe {
            let first = partials.add((head * shape.splits() + live.start) * stride);
            combine(first, live.len(), stride, out.add(head * d), d);
        }
    }
}
