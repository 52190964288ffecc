//! One unit: some queries of one K/V head over a range of positions.

use super::few;
use super::stored::{Q8, Stored};
use crate::cpu::isa::Isa;
use crate::cpu::kv::HeadRows;
use crate::cpu::simd::{ElementF16, ElementF32, Lanes, entry, exp};
use crate::cpu::tile::{Rows, Start, multiply};
use crate::graph::KvType;

/// Positions to a tile: 64 · D f32 of K and as many of V are 32 KiB at D = 64.
pub(super) const TILE: usize = 64;

/// What a unit computes.
pub(super) struct Unit {
    /// Query `(r, h)` is at `r · q_stride + h · d`, h < group.
    pub(super) q: *const f32,
    pub(super) q_stride: usize,
    pub(super) rows: usize,
    pub(super) group: usize,
    pub(super) d: usize,
    /// The K/V head's rows, from position 0.
    pub(super) k: HeadRows,
    pub(super) v: HeadRows,
    /// The position of row 0.
    pub(super) base: usize,
    /// The positions walked: not empty, and each seen by some row.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) window: Option<usize>,
    pub(super) scale: f32,
}

/// Where things lie in the scratch, in f32 from its start. Query `(r, h)` is number `r · group + h` in each.
pub(super) struct Layout {
    /// D rounded up to whole vectors.
    d: usize,
    queries: usize,
}

impl Layout {
    pub(super) fn new(d: usize, queries: usize) -> Layout {
        Layout {
            d: d.next_multiple_of(16),
            queries: queries.next_multiple_of(16),
        }
    }
    /// The queries, scaled: `[queries][d]`.
    fn q(&self) -> usize {
        0
    }
    /// A tile of K, transposed: `[d][TILE]`.
    fn k(&self) -> usize {
        self.q() + self.queries * self.d
    }
    /// A tile of V: `[TILE][d]`.
    fn v(&self) -> usize {
        self.k() + self.d * TILE
    }
    /// Scores, then weights: `[queries][TILE]`.
    fn scores(&self) -> usize {
        self.v() + TILE * self.d
    }
    /// Weighted sums of V: `[queries][d]`.
    fn sums(&self) -> usize {
        self.scores() + self.queries * TILE
    }
    /// The running maximum of each query.
    fn peak(&self) -> usize {
        self.sums() + self.queries * self.d
    }
    /// What the sums shrink by when the maximum grows.
    fn shrink(&self) -> usize {
        self.peak() + self.queries
    }
    /// The running sum of weights of each query.
    fn total(&self) -> usize {
        self.shrink() + self.queries
    }
    pub(super) fn bytes(&self) -> usize {
        (self.total() + self.queries) * size_of::<f32>()
    }
}

entry! {
    fn flash_f32_fn(unit: *const Unit, scratch: *mut f32) = flash::<L, ElementF32>
}
entry! {
    fn flash_f16_fn(unit: *const Unit, scratch: *mut f32) = flash::<L, ElementF16>
}
entry! {
    fn flash_q8_fn(unit: *const Unit, scratch: *mut f32) = flash::<L, Q8>
}
entry! {
    /// Writes the unit's rows of the output from the scratch.
    pub(super) fn finish_fn(unit: *const Unit, scratch: *const f32, out: *mut f32, out_stride: usize) = finish::<L>
}
entry! {
    /// Writes the unit's partial results, a head every `stride` f32, from the scratch.
    pub(super) fn partial_fn(unit: *const Unit, scratch: *const f32, out: *mut f32, stride: usize) = partial::<L>
}

/// Leaves a unit's maxima, sums of weights and weighted sums in the scratch.
pub(super) type FlashFn = unsafe fn(unit: *const Unit, scratch: *mut f32);

/// The instance for a type of cache.
pub(super) fn flash_fn(isa: Isa, kv_type: KvType) -> FlashFn {
    match kv_type {
        KvType::F32 => flash_f32_fn(isa),
        KvType::F16 => flash_f16_fn(isa),
        KvType::Q8_0 => flash_q8_fn(isa),
    }
}

