//! Barriers, wakes and ends, with as many threads as cores and with more.

use super::*;
use std::sync::atomic::AtomicU64;

/// In every round each thread writes its cell, and after the barrier reads everybody's: a barrier that lets one
/// through early gives a wrong sum.
fn check(threads: usize, runs: usize, rounds: u64) {
    let team = Team::new(threads).expect("the threads start");
    let cells: Vec<AtomicU64> = (0..team.count()).map(|_| AtomicU64::new(0)).collect();
    let total = AtomicU64::new(0);
    for run in 0..runs as u64 {
        team.run(&|worker| {
            for round in 0..rounds {
                let value = run * rounds + round + worker.index as u64;
                cells[worker.index].store(value, Ordering::Relaxed);
                worker.barrier();
                let sum: u64 = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum();
                let n = worker.count as u64;
                assert_eq!(sum, n * (run * rounds + round) + n * (n - 1) / 2);
                worker.barrier();
            }
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(
            total.load(Ordering::Relaxed),
            (run + 1) * team.count() as u64
        );
    }
}

#[test]
fn every_thread_meets_at_every_barrier() {
    check(1, 10, 100);
    check(2, 50, 1000);
    check(3, 20, 200);
}

#[test]
fn more_threads_than_cores_still_progress() {
    check(
        4 * thread::available_parallelism().map_or(4, |n| n.get()),
        5,
        50,
    );
}

#[test]
fn sleeping_threads_wake() {
    let team = Team::new(3).expect("the threads start");
    for _ in 0..20 {
        thread::sleep(5 * IDLE_SPIN);
        let seen = AtomicU64::new(0);
        team.run(&|worker| {
            seen.fetch_or(1 << worker.index, Ordering::Relaxed);
        });
        assert_eq!(seen.load(Ordering::Relaxed), 0b111);
    }
}

#[test]
fn a_team_never_run_ends() {
    drop(Team::new(4).expect("the threads start"));
}

#[test]
fn shares_cover_every_unit_once() {
    for units in [0, 1, 7, 48] {
        for parts in [1, 2, 5, 64] {
            let all: Vec<usize> = (0..parts)
                .flat_map(|part| share(units, part, parts))
                .collect();
            assert_eq!(all, (0..units).collect::<Vec<_>>());
        }
    }
}

#[test]
#[ignore = "ends its process; run by the test below"]
fn panics_beside_a_barrier() {
    Team::new(2).expect("the threads start").run(&|worker| {
        assert_eq!(worker.index, 0, "a worker's failure");
        worker.barrier();
    });
}

#[test]
fn a_panic_ends_the_process_and_says_so() {
    let test = std::env::current_exe().expect("the test's own program");
    let output = std::process::Command::new(test)
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("cpu::team::tests::panics_beside_a_barrier")
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("a worker's failure"), "{stderr}");
    assert!(
        stderr.contains("thread 1 of a team of 2 panicked"),
        "{stderr}"
    );
}

#[test]
fn every_unit_is_claimed_once() {
    for threads in [1, 2, 3, 5, 8] {
        let team = Team::new(threads).expect("the threads start");
        for units in [0, 1, 2, 3, 18, 97, 1000] {
            let claimed: Vec<AtomicU32> = (0..units).map(|_| AtomicU32::new(0)).collect();
            let rounds = 200;
            team.run(&|worker| {
                for round in 0..rounds {
                    for run in worker.claims(units) {
                        assert!(!run.is_empty());
                        for unit in run {
                            claimed[unit].fetch_add(1, Ordering::Relaxed);
                        }
                        if (round + worker.index).is_multiple_of(7) {
                            thread::yield_now();
                        }
                    }
                    worker.barrier();
                    for times in &claimed {
                        assert_eq!(times.load(Ordering::Relaxed), round as u32 + 1);
                    }
                    worker.barrier();
                }
            });
        }
    }
}

#[test]
fn others_do_the_share_of_a_thread_that_is_stopped() {
    let team = Team::new(2).expect("the threads start");
    let (units, done) = (100, AtomicU64::new(0));
    team.run(&|worker| {
        for run in worker.claims(units) {
            let mine = run.len() as u64;
            // The first waits until the second has done everything else.
            while worker.index == 0 && done.load(Ordering::Relaxed) + mine < units as u64 {
                thread::yield_now();
            }
            done.fetch_add(mine, Ordering::Relaxed);
        }
    });
    assert_eq!(done.into_inner(), units as u64);
}
