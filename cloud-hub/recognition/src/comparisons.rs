//! Comparisons off the async workers, as many at once as there are processors; and probes of one gallery together.
//!
//! A search reads the whole gallery from memory, whether for one probe or for sixteen. So whoever is searched for while all
//! processors are at work waits, and the next one that is free takes up to sixteen probes of one gallery at once: the more is
//! asked, the less each costs. A gallery that takes long to read is read by all processors together, one batch after the other:
//! side by side each batch would take as many times as long. A queue that is full is told at once.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use face_core::{Embedding, Ranked};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::warm::Warm;
use hub_host::metrics::recognition::{self as measured, Pool};
use hub_host::traces::{Part, part};

/// Probes that share one reading of a gallery; as many as the kernel takes together.
const TOGETHER: usize = 16;

/// Templates from which on all processors search together: below it a batch takes a few milliseconds of one.
const WIDE_FROM: usize = 20_000;

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
    /// One of them searches a gallery with all processors.
    wide: bool,
}

enum Job {
    /// Who of a gallery may it be?
    Probe { gallery: Arc<Warm>, probe: Box<Embedding>, found: oneshot::Sender<Vec<Ranked>> },
    /// Anything else.
    Other(Box<dyn FnOnce() + Send>),
}

impl Job {
    /// All processors are to work on it.
    fn is_wide(&self) -> bool {
        matches!(self, Self::Probe { gallery, .. } if gallery.templates() >= WIDE_FROM)
    }
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
        part(Part::Search, answer).await.map_err(|_| NotCompared::Crashed)
    }

    /// Any other comparison.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotCompared> {
        let (done, answer) = oneshot::channel();
        self.give(Job::Other(Box::new(move || {
            // Who no longer waits has left.
            let _ = done.send(work());
        })))?;
        part(Part::Search, answer).await.map_err(|_| NotCompared::Crashed)
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
        let worker = Worker { comparisons: self.clone(), busy: false, wide: false, nothing_left: false };
        tokio::task::spawn_blocking(move || worker.work());
    }
}

impl State {
    /// The next work: the job that waits longest, and with a probe others of the same gallery. Nobody is overtaken by more than
    /// the rest of a batch, but that what needs all processors waits for the one that has them.
    fn next(&mut self) -> Vec<Job> {
        let oldest = if self.wide { self.waiting.iter().position(|job| !job.is_wide()) } else { Some(0) };
        let Some(first) = oldest.and_then(|oldest| self.waiting.remove(oldest)) else { return Vec::new() };
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
    /// It is the one that has all processors.
    wide: bool,
    nothing_left: bool,
}

impl Worker {
    fn work(mut self) {
        while let Some(jobs) = self.next() {
            let processors = if self.wide { self.comparisons.0.workers } else { 1 };
            compare(jobs, NonZeroUsize::new(processors).unwrap_or(NonZeroUsize::MIN));
        }
    }

    fn next(&mut self) -> Option<Vec<Job>> {
        let comparisons = self.comparisons.clone();
        let mut state = comparisons.0.state.lock();
        self.lay_down(&mut state);
        let jobs = state.next();
        self.take_up(&jobs, &mut state);
        self.nothing_left = jobs.is_empty();
        if self.nothing_left {
            // Under the same lock as the look: whoever gives a job now finds the place free.
            state.at_work -= 1;
            return None;
        }
        Some(jobs)
    }

    fn take_up(&mut self, jobs: &[Job], state: &mut State) {
        self.busy = !jobs.is_empty();
        self.wide = jobs.first().is_some_and(Job::is_wide);
        state.busy += usize::from(self.busy);
        state.wide |= self.wide;
    }

    fn lay_down(&mut self, state: &mut State) {
        state.busy -= usize::from(self.busy);
        state.wide &= !self.wide;
        (self.busy, self.wide) = (false, false);
    }
}

impl Drop for Worker {
    /// After a panic another one takes the place: others wait for it. One that never began, because the hub is going down, is
    /// followed by nobody.
    fn drop(&mut self) {
        if self.nothing_left {
            return;
        }
        let comparisons = self.comparisons.clone();
        let mut state = comparisons.0.state.lock();
        self.lay_down(&mut state);
        if std::thread::panicking() {
            drop(state);
            comparisons.start();
        } else {
            state.at_work -= 1;
        }
    }
}

fn compare(jobs: Vec<Job>, processors: NonZeroUsize) {
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
    for (rows, found) in gallery.index().candidates_batch(&probes, processors).into_iter().zip(waiting) {
        let _ = found.send(rows);
    }
}

#[cfg(test)]
mod tests {
    use face_core::{DIM, Gallery as _};
    use futures::FutureExt as _;

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
    async fn what_all_processors_search_is_searched_one_batch_after_the_other_and_holds_up_nothing_else() {
        let (small, large) = (gallery(3), gallery(WIDE_FROM));
        let probe = |gallery: &Arc<Warm>| Job::Probe {
            gallery: Arc::clone(gallery),
            probe: Box::new(axis(0)),
            found: oneshot::channel().0,
        };
        let comparisons = Comparisons::new(2, 100);
        let worker = || Worker { comparisons: comparisons.clone(), busy: false, wide: false, nothing_left: false };
        let (mut one, mut other) = (worker(), worker());
        comparisons.0.state.lock().at_work = 2;
        comparisons.0.state.lock().waiting.extend((0..TOGETHER + 1).map(|_| probe(&large)));
        comparisons.0.state.lock().waiting.push_back(probe(&small));
        assert_eq!(one.next().map(|jobs| jobs.len()), Some(TOGETHER));
        // The small one is searched at once, by one processor; of the large one nothing is begun.
        assert_eq!((other.next().map(|jobs| jobs.len()), one.wide, other.wide), (Some(1), true, false));
        assert!(other.next().is_none());
        assert_eq!((one.next().map(|jobs| jobs.len()), one.wide), (Some(1), true));
        assert!(one.next().is_none());
        let state = comparisons.0.state.lock();
        assert_eq!((state.at_work, state.busy, state.wide, state.waiting.len()), (0, 0, false, 0));
    }

    #[tokio::test]
    async fn a_large_gallery_finds_whom_one_processor_would_find() {
        let (comparisons, large) = (Comparisons::new(2, 100), gallery(WIDE_FROM + 1));
        let asked = (0..40).map(|number| comparisons.candidates(Arc::clone(&large), axis(number % DIM)));
        for (number, found) in futures::future::join_all(asked).await.into_iter().enumerate() {
            assert_eq!(found.unwrap(), large.index().candidates(&axis(number % DIM)));
        }
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
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _inside = handle.enter();
        let comparisons = Comparisons::new(1, 10);
        // A runtime that is down throws the worker away at once.
        assert_eq!(comparisons.run(|| ()).now_or_never(), None);
        assert_eq!(comparisons.0.state.lock().at_work, 0);
    }
}
