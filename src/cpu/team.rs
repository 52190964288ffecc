//! A resident team of threads that replays one task list together.
//!
//! A decode step is a few hundred launches of a few microseconds each, so the team is woken once a step, not once a
//! launch: [`Team::run`] hands every thread the same closure, and the closure separates its launches with
//! [`Worker::barrier`]. Between steps the threads spin for [`IDLE_SPIN`] (the caller is sampling and will be back
//! soon) and then sleep, so that an idle program burns no core.
//!
//! Invariants: `run` returns only after every thread has left the closure, which is what makes lending it a borrowed
//! closure sound; nothing is allocated in `run`; a panic in a team of several threads ends the process, because the
//! other threads would wait at the next barrier for ever and may still read what the panicking frame owns.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a thread without work spins before it sleeps: longer than sampling a token takes (a run of spinning threads
/// was measured at 0.4 µs, of sleeping ones at 15 µs), short enough that a program waiting for its user costs nothing.
pub const IDLE_SPIN: Duration = Duration::from_millis(1);

/// Polls of a barrier without a pause: about the time in which a thread that is not late arrives.
const EAGER_POLLS: u32 = 64;

/// Polls of a barrier in all before the thread offers its core to the system, which on a machine with more threads
/// than cores is the only way for the late thread to run. A pause costs 10 to 50 ns, so this is tens of microseconds.
const BARRIER_POLLS: u32 = 1000;

/// A value alone on its cache lines; two lines, because the prefetcher fetches them in pairs.
#[repr(align(128))]
struct Padded<T>(T);

/// What [`Worker::claims`] counts of one thread's share.
struct Share {
    /// Units handed out since the last barrier, where its generation is even and odd: while one is counted, the other is
    /// set back.
    handed_out: [AtomicU32; 2],
    /// The generation in which the thread last asked.
    asked: AtomicU32,
}

impl Share {
    fn new() -> Share {
        Share {
            handed_out: [0, 0].map(AtomicU32::new),
            asked: AtomicU32::new(u32::MAX),
        }
    }
}

/// A reusable meeting point of `count` threads.
struct Barrier {
    count: u32,
    arrived: Padded<AtomicU32>,
    generation: Padded<AtomicU32>,
    shares: Box<[Padded<Share>]>,
}

impl Barrier {
    fn new(count: u32) -> Barrier {
        Barrier {
            count,
            arrived: Padded(AtomicU32::new(0)),
            generation: Padded(AtomicU32::new(0)),
            shares: (0..count).map(|_| Padded(Share::new())).collect(),
        }
    }

    /// Barriers passed. It cannot advance until this thread has arrived.
    #[inline]
    fn generation(&self) -> u32 {
        self.generation.0.load(Ordering::Relaxed)
    }

    /// Units of thread `of` handed out in a generation.
    #[inline]
    fn handed_out(&self, of: usize, generation: u32) -> &AtomicU32 {
        &self.shares[of].0.handed_out[(generation % 2) as usize]
    }

