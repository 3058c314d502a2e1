//! Comparisons off the async workers, as many at once as there are processors; and probes of one gallery together.
//!
//! A search reads the whole gallery from memory, whether for one probe or for sixteen. So whoever is searched for while all
//! processors are at work waits, and the next one that is free takes up to sixteen probes of one gallery at once: the more is
//! asked, the less each costs. A queue that is full is told at once.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use face_core::{Embedding, Ranked};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::warm::Warm;
use crate::metrics::recognition::{self as measured, Pool};

/// Probes that share one reading of a gallery; as many as the kernel takes together.
const TOGETHER: usize = 16;

/// Why nothing was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCompared {
    /// As many wait as may.
    #[error("too many comparisons at once")]
    Busy,
    /// The work was thrown away by a panic.
    #[error("the comparison was not finished")]
    Crashed,
}

/// Where comparisons are made.
#[derive(Clone)]
pub struct Comparisons(Arc<Shared>);

struct Shared {
    /// At once.
    workers: usize,
    /// That wait for one of them.
    most_waiting: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Workers there are.
    at_work: usize,
    /// Those of them that have taken jobs; the others are on their way to them.
    busy: usize,
}

enum Job {
    /// Who of a gallery may it be?
    Probe { gallery: Arc<Warm>, probe: Box<Embedding>, found: oneshot::Sender<Vec<Ranked>> },
    /// Anything else.
    Other(Box<dyn FnOnce() + Send>),
}

impl Comparisons {
    /// `workers` at once and `queue` more that wait.
    #[must_use]
    pub fn new(workers: usize, queue: usize) -> Self {
        Self(Arc::new(Shared { workers: workers.max(1), most_waiting: queue.max(1), state: Mutex::default() }))
    }

    /// Rows of a gallery that decide who it is, as [`face_core::Gallery::candidates`] finds them.
    pub async fn candidates(&self, gallery: Arc<Warm>, probe: Embedding) -> Result<Vec<Ranked>, NotCompared> {
        let (found, answer) = oneshot::channel();
        self.give(Job::Probe { gallery, probe: Box::new(probe), found })?;
        answer.await.map_err(|_| NotCompared::Crashed)
    }

    /// Any other comparison.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotCompared> {
        let (done, answer) = oneshot::channel();
        self.give(Job::Other(Box::new(move || {
            // Who no longer waits has left.
            let _ = done.send(work());
        })))?;
        answer.await.map_err(|_| NotCompared::Crashed)
    }

    /// Tells how many places are taken: at work and waiting, and of how many.
    pub fn measure(&self) {
        let taken = {
            let state = self.0.state.lock();
            state.busy + state.waiting.len()
        };
        measured::queue(Pool::Comparisons, taken, self.0.workers + self.0.most_waiting);
    }

    fn give(&self, job: Job) -> Result<(), NotCompared> {
        let mut state = self.0.state.lock();
        if state.busy + state.waiting.len() >= self.0.workers + self.0.most_waiting {
            return Err(NotCompared::Busy);
        }
        state.waiting.push_back(job);
        let one_more = state.at_work < self.0.workers;
        state.at_work += usize::from(one_more);
        // A worker that is thrown away at once, because the hub is going down, takes the lock too.
        drop(state);
        if one_more {
            self.start();
        }
        Ok(())
    }

    fn start(&self) {
        let worker = Worker { comparisons: self.clone(), busy: false, nothing_left: false };
        tokio::task::spawn_blocking(move || worker.work());
    }
}

impl State {
    /// The next work: the job that waits longest, and with a probe others of the same gallery. Nobody is overtaken by more than
    /// the rest of a batch.
    fn next(&mut self) -> Vec<Job> {
        let Some(first) = self.waiting.pop_front() else { return Vec::new() };
        let mut jobs = vec![first];
        let Job::Probe { gallery, .. } = &jobs[0] else { return jobs };
        let gallery = Arc::clone(gallery);
        let mut at = 0;
        while at < self.waiting.len() && jobs.len() < TOGETHER {
            match &self.waiting[at] {
                Job::Probe { gallery: other, .. } if Arc::ptr_eq(other, &gallery) => {
                    jobs.extend(self.waiting.remove(at));
                }
                _ => at += 1,
            }
        }
        jobs
    }
}

/// One that is at work, until nothing is left to do.
struct Worker {
    comparisons: Comparisons,
    busy: bool,
    nothing_left: bool,
}

impl Worker {
    fn work(mut self) {
        while let Some(jobs) = self.next() {
            compare(jobs);
        }
    }

    fn next(&mut self) -> Option<Vec<Job>> {
        let mut state = self.comparisons.0.state.lock();
        let jobs = state.next();
        state.busy -= usize::from(self.busy);
        self.busy = !jobs.is_empty();
        state.busy += usize::from(self.busy);
        self.nothing_left = jobs.is_empty();
        if self.nothing_left {
            // Under the same lock as the look: whoever gives a job now finds the place free.
            state.at_work -= 1;
            return None;
        }
        Some(jobs)
    }
}

impl Drop for Worker {
    /// After a panic another one takes the place: others wait for it. One that never began, because the hub is going down, is
    /// followed by nobody.
    fn drop(&mut self) {
        if self.nothing_left {
            return;
        }
        let mut state = self.comparisons.0.state.lock();
        state.busy -= usize::from(self.busy);
        if std::thread::panicking() {
            drop(state);
            self.comparisons.start();
        } else {
            state.at_work -= 1;
        }
    }
}

