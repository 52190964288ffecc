//! How fast this machine reads memory: the limit that decoding is measured against.
//!
//! No one loop reads fastest everywhere, and a limit that some kernel exceeds is none, so several are tried and the best
//! counts. GB/s of one core of CPU time, huge pages, best of 12:
//!
//! | loop | 96 MB | 270 MB |
//! |---|---|---|
//! | 64-bit words, fetched 16 KB ahead (what was here) | 31.4 | 24.1 |
//! | vectors, not fetched ahead | 31.1 | 31.5 |
//! | … 4 KB ahead | 32.2 | 31.3 |
//! | … 8 KB | 30.8 | 30.0 |
//! | … 16 KB | 28.7 | 29.0 |
//! | vectors from two places in turn, 4 KB ahead | 30.5 | 30.0 |
//! | vectors from four places in turn, 2 KB ahead | 32.3 | 33.2 |
//!
//! (An EPYC with AVX-512, virtual. On a Granite Rapids core the fetches decide: without them it reads half.)

use super::CpuError;
use super::isa::Isa;
use super::memory::Pages;
use super::simd::{Lanes, entry, prefetch};
use super::team::Team;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Places that are read in turn, and how many bytes ahead memory is asked for.
const LOOPS: [(usize, usize); 5] = [(1, 0), (1, 4096), (1, 8192), (1, 16384), (4, 2048)];

/// Times each loop is run.
const ROUNDS: usize = 4;

/// f32 in a cache line.
const LINE: usize = 16;

entry! {
    /// The sum of `lines` cache lines at `p`, read from 1 or 4 `places` in turn.
    fn read_fn(p: *const f32, lines: usize, places: usize, ahead: usize) -> f32 = read::<L>
}

/// The best of a few rounds in which the team reads `bytes` of memory once, in bytes a second.
/// The sum of what was read is kept alive, so that the reads happen.
///
/// # Panics
/// When the machine does not run `isa`.
pub fn read_bytes_per_second(team: &Team, isa: Isa, bytes: usize) -> Result<f64, CpuError> {
    assert!(isa.is_available(), "this machine does not run {isa}");
    let mut pages = Pages::zeroed(bytes).map_err(|source| CpuError::Memory {
        what: "streaming test",
        bytes: bytes as u64,
        source,
    })?;
    pages.fill(1);
    let lines = bytes / (LINE * size_of::<f32>());
    let total = AtomicU64::new(0);
    let read = read_fn(isa);
    let mut best = f64::INFINITY;
    for (places, ahead) in [LOOPS; ROUNDS].into_iter().flatten() {
        let start = Instant::now();
        team.run(&|worker| {
            let share = worker.share(lines);
            let first = pages.base().cast::<f32>().wrapping_add(share.start * LINE);
            // SAFETY: the lines of the share lie in the pages, which nobody writes any more.
            let sum = unsafe { read(first, share.len(), places, ahead) };
            total.fetch_add(u64::from(sum.to_bits()), Ordering::Relaxed);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    std::hint::black_box(total.into_inner());
    Ok(bytes as f64 / best)
}

/// # Safety
/// As for [`Lanes`]; `lines` lines at `p` are readable.
#[inline(always)]
unsafe fn read<L: Lanes>(p: *const f32, lines: usize, places: usize, ahead: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        match places {
            4 => read_from::<L, 4>(p, lines, ahead),
            _ => read_from::<L, 1>(p, lines, ahead),
        }
    }
}

/// # Safety
/// As for [`read`].
#[inline(always)]
unsafe fn read_from<L: Lanes, const PLACES: usize>(
    p: *const f32,
    lines: usize,
    ahead: usize,
) -> f32 {
    let each = lines / PLACES;
    // SAFETY: the caller's promise; a prefetch may name any address.
    unsafe {
        // A sum for every vector of a line, so that no addition waits for the one before.
        let mut sums = [[L::splat(0.0); 2]; PLACES];
        for line in 0..each {
            for (place, sums) in sums.iter_mut().enumerate() {
                let at = p.add((place * each + line) * LINE);
                if ahead > 0 {
                    prefetch(at.cast::<u8>().wrapping_add(ahead));
                }
                for (v, sum) in sums.iter_mut().enumerate().take(LINE / L::N) {
                    *sum = sum.add(L::load(at.add(v * L::N)));
                }
            }
        }
        for line in PLACES * each..lines {
            sums[0][0] = sums[0][0].add(L::load(p.add(line * LINE)));
        }
        let mut total = 0.0;
        for sum in sums.into_iter().flatten() {
            total += sum.sum();
        }
        total
    }
}
