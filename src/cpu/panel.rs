//! What every matrix kernel of this backend is: a function from a *panel* of 16 weight rows, or a few of them, and some
//! activation rows to a tile of sums. The caller walks panels, shares them among threads, and applies the epilogue to each tile.

/// Weight rows, and therefore output columns, in a panel.
pub const LANES: usize = 16;

/// Computes `tile[p][r][j] = Σ_k x[r, k] · w[16·p + j, k]` for each panel `p`, `r < rows` and `j < 16`.
///
/// `lanes` real rows of weights make `lanes / 16` panels, rounded up, at most [`PanelKernel::panels`], one after the other
/// in memory. Lanes past the real rows receive some finite value that nobody may use. How many panels share a call
/// changes no bit of a sum.
///
/// The arguments: the first panel; the real rows; `k`, the columns; the first activation row and the bytes from one row to
/// the next; the activation rows; the tile, `[panels][rows][16]`, 64-byte aligned; scratch, [`PanelKernel::scratch_bytes`] long,
/// 64-byte aligned, this thread's own.
///
/// # Safety
/// The machine must run the instruction set the kernel was asked for; `w` must be whole panels in the layout of
/// the kernel's type for `k` columns; `x` must hold `rows` rows of `k` columns in the kernel's activation format; `tile` and
/// `scratch` must be as long and as aligned as said above, and no other thread may touch them meanwhile.
pub type PanelFn = unsafe fn(
    w: *const u8,
    lanes: usize,
    k: usize,
    x: *const u8,
    x_stride: usize,
    rows: usize,
    tile: *mut f32,
    scratch: *mut u8,
);

/// Panels far apart that one row is multiplied by side by side.
///
/// A core's prefetchers follow several streams, and fetch further ahead in all of them than in one. GB/s that two cores of
/// a Zen 3 machine read of 144 MB in huge pages, each its half, in turns of 256 bytes; the upper quartile of 60 rounds in
/// which all ways took turns, and the best:
///
/// | streams | 1, asking for 8 KB ahead | 1 | 2 | 4 | 8 | 4, asking ahead |
/// |---|---|---|---|---|---|---|
/// | upper quartile | 19.3 | 22.1 | 22.7 | 24.0 | 19.8 | 19.4 |
/// | best | 22.4 | 25.0 | 26.2 | 27.5 | 25.2 | 23.2 |
///
/// Streams within 5 KB of each other gain nothing, within 24 KB as much as others. What lines are kept in the last-level
/// cache from one token to the next, by asking for all others nontemporally, is nothing: other machines share it.
///
/// Decoded tokens a second of SmolLM2-135M there, medians and bests of 8 such rounds: Q8_0 123 and 147 (103 and 126 panel
/// by panel), F16 75 and 92 (66 and 68), Q4_0 191 and 220 (205 and 213), Q6_K 108 and 118 (119 and 139): it is for types of
/// at least a byte a weight. Two cores of an Emerald Rapids server, asking ahead as before: Q8_0 +5 %, F16 +14 %.
pub const STREAMS: usize = 4;

/// Computes `tiles[s][j] = Σ_k x[k] · w[s][j, k]` for each of the panels at `w` and `j < 16`: the bits of a [`PanelFn`] for
/// one row.
///
/// The arguments: the panels, all of 16 rows; `k`, the columns; the activation row; where each panel's 16 sums go.
///
/// # Safety
/// As for [`PanelFn`].
pub type StreamsFn =
    unsafe fn(w: [*const u8; STREAMS], k: usize, x: *const u8, tiles: [*mut f32; STREAMS]);

/// A [`PanelFn`] and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct PanelKernel {
    /// The function.
    pub func: PanelFn,
    /// What is quicker for one row, if anything is.
    pub streams: Option<StreamsFn>,
    /// The most panels a call takes: as many as share the loads of an activation.
    pub panels: usize,
    /// Bytes of scratch one thread must lend it, 64-byte aligned.
    pub scratch_bytes: usize,
    /// What reports and profiles call it, such as `avx512`.
    pub name: &'static str,
}