/// # Safety
/// As for [`Lanes`]; the unit's pointers are good for what it says; the scratch has its layout's size.
#[inline(always)]
unsafe fn flash<L: Lanes, C: Stored>(unit: *const Unit, scratch: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = &*unit;
        let queries = unit.rows * unit.group;
        let layout = Layout::new(unit.d, queries);
        let q = Rows {
            at: scratch.add(layout.q()).cast_const(),
            stride: layout.d,
        };
        let k = scratch.add(layout.k());
        let v = scratch.add(layout.v());
        let scores = Rows {
            at: scratch.add(layout.scores()),
            stride: TILE,
        };
        let weights = Rows {
            at: scores.at.cast_const(),
            stride: TILE,
        };
        let sums = Rows {
            at: scratch.add(layout.sums()),
            stride: layout.d,
        };
        let peak = scratch.add(layout.peak());
        let shrink = scratch.add(layout.shrink());
        let total = scratch.add(layout.total());

        scale_queries::<L>(unit, scratch.add(layout.q()), layout.d);
        for i in 0..layout.queries {
            *peak.add(i) = f32::NEG_INFINITY;
            *total.add(i) = 0.0;
        }
        let mut start = Start::Zero;
        for first in (unit.from..unit.to).step_by(TILE) {
            let live = TILE.min(unit.to - first);
            let padded = live.next_multiple_of(16);
            if queries <= few::FEW {
                few::scores::<L, C>(unit, (first, live), q, scores);
                weigh::<L>(unit, first, live, scores.at, (peak, shrink, total));
                few::weighted_sums::<L, C>(unit, (first, live), weights.at, sums, start);
                start = Start::Scaled(shrink);
                continue;
            }
            transpose_keys::<L, C>(unit, first, live, k);
            let k = Rows {
                at: k.cast_const(),
                stride: TILE,
            };
            multiply::<L>((queries, padded, unit.d), q, k, scores, Start::Zero);
            weigh::<L>(unit, first, live, scores.at, (peak, shrink, total));
            convert_values::<L, C>(unit, first, live, v, layout.d);
            let v = Rows {
                at: v.cast_const(),
                stride: layout.d,
            };
            multiply::<L>((queries, layout.d, live), weights, v, sums, start);
            start = Start::Scaled(shrink);
        }
    }
}

/// The queries, gathered and multiplied by the scale, so that the scores come out scaled.
#[inline(always)]
unsafe fn scale_queries<L: Lanes>(unit: &Unit, out: *mut f32, out_stride: usize) {
    // SAFETY: the caller of `flash` promises the queries; a padded row of the scratch takes whole vectors.
    unsafe {
        for r in 0..unit.rows {
            for h in 0..unit.group {
                let from = unit.q.add(r * unit.q_stride + h * unit.d);
                let to = out.add((r * unit.group + h) * out_stride);
                for i in (0..unit.d).step_by(L::N) {
                    let q = L::load_partial(from.add(i), unit.d - i);
                    q.mul(L::splat(unit.scale)).store(to.add(i));
                }
            }
        }
    }
}

/// Positions `first..first + live` of K as f32 [d][TILE]. Columns past the last live position repeat it: what lies
/// there in the cache may be anything, and a product with it would not be undone by a weight of 0.
#[inline(always)]
unsafe fn transpose_keys<L: Lanes, C: Stored>(
    unit: &Unit,
    first: usize,
    live: usize,
    out: *mut f32,
) {
    for col in (0..unit.d).step_by(L::N) {
        for p in (0..live.next_multiple_of(16)).step_by(L::N) {
            let read = p.min(live - 1);
            // SAFETY: positions below `first + live` are written; the scratch has [d rounded up to 16][TILE].
            unsafe {
                C::transpose::<L>(
                    unit.k,
                    (first + read) * unit.d + col,
                    unit.d,
                    live - read,
                    unit.d - col,
                    out.add(col * TILE + p),
                    TILE,
                );
            }
        }
    }
}

