//! The float kernels and the team, in bytes or elements a second. Each bench asserts its answer before it is timed.

use criterion::{Criterion, criterion_group, criterion_main};
use greta_infer::cpu::team::Team;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// One `run` holding 1,000 barriers, and one holding none.
fn team(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let team = Team::new(threads);
        let total = AtomicU64::new(0);
        team.run(&|worker| {
            worker.barrier();
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), threads as u64);
        criterion.bench_function(&format!("team/1000 barriers/{threads}"), |bencher| {
            bencher.iter(|| {
                team.run(&|worker| {
                    for _ in 0..1000 {
                        worker.barrier();
                    }
                })
            });
        });
        criterion.bench_function(&format!("team/run/{threads}"), |bencher| {
            bencher.iter(|| {
                team.run(&|worker| {
                    black_box(worker.index);
                })
            });
        });
        criterion.bench_function(&format!("team/wake after 1 ms/{threads}"), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                        let start = std::time::Instant::now();
                        team.run(&|worker| {
                            black_box(worker.index);
                        });
                        start.elapsed()
                    })
                    .sum()
            });
        });
    }
}

criterion_group!(benches, team);
criterion_main!(benches);
