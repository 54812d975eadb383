//! A few threads that do jobs in the order in which they come.
//!
//! Work that is shared out by stealing has its idle threads look around before they sleep, each time. Jobs that come one by one, some hundred a second, then cost
//! more in looking than in being done.
//!
//! The queue has no bound of its own: who hands jobs in bounds what is under way, as `blocks` does in bytes.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

type Job = Box<dyn FnOnce() + Send>;

/// See the module. What waits when it is dropped is still done.
pub(super) struct Threads {
    shared: Arc<Shared>,
    count: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    come: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait for one. To wake nobody is a system call too.
    idle: usize,
    ended: bool,
}

impl Threads {
    /// One thread for each core, called `name` and a number.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let threads = Self {
            shared: Arc::default(),
            count: thread::available_parallelism().map_or(1, usize::from),
        };
        for number in 0..threads.count {
            let shared = Arc::clone(&threads.shared);
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || shared.work())?;
        }
        Ok(threads)
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Has `job` done. A panic in it is its own: the thread goes on.
    pub(super) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue();
        queue.jobs.push_back(Box::new(job));
        if queue.idle > 0 {
            drop(queue);
            self.shared.come.notify_one();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue().ended = true;
        self.shared.come.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // What it held is dropped: whoever waits on a channel of the job's own learns of it. Who hears of it in another way is the job's affair.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        while queue.jobs.is_empty() && !queue.ended {
            queue.idle += 1;
            queue = self.come.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
        queue.jobs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_jobs_are_done_even_after_a_panic_and_after_the_drop() {
        let threads = Threads::start("test").unwrap();
        let (done, results) = mpsc::channel();
        for number in 0..1000 {
            let done = done.clone();
            threads.spawn(move || {
                assert_ne!(number % 100, 99);
                done.send(number).unwrap();
            });
        }
        drop((threads, done));
        let mut all: Vec<u32> = results.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).filter(|number| number % 100 != 99).collect::<Vec<_>>());
    }
}