fn compare(jobs: Vec<Job>) {
    let (mut probes, mut waiting, mut searched) = (Vec::new(), Vec::new(), None);
    for job in jobs {
        match job {
            Job::Other(work) => work(),
            // Who has left is not searched for.
            Job::Probe { found, .. } if found.is_closed() => {}
            Job::Probe { gallery, probe, found } => {
                probes.push(*probe);
                waiting.push(found);
                searched = Some(gallery);
            }
        }
    }
    let Some(gallery) = searched else { return };
    for (rows, found) in gallery.index().candidates_batch(&probes, NonZeroUsize::MIN).into_iter().zip(waiting) {
        let _ = found.send(rows);
    }
}

#[cfg(test)]
mod tests {
    use face_core::{DIM, Gallery as _};

    use super::super::warm::tests::{axis, gallery};
    use super::*;

    /// Holds the only worker until the sender is dropped.
    async fn held(comparisons: &Comparisons) -> (std::sync::mpsc::SyncSender<()>, tokio::task::JoinHandle<()>) {
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, begins) = oneshot::channel();
        let comparisons = comparisons.clone();
        let work = tokio::spawn(async move {
            let work = comparisons.run(move || {
                let _ = begun.send(());
                let _ = held.recv();
            });
            work.await.unwrap();
        });
        begins.await.unwrap();
        (hold, work)
    }

    #[tokio::test]
    async fn whoever_waits_together_finds_what_they_would_find_alone() {
        let comparisons = Comparisons::new(1, 100);
        let (one, other) = (gallery(40), gallery(7));
        let (hold, holder) = held(&comparisons).await;
        let ask = |number: usize| {
            let gallery = if number.is_multiple_of(3) { &other } else { &one };
            let (comparisons, gallery, probe) = (comparisons.clone(), Arc::clone(gallery), axis(number % DIM));
            tokio::spawn(async move {
                let alone = gallery.index().candidates(&probe);
                (comparisons.candidates(gallery, probe).await.unwrap(), alone)
            })
        };
        let asked: Vec<_> = (0..60).map(ask).collect();
        drop(hold);
        holder.await.unwrap();
        for asked in asked {
            let (together, alone) = asked.await.unwrap();
            assert_eq!(together, alone);
        }
    }

    #[tokio::test]
    async fn a_batch_is_of_one_gallery_and_the_oldest_job_is_in_it() {
        let (one, other) = (gallery(3), gallery(3));
        let probe = |gallery: &Arc<Warm>| Job::Probe {
            gallery: Arc::clone(gallery),
            probe: Box::new(axis(0)),
            found: oneshot::channel().0,
        };
        let mut state = State::default();
        let jobs = [probe(&one), probe(&other), Job::Other(Box::new(|| ())), probe(&one), probe(&other)];
        state.waiting.extend(jobs);
        let sizes: Vec<usize> = std::iter::from_fn(|| Some(state.next().len()).filter(|jobs| *jobs > 0)).collect();
        assert_eq!(sizes, [2, 2, 1]);
        state.waiting.extend((0..20).map(|_| probe(&one)));
        assert_eq!((state.next().len(), state.next().len()), (TOGETHER, 20 - TOGETHER));
    }

    #[tokio::test]
    async fn a_full_queue_says_so_and_a_panic_takes_no_place_with_it() {
        let comparisons = Comparisons::new(1, 1);
        let (hold, holder) = held(&comparisons).await;
        let waits = {
            let comparisons = comparisons.clone();
            tokio::spawn(async move { comparisons.run(|| panic!("on purpose")).await })
        };
        // Until the second one is in the queue.
        while comparisons.0.state.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(comparisons.run(|| 1).await, Err(NotCompared::Busy));
        drop(hold);
        holder.await.unwrap();
        let panicked: Result<(), _> = waits.await.unwrap();
        assert_eq!(panicked, Err(NotCompared::Crashed));
        for number in 0..3 {
            assert_eq!(comparisons.run(move || number).await, Ok(number));
        }
    }

    #[tokio::test]
    async fn whoever_comes_in_a_burst_finds_every_place() {
        let comparisons = Comparisons::new(2, 3);
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(1);
        let held = Arc::new(Mutex::new(held));
        let mut asked: Vec<_> = (0..6)
            .map(|_| {
                let held = Arc::clone(&held);
                Box::pin(comparisons.run(move || {
                    let _ = held.lock().recv();
                }))
            })
            .collect();
        for asked in &mut asked[..5] {
            assert!(futures::poll!(asked).is_pending());
        }
        assert_eq!(futures::poll!(&mut asked[5]), std::task::Poll::Ready(Err(NotCompared::Busy)));
        drop(hold);
        for asked in asked.drain(..5) {
            assert_eq!(asked.await, Ok(()));
        }
    }

    #[test]
    fn a_worker_that_never_began_is_followed_by_nobody_when_the_hub_goes_down() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build().unwrap();
        let comparisons = Comparisons::new(2, 10);
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, begins) = std::sync::mpsc::sync_channel::<()>(1);
        let (first, second) = (comparisons.clone(), comparisons.clone());
        runtime.spawn(async move {
            first
                .run(move || {
                    begun.send(()).unwrap();
                    let _ = held.recv();
                })
                .await
        });
        begins.recv().unwrap();
        // Its worker waits for the only thread.
        let waiting = runtime.spawn(async move { second.run(|| ()).await });
        while comparisons.0.state.lock().at_work < 2 {
            std::thread::yield_now();
        }
        runtime.shutdown_timeout(std::time::Duration::from_millis(100));
        drop((hold, waiting));
        assert!(comparisons.0.state.lock().at_work <= 1);
    }
}
