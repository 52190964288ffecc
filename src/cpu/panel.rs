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

/// The most panels far apart that one row is multiplied by side by side.
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
/// cache from one token to the next, by asking for all others nontemporally, is nothing: other machines share it. Asking for
/// the head of each stream's next page only is a third slower than asking for nothing.
///
/// Decoded tokens a second of SmolLM2-135M there, medians and bests of 8 such rounds: Q8_0 123 and 147 (103 and 126 panel
/// by panel), F16 75 and 92 (66 and 68), Q4_0 191 and 220 (205 and 213), Q6_K 108 and 118 (119 and 139): four are for types
/// of at least a byte a weight. (Five and six are slower for Q8_0, and alike for F16.) Lighter types, whose arithmetic
/// takes about as long as memory, take two and ask ahead. GB/s of a loop with the arithmetic of Q4_0 over 70 MB, medians
/// and upper quartiles of 60 rounds:
///
/// | panels, asking ahead | 1 | 2 | 4 | 4, not asking | a plain read, 4 streams |
/// |---|---|---|---|---|---|
/// | two threads | 19.6, 21.0 | 21.3, 22.9 | 18.6, 20.1 | 17.0, 18.7 | 25.7, 30.5 |
/// | one thread | 10.4, 11.2 | 11.9, 12.9 | 11.0, 12.7 | 10.2, 11.2 | 16.8, 17.8 |
///
/// Two cores of an Emerald Rapids server, four panels, asking ahead as before: Q8_0 +5 %, F16 +14 %; two panels of lighter
/// types: Q4_0 −16 %, Q4_K −15 %, Q6_K −6 %, so that AVX-512 takes them one by one.
pub const STREAMS: usize = 4;

/// Computes `tiles[s][j] = Σ_k x[k] · w[s][j, k]` for each of the panels at `w` and `j < 16`: the bits of a [`PanelFn`] for
/// one row.
///
/// The arguments: the panels, all of 16 rows; `k`, the columns; the activation row; where each panel's 16 sums go.
///
/// # Safety
/// As for [`PanelFn`].
pub type StreamsFn = unsafe fn(w: &[*const u8], k: usize, x: *const u8, tiles: &[*mut f32]);

/// A [`StreamsFn`], and the most panels that it is given: from two to [`STREAMS`].
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// The function.
    pub func: StreamsFn,
    /// The most panels of a call.
    pub most: usize,
}

/// `$body` with `$w` and `$tiles` as arrays of `$n` panels, a constant.
macro_rules! by_count {
    ($w:ident, $tiles:ident, $n:ident => $body:expr) => {
        by_count!(@ $w, $tiles, $n, $body, 2 3 4)
    };
    (@ $w:ident, $tiles:ident, $n:ident, $body:expr, $($count:literal)*) => {
        match $w.len() {
            $($count => {
                const $n: usize = $count;
                let $w: [_; $n] = $w.try_into().expect("as many panels");
                let $tiles: [_; $n] = $tiles.try_into().expect("as many tiles as panels");
                $body
            })*
            panels => unreachable!("{panels} panels side by side"),
        }
    };
}
pub(crate) use by_count;

/// A [`PanelFn`] and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct PanelKernel {
    /// The function.
    pub func: PanelFn,
    /// What is quicker for one row, if anything is.
    pub streams: Option<Streams>,
    /// The most panels a call takes: as many as share the loads of an activation.
    pub panels: usize,
    /// Bytes of scratch one thread must lend it, 64-byte aligned.
    pub scratch_bytes: usize,
    /// What reports and profiles call it, such as `avx512`.
    pub name: &'static str,
}