    /// Waits, as thread `index`, for the others.
    #[inline]
    fn wait(&self, index: usize) {
        if self.count == 1 {
            return;
        }
        let generation = self.generation();
        // The next generation counts where the one before this did, which no thread is in any more.
        let next = self.handed_out(index, generation.wrapping_add(1));
        next.store(0, Ordering::Relaxed);
        // AcqRel chains every arrival, so the last one has seen, and passes on, what all of them wrote.
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.generation
                .0
                .store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut polls = 0;
        while self.generation.0.load(Ordering::Acquire) == generation {
            polls += 1;
            if polls < EAGER_POLLS {
                continue;
            } else if polls < BARRIER_POLLS {
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// One thread's view of a [`Team::run`].
#[derive(Clone, Copy)]
pub struct Worker<'a> {
    /// Which thread this is, `0..count`; the caller of [`Team::run`] is 0.
    pub index: usize,
    /// Threads in the team.
    pub count: usize,
    barrier: &'a Barrier,
}

impl Worker<'_> {
    /// Waits until every thread of the team is here; what each wrote before is then visible to all. Every thread must
    /// pass the same number of barriers in a run.
    #[inline]
    pub fn barrier(&self) {
        self.barrier.wait(self.index);
    }

    /// The part of `0..units` that is this thread's when the units are cut into `count` runs of nearly equal length.
    #[inline]
    pub fn share(&self, units: usize) -> Range<usize> {
        share(units, self.index, self.count)
    }

    /// The runs of `0..units` that this thread is to do: its [`Worker::share`] in ever shorter runs, then what is left of
    /// those of its neighbours. Over the team every unit is handed out once.
    ///
    /// Cores are not equally fast, and another process may stop a thread for longer than a launch takes; a share that is
    /// fixed makes all wait for the slowest. Memory is read by the thread that it is near to as long as all keep pace.
    /// (Two threads of a Zen 3 machine that others use too waited for each other for 9 % of a decoded token and 6 to 15 %
    /// of a prompt of SmolLM2-135M with fixed shares, and for 5 to 7 % and 2 to 3 % so: prompts of 512 tokens took 8 to 28 %
    /// less time, tokens 3 to 9 %.)
    ///
    /// # Panics
    /// When this thread asks twice between two barriers. All threads must ask for the same `units`.
    #[inline]
    pub fn claims(&self, units: usize) -> Claims<'_> {
        let asked = &self.barrier.shares[self.index].0.asked;
        if self.count > 1 {
            let generation = self.barrier.generation();
            assert_ne!(
                asked.load(Ordering::Relaxed),
                generation,
                "one claim a launch"
            );
            asked.store(generation, Ordering::Relaxed);
        }
        // Shares of one unit are taken at once, and looking for more would cost a large team more than it could find.
        let bits = match units >= 2 * self.count {
            true => usize::BITS - (self.count - 1).leading_zeros(),
            false => 0,
        };
        Claims {
            worker: self,
            units,
            of: self.index,
            neighbours: 0..bits,
        }
    }
}

/// The iterator of [`Worker::claims`].
pub struct Claims<'a> {
    worker: &'a Worker<'a>,
    units: usize,
    /// Whose share is being handed out.
    of: usize,
    /// The bits in which the indices of those that come after differ from this thread's: they are few, and together a way
    /// to everybody.
    neighbours: Range<u32>,
}

impl Iterator for Claims<'_> {
    type Item = Range<usize>;

    #[inline]
    fn next(&mut self) -> Option<Range<usize>> {
        let Worker {
            index,
            count,
            barrier,
        } = *self.worker;
        if count == 1 {
            let first = std::mem::replace(&mut self.of, 1) == 0;
            return (first && self.units > 0).then_some(0..self.units);
        }
        loop {
            let Range { start, end } = share(self.units, self.of, count);
            let handed_out = barrier.handed_out(self.of, barrier.generation());
            // The counts decide only who does a unit; what it writes is seen after the barrier.
            let first = start + handed_out.load(Ordering::Relaxed) as usize;
            if first < end {
                let ask = (end - first).div_ceil(2);
                let first = start + handed_out.fetch_add(ask as u32, Ordering::Relaxed) as usize;
                if first < end {
                    return Some(first..end.min(first + ask));
                }
            }
            let mut others = self.neighbours.by_ref().map(|bit| index ^ (1 << bit));
            self.of = others.find(|of| *of < count)?;
        }
    }
}

/// The `part`-th of `parts` nearly equal runs of `0..units`.
#[inline]
pub fn share(units: usize, part: usize, parts: usize) -> Range<usize> {
    (units * part / parts)..(units * (part + 1) / parts)
}

