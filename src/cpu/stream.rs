//! How fast this machine reads memory: the limit that decoding is measured against.

use super::CpuError;
use super::memory::Pages;
use super::simd::prefetch;
use super::team::Team;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const ROUNDS: usize = 12;

/// How far ahead of its use memory is asked for: as the matrix kernels do, without which a core
/// reads half of what it can and the limit would lie below what it limits.
const PREFETCH_BYTES: usize = 16 << 10;

/// The best of a few rounds in which the team reads `bytes` of memory once, in bytes a second.
/// The sum of what was read is kept alive, so that the reads happen.
pub fn read_bytes_per_second(team: &Team, bytes: usize) -> Result<f64, CpuError> {
    let mut pages = Pages::zeroed(bytes).map_err(|source| CpuError::Memory {
        what: "streaming test",
        bytes: bytes as u64,
        source,
    })?;
    pages.fill(1);
    let words = bytes / 8;
    // SAFETY: the pages are aligned, `words` 64-bit words long, and nobody writes them any more.
    let words = unsafe { std::slice::from_raw_parts(pages.base().cast::<u64>(), words) };
    let total = AtomicU64::new(0);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        team.run(&|worker| {
            let share = &words[worker.share(words.len())];
            // Eight sums, so that no addition waits for the one before.
            let mut sums = [0u64; 8];
            let mut chunks = share.chunks_exact(8);
            for chunk in &mut chunks {
                prefetch(chunk.as_ptr().cast::<u8>().wrapping_add(PREFETCH_BYTES));
                for (sum, word) in sums.iter_mut().zip(chunk) {
                    *sum = sum.wrapping_add(*word);
                }
            }
            let rest: u64 = chunks.remainder().iter().fold(0, |a, b| a.wrapping_add(*b));
            let sum = sums.iter().fold(rest, |a, b| a.wrapping_add(*b));
            total.fetch_add(sum, Ordering::Relaxed);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    std::hint::black_box(total.into_inner());
    Ok(bytes as f64 / best)
}