/// Positions `first..first + live` of V as f32 [live][d], padded with 0 to whole vectors.
#[inline(always)]
unsafe fn convert_values<L: Lanes, C: Stored>(
    unit: &Unit,
    first: usize,
    live: usize,
    out: *mut f32,
    padded: usize,
) {
    for p in 0..live {
        // SAFETY: positions below `first + live` are written; the scratch has [TILE][padded].
        unsafe {
            let from = (first + p) * unit.d;
            let to = out.add(p * padded);
            let mut i = 0;
            while i + 2 * L::N <= unit.d {
                let [even, odd] = C::pair::<L>(unit.v, from + i);
                even.store(to.add(i));
                odd.store(to.add(i + L::N));
                i += 2 * L::N;
            }
            while i < padded {
                let n = unit.d.saturating_sub(i);
                C::some::<L>(unit.v, from + i.min(unit.d), n).store(to.add(i));
                i += L::N;
            }
        }
    }
}

/// Turns a tile's scores into weights e^(score − maximum), 0 where a row does not see the position, and brings the
/// running maximum and sum up to date.
#[inline(always)]
unsafe fn weigh<L: Lanes>(
    unit: &Unit,
    first: usize,
    live: usize,
    scores: *mut f32,
    (peak, shrink, total): (*mut f32, *mut f32, *mut f32),
) {
    let padded = live.next_multiple_of(16);
    let queries = unit.rows * unit.group;
    // SAFETY: the scratch holds [queries][TILE] scores and as many of the rest as the layout says.
    unsafe {
        for r in 0..unit.rows {
            let position = unit.base + r;
            let end = live.min((position + 1).saturating_sub(first));
            let start = match unit.window {
                Some(window) => (position + 1).saturating_sub(window + first).min(end),
                None => 0,
            };
            for query in r * unit.group..(r + 1) * unit.group {
                let row = scores.add(query * TILE);
                for p in (0..start).chain(end..padded) {
                    *row.add(p) = f32::NEG_INFINITY;
                }
                let mut greatest = L::load(row);
                for p in (L::N..padded).step_by(L::N) {
                    greatest = greatest.max(L::load(row.add(p)));
                }
                *shrink.add(query) = greatest.greatest();
            }
        }
        for i in (0..queries).step_by(L::N) {
            let old = L::load(peak.add(i));
            let new = old.max(L::load(shrink.add(i)));
            // A row that has seen nothing yet has a maximum of −∞; any finite one gives it weights of 0.
            let new = new.max(L::splat(f32::MIN));
            new.store(peak.add(i));
            exp(old.sub(new)).store(shrink.add(i));
        }
        for query in 0..queries {
            let row = scores.add(query * TILE);
            let peak = L::splat(*peak.add(query));
            let mut sum = L::splat(0.0);
            for p in (0..padded).step_by(L::N) {
                let weight = exp(L::load(row.add(p)).sub(peak));
                weight.store(row.add(p));
                sum = sum.add(weight);
            }
            *total.add(query) = *total.add(query) * *shrink.add(query) + sum.sum();
        }
    }
}

/// # Safety
/// As for [`flash`], which has filled the scratch; `out` takes the rows.
#[inline(always)]
unsafe fn finish<L: Lanes>(
    unit: *const Unit,
    scratch: *const f32,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = &*unit;
        let layout = Layout::new(unit.d, unit.rows * unit.group);
        for r in 0..unit.rows {
            for h in 0..unit.group {
                let query = r * unit.group + h;
                let sums = scratch.add(layout.sums() + query * layout.d);
                let scale = L::splat(1.0 / *scratch.add(layout.total() + query));
                let to = out.add(r * out_stride + h * unit.d);
                for i in (0..unit.d).step_by(L::N) {
                    let y = L::load(sums.add(i)).mul(scale);
                    y.store_partial(to.add(i), unit.d - i);
                }
            }
        }
    }
}

/// # Safety
/// As for [`flash`], which has filled the scratch; `out` takes a partial result a head.
#[inline(always)]
unsafe fn partial<L: Lanes>(unit: *const Unit, scratch: *const f32, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = &*unit;
        let layout = Layout::new(unit.d, unit.group);
        for h in 0..unit.group {
            let sums = scratch.add(layout.sums() + h * layout.d);
            let to = out.add(h * stride);
            for i in (0..layout.d).step_by(L::N) {
                L::load(sums.add(i)).store(to.add(i));
            }
            *to.add(layout.d) = *scratch.add(layout.peak() + h);
            *to.add(layout.d + 1) = *scratch.add(layout.total() + h);
        }
    }
}