type Job = dyn Fn(Worker<'_>) + Sync;

/// Where the caller leaves the closure of a run. The lifetime is erased; `run` outlives every use.
struct JobSlot(UnsafeCell<Option<*const Job>>);

// SAFETY: the slot is written only by the thread inside `run` (`Shared::busy` admits one) while every worker waits for
// `epoch` to advance, and read by workers only after they saw it advance (release/acquire), before the final barrier.
// The pointer is to a `Sync` closure.
unsafe impl Sync for JobSlot {}
// SAFETY: as above; the slot owns nothing.
unsafe impl Send for JobSlot {}

struct Shared {
    barrier: Barrier,
    /// Advances once a run, and once more to end the threads.
    epoch: Padded<AtomicU32>,
    /// Per resident thread: it sleeps, or is about to.
    sleeping: Box<[Padded<AtomicBool>]>,
    job: JobSlot,
    busy: AtomicBool,
    ending: AtomicBool,
}

impl Shared {
    /// Waits until the epoch differs from `seen` and returns it: spins first, then sleeps.
    fn next_epoch(&self, slot: usize, seen: u32) -> u32 {
        let mut deadline = None;
        loop {
            for _ in 0..64 {
                let epoch = self.epoch.0.load(Ordering::Acquire);
                if epoch != seen {
                    return epoch;
                }
                spin_loop();
            }
            let now = Instant::now();
            if now < *deadline.get_or_insert(now + IDLE_SPIN) {
                continue;
            }
            // Sequential consistency on both flags: either this thread sees the new epoch or the caller sees it sleep.
            self.sleeping[slot].0.store(true, Ordering::SeqCst);
            while self.epoch.0.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            self.sleeping[slot].0.store(false, Ordering::Relaxed);
        }
    }

    fn reside(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_epoch(index - 1, seen);
            if self.ending.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: the epoch advanced, so `run` has stored a closure that lives until this thread has passed the
            // final barrier below.
            let job = unsafe { (*self.job.0.get()).map(|job| &*job) };
            if let Some(job) = job {
                self.work(index, job);
            }
            self.barrier.wait(index);
        }
    }

    /// Calls the closure as thread `index`; a panic ends the process.
    fn work(&self, index: usize, job: &(dyn Fn(Worker<'_>) + Sync)) {
        let worker = Worker {
            index,
            count: self.barrier.count as usize,
            barrier: &self.barrier,
        };
        if catch_unwind(AssertUnwindSafe(|| job(worker))).is_err() {
            eprintln!(
                "thread {index} of a team of {} panicked: the others cannot go on without it, so the process ends",
                worker.count
            );
            abort();
        }
    }
}

/// Threads that stay alive between runs. Dropping the team ends and joins them.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    /// A team of `threads` threads, the caller included; 0 is taken as 1.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn new(threads: usize) -> io::Result<Team> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            barrier: Barrier::new(
                u32::try_from(threads).expect("a team of fewer than 2^32 threads"),
            ),
            epoch: Padded(AtomicU32::new(0)),
            sleeping: (1..threads)
                .map(|_| Padded(AtomicBool::new(false)))
                .collect(),
            job: JobSlot(UnsafeCell::new(None)),
            busy: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        });
        let mut team = Team {
            shared,
            threads: Vec::with_capacity(threads - 1),
        };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            // Without one of them the others end again, none of which has done anything.
            let thread = thread::Builder::new().name(format!("team-{index}"));
            team.threads
                .push(thread.spawn(move || shared.reside(index))?);
        }
        // A thread allocates while it starts; after this nothing does.
        team.run(&|_| {});
        Ok(team)
    }

    /// Threads in the team, the caller included.
    pub fn count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `job` once on every thread of the team, on this one as number 0, and returns when all have returned.
    ///
    /// With one thread this is a plain call. With more, a panic in `job` ends the process.
    ///
    /// # Panics
    /// When the team is already running: from inside `job`, or from another thread.
    #[inline]
    pub fn run(&self, job: &(dyn Fn(Worker<'_>) + Sync)) {
        if self.threads.is_empty() {
            job(Worker {
                index: 0,
                count: 1,
                barrier: &self.shared.barrier,
            });
            return;
        }
        self.run_together(job);
    }

    fn run_together(&self, job: &(dyn Fn(Worker<'_>) + Sync)) {
        let shared = &*self.shared;
        assert!(
            !shared.busy.swap(true, Ordering::Acquire),
            "a team runs one job at a time"
        );
        // SAFETY: `busy` makes this the only writer, and all workers wait for the epoch. The lifetime is erased, but
        // the pointer is used only until the final barrier below, which this call passes before it returns; `work`
        // never unwinds.
        unsafe {
            *shared.job.0.get() = Some(std::mem::transmute::<
                *const (dyn Fn(Worker<'_>) + Sync + '_),
                *const Job,
            >(job));
        }
        self.advance();
        shared.work(0, job);
        shared.barrier.wait(0);
        shared.busy.store(false, Ordering::Release);
    }

    /// Lets the workers see what was stored before, and wakes those that sleep.
    fn advance(&self) {
        self.shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        for (flag, thread) in self.shared.sleeping.iter().zip(&self.threads) {
            if flag.0.load(Ordering::SeqCst) {
                thread.thread().unpark();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        self.advance();
        for thread in self.threads.drain(..) {
            // A worker never unwinds (a panic aborts), so there is no error to lose.
            let joined = thread.join();
            debug_assert!(joined.is_ok());
        }
    }
}

#[cfg(test)]
mod tests;
