//! Threads that read weights into pinned memory while the loading thread thinks of what comes next.

use crate::loader::Blob;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

/// Bytes that a thread reads at a time: long against handing them out, short against a buffer.
const SHARE_BYTES: usize = 512 << 10;

/// Bytes to be read, and a place that has room for them.
struct Job {
    tag: usize,
    from: Blob,
    to: *mut u8,
}

// SAFETY: whoever hands out a job promises that its place is nobody else's until the job is done.
unsafe impl Send for Job {}

impl Job {
    fn run(self) -> Result<(), (usize, io::Error)> {
        // SAFETY: the place is valid for as many bytes and this job's alone, by `Crew::read`'s contract.
        let to = unsafe { std::slice::from_raw_parts_mut(self.to, self.from.len()) };
        self.from.read(to).map_err(|error| (self.tag, error))
    }
}

/// The threads. They leave when the crew is dropped, once every job is done; their scope waits for that.
pub struct Crew {
    jobs: Sender<Job>,
    done: Receiver<Result<(), (usize, io::Error)>>,
    /// Jobs that [`Crew::finish`] has not heard of.
    pending: usize,
}

impl Crew {
    /// `threads` threads, but at least one.
    pub fn new<'s>(scope: &'s Scope<'s, '_>, threads: usize) -> Crew {
        let (jobs, queue) = channel::<Job>();
        let (results, done) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.max(1) {
            let (queue, results) = (Arc::clone(&queue), results.clone());
            scope.spawn(move || {
                // Whoever holds the lock waits for the next job; the others wait for the lock.
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(job) = next() {
                    if results.send(job.run()).is_err() {
                        return;
                    }
                }
            });
        }
        Crew {
            jobs,
            done,
            pending: 0,
        }
    }

    /// Has all of `from` read to `to`. What fails is told with `tag`.
    ///
    /// # Safety
    /// Until [`Crew::finish`] or the scope's end, there is memory for as many bytes at `to`, which nobody
    /// else touches.
    pub unsafe fn read(&mut self, tag: usize, from: &Blob, to: *mut u8) {
        let mut start = 0;
        while start < from.len() {
            let end = from.len().min(start + SHARE_BYTES);
            let from = from.slice(start..end);
            // SAFETY: `start` is within the bytes that the caller promises.
            let to = unsafe { to.add(start) };
            let sent = self.jobs.send(Job { tag, from, to });
            sent.expect("the threads stay as long as the crew does");
            self.pending += 1;
            start = end;
        }
    }

    /// Waits until everything has been read; the first failure, with its tag.
    pub fn finish(&mut self) -> Result<(), (usize, io::Error)> {
        let mut result = Ok(());
        for _ in 0..std::mem::take(&mut self.pending) {
            let done = self.done.recv().expect("every job has an end");
            result = result.and(done);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn whatever_the_threads_everything_is_read_once() {
        let bytes: Vec<u8> = (0..3 * SHARE_BYTES + 77).map(|i| (i % 253) as u8).collect();
        let blob = Blob::from(bytes.clone());
        for threads in [0, 1, 3] {
            let mut out = vec![0; 2 * bytes.len()];
            let (first, second) = out.split_at_mut(bytes.len());
            let read = thread::scope(|scope| {
                let mut crew = Crew::new(scope, threads);
                for to in [&mut *first, &mut *second] {
                    // SAFETY: each half has room for the bytes and is used again after the scope.
                    unsafe { crew.read(0, &blob, to.as_mut_ptr()) };
                }
                crew.finish()
            });
            read.expect("memory can be read");
            assert!(first == bytes && second == bytes, "{threads} threads");
        }
    }
}
