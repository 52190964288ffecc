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

/// A [`PanelFn`] and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct PanelKernel {
    /// The function.
    pub func: PanelFn,
    /// The most panels a call takes: as many as share the loads of an activation.
    pub panels: usize,
    /// Bytes of scratch one thread must lend it, 64-byte aligned.
    pub scratch_bytes: usize,
    /// What reports and profiles call it, such as `avx512`.
    pub name: &'static str,
}
