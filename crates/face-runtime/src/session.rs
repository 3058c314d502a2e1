//! A bounded pool of sessions of one model: `&self` outside, `&mut Session` inside.
//!
//! In: a function that draws the input tensor. Out: whatever a second function makes of the outputs, after every
//! output value was seen to be finite. `ort` sessions need `&mut` to run, cameras and uploads come on many threads:
//! the pool hands out sessions in the order of asking, so that no camera starves, and counts how long callers waited.
//! No session is ever made after the pool is opened, so memory is bounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use face_core::sample::Sampler;
use ort::session::{Session, SessionOutputs};
use ort::value::Tensor;
use parking_lot::{Condvar, Mutex};

use crate::denormals::DenormalsAreZero;
use crate::manifest::ModelFile;
use crate::runtime::{Provider, Runtime, SessionOptions};

/// Why one run of a model gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// ONNX Runtime failed.
    #[error(
        "model {file}: the run failed; restart the program, and check memory and the GPU driver if it happens again"
    )]
    Run {
        /// File name of the model.
        file: String,
        /// What ONNX Runtime said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An output holds NaN or infinity. Comparisons with NaN are false, and a false comparison must never decide.
    #[error("model {file}: output {output} holds a value that is not finite")]
    NotFinite {
        /// File name of the model.
        file: String,
        /// Name of the output.
        output: String,
    },
    /// An output is not what was checked at start.
    #[error("model {file}: output {output} has {found} values, expected {expected}")]
    Shape {
        /// File name of the model.
        file: String,
        /// Name of the output.
        output: String,
        /// Number of values found.
        found: usize,
        /// Number of values in the manifest.
        expected: usize,
    },
    /// The picture could not be drawn into the input tensor.
    #[error("model {file}: the picture cannot be prepared")]
    Input {
        /// File name of the model.
        file: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer was well-formed and yet cannot be used.
    #[error("model {file}: the answer cannot be used")]
    Unusable {
        /// File name of the model.
        file: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The outputs of one run, all finite and of the expected length.
pub struct Outputs<'a> {
    file: &'a ModelFile,
    outputs: SessionOutputs<'a>,
}

impl Outputs<'_> {
    /// The values of the `index`-th output of the manifest.
    #[must_use]
    pub fn values(&self, index: usize) -> &[f32] {
        let name = &self.file.outputs[index].name;
        tensor_values(&self.outputs, name).expect("the pool checked every output before handing them over")
    }
}

fn tensor_values<'o>(outputs: &'o SessionOutputs<'_>, name: &str) -> Option<&'o [f32]> {
    let (_, values) = outputs.get(name)?.try_extract_tensor::<f32>().ok()?;
    Some(values)
}

/// How a pool has been used since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Number of runs.
    pub runs: u64,
    /// Time that callers spent waiting for a free session, all together.
    pub waited: Duration,
    /// Longest single wait.
    pub longest_wait: Duration,
    /// Time inside ONNX Runtime, all together.
    pub running: Duration,
}

/// What the functions given to [`SessionPool::run`] may fail with; the pool puts the model's name before it.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One session with the tensor that it reads from and the scratch space that fills it, so that no run allocates.
struct Slot {
    session: Session,
    input: Tensor<f32>,
    sampler: Sampler,
}

/// The sessions of one model.
pub struct SessionPool {
    file: ModelFile,
    queue: FairQueue<Slot>,
    runs: AtomicU64,
    waited_ns: AtomicU64,
    longest_wait_ns: AtomicU64,
    running_ns: AtomicU64,
}

impl SessionPool {
    /// A pool of ready sessions of `file`.
    ///
    /// # Errors
    /// Only if ONNX Runtime cannot make the input tensor.
    pub(crate) fn new(file: ModelFile, sessions: Vec<Session>) -> ort::Result<Self> {
        let shape = file.input.shape;
        let mut slots = Vec::with_capacity(sessions.len());
        for session in sessions {
            let input = Tensor::from_array((shape, vec![0.0_f32; file.input.len()]))?;
            slots.push(Slot { session, input, sampler: Sampler::new() });
        }
        Ok(Self {
            file,
            queue: FairQueue::new(slots),
            runs: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            longest_wait_ns: AtomicU64::new(0),
            running_ns: AtomicU64::new(0),
        })
    }

    /// One session on the CPU of a model that nothing vouches for yet: for measuring what a manifest should say of it.
    ///
    /// The programs open packs with [`crate::ModelPack::open`] only.
    ///
    /// # Errors
    /// [`InferenceError::Run`] when ONNX Runtime refuses the model.
    pub fn unchecked(runtime: &Runtime, file: &ModelFile, model: &[u8]) -> Result<Self, InferenceError> {
        let refused = |source: Cause| InferenceError::Run { file: file.path.display().to_string(), source };
        let options = SessionOptions { intra_threads: 1, providers: vec![Provider::Cpu], engine_cache_dir: None };
        let (session, _) = runtime.open_session(model, &options).map_err(|error| refused(error.into()))?;
        Self::new(file.clone(), vec![session]).map_err(|error| refused(error.to_string().into()))
    }

    /// The manifest's entry for this model.
    #[must_use]
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// File name of the model, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.file.path.display().to_string()
    }

    /// How the pool has been used so far.
    #[must_use]
    pub fn usage(&self) -> PoolUse {
        let nanoseconds = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        PoolUse {
            runs: self.runs.load(Ordering::Relaxed),
            waited: nanoseconds(&self.waited_ns),
            longest_wait: nanoseconds(&self.longest_wait_ns),
            running: nanoseconds(&self.running_ns),
        }
    }

    /// Runs the model once: `fill` draws the input tensor (NCHW, normalised), `read` takes what it needs from the
    /// outputs. Waits its turn if all sessions are busy. The tensor still holds the last caller's picture, so `fill`
    /// must write every element.
    ///
    /// # Errors
    /// [`InferenceError`] if either function fails, the run fails, or an output holds a value that is not finite.
    pub fn run<T>(
        &self,
        fill: impl FnOnce(&mut Sampler, &mut [f32]) -> Result<(), Cause>,
        read: impl FnOnce(&Outputs<'_>) -> Result<T, Cause>,
    ) -> Result<T, InferenceError> {
        let mut slot = self.check_out();
        let Slot { session, input, sampler } = slot.get_mut();
        fill(sampler, input.extract_tensor_mut().1)
            .map_err(|source| InferenceError::Input { file: self.name(), source })?;
        let started = now();
        let outputs = {
            let _fast = DenormalsAreZero::here();
            session.run(ort::inputs![&*input])
        };
        let outputs = outputs.map_err(|source| self.run_error(&source))?;
        add_duration(&self.running_ns, started.elapsed());
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.check_outputs(&outputs)?;
        let outputs = Outputs { file: &self.file, outputs };
        read(&outputs).map_err(|source| InferenceError::Unusable { file: self.name(), source })
    }

    fn check_out(&self) -> CheckedOut<'_, Slot> {
        let asked = now();
        let slot = self.queue.check_out();
        let waited = asked.elapsed();
        add_duration(&self.waited_ns, waited);
        self.longest_wait_ns.fetch_max(saturating_nanoseconds(waited), Ordering::Relaxed);
        slot
    }

    fn run_error(&self, source: &ort::Error) -> InferenceError {
        InferenceError::Run { file: self.name(), source: source.to_string().into() }
    }

    fn check_outputs(&self, outputs: &SessionOutputs<'_>) -> Result<(), InferenceError> {
        for spec in &self.file.outputs {
            let values = tensor_values(outputs, &spec.name).unwrap_or(&[]);
            if values.len() != spec.len() {
                let (found, expected) = (values.len(), spec.len());
                return Err(InferenceError::Shape { file: self.name(), output: spec.name.clone(), found, expected });
            }
            if !all_finite(values) {
                return Err(InferenceError::NotFinite { file: self.name(), output: spec.name.clone() });
            }
        }
        Ok(())
    }
}

/// Whether no value is NaN or infinite. `x * 0` is 0 for finite values and NaN for all others, so one sum, which the
/// compiler vectorises, answers for all.
fn all_finite(values: &[f32]) -> bool {
    values.chunks(256).all(|chunk| chunk.iter().map(|value| value * 0.0).sum::<f32>() == 0.0)
}

/// For the counters of [`PoolUse`] only: no decision depends on it.
#[expect(clippy::disallowed_methods, reason = "measures how long a run took; nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}

fn saturating_nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn add_duration(counter: &AtomicU64, duration: Duration) {
    counter.fetch_add(saturating_nanoseconds(duration), Ordering::Relaxed);
}

/// Hands out a fixed set of things, first come, first served.
struct FairQueue<T> {
    state: Mutex<QueueState<T>>,
    changed: Condvar,
}

struct QueueState<T> {
    /// Taken from the front and given back at the back, so that all are used (and all are warmed up) in turn.
    free: VecDeque<T>,
    waiting: VecDeque<u64>,
    next_ticket: u64,
}

impl<T> FairQueue<T> {
    fn new(free: Vec<T>) -> Self {
        let state = QueueState { free: free.into(), waiting: VecDeque::new(), next_ticket: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for the caller's turn and takes one.
    fn check_out(&self) -> CheckedOut<'_, T> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(ticket);
        loop {
            if state.waiting.front() == Some(&ticket)
                && let Some(thing) = state.free.pop_front()
            {
                state.waiting.pop_front();
                // The next in line may have been woken already and found that it was not its turn.
                self.changed.notify_all();
                return CheckedOut { queue: self, thing: Some(thing) };
            }
            self.changed.wait(&mut state);
        }
    }
}

/// Gives the thing back when dropped, also when the caller panics.
struct CheckedOut<'a, T> {
    queue: &'a FairQueue<T>,
    thing: Option<T>,
}

impl<T> CheckedOut<'_, T> {
    fn get_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("taken only by drop")
    }
}

impl<T> Drop for CheckedOut<'_, T> {
    fn drop(&mut self) {
        if let Some(thing) = self.thing.take() {
            self.queue.state.lock().free.push_back(thing);
            self.queue.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_finite_is_found_wherever_it_hides() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in [0, 1, 255, 256, 511] {
                let mut values = vec![f32::MAX; 512];
                assert!(all_finite(&values));
                values[position] = bad;
                assert!(!all_finite(&values), "{bad} at {position}");
            }
        }
    }

    #[test]
    fn sessions_are_handed_out_in_the_order_of_asking() {
        let queue = FairQueue::new(vec![()]);
        let order = Mutex::new(Vec::new());
        let held = queue.check_out();
        std::thread::scope(|scope| {
            for name in 0..4_u64 {
                let (queue, order) = (&queue, &order);
                scope.spawn(move || {
                    let _turn = queue.check_out();
                    order.lock().push(name);
                });
                // The next one asks only once this one is seen to stand in line.
                while queue.state.lock().next_ticket != name + 2 {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(*order.lock(), [0, 1, 2, 3]);
    }

    #[test]
    fn no_camera_starves_beside_others_that_ask_without_pause() {
        const CAMERAS: usize = 4;
        const TURNS: u32 = 60;
        let queue = FairQueue::new(vec![()]);
        let turns: [AtomicU64; CAMERAS] = Default::default();
        let busiest = std::thread::scope(|scope| {
            let (queue, turns) = (&queue, &turns);
            for own in &turns[1..] {
                scope.spawn(move || {
                    while turns[0].load(Ordering::Relaxed) < u64::from(TURNS) {
                        let held = queue.check_out();
                        own.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_micros(200));
                        // Asked for again at once: without a line to stand in, it would mostly be got again.
                        drop(held);
                    }
                });
            }
            for _ in 0..TURNS {
                let _held = queue.check_out();
                turns[0].fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
            turns[1..].iter().map(|others| others.load(Ordering::Relaxed)).max().unwrap_or(0)
        });
        // Each waits for at most one turn of every other: nobody gets ahead of the first by more than the line is long.
        assert!(
            busiest <= u64::from(TURNS) + CAMERAS as u64 + 1,
            "another had {busiest} turns for {TURNS} of the first"
        );
    }

    /// The one that gives a session back is awake and could ask again before the one in line has woken. Twenty times: once
    /// is enough to be caught, and with a line it never happens.
    #[test]
    fn whoever_gives_a_session_back_stands_behind_those_who_wait() {
        for _ in 0..20 {
            let queue = FairQueue::new(vec![()]);
            let order = Mutex::new(Vec::new());
            let held = queue.check_out();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _turn = queue.check_out();
                    order.lock().push("waited");
                });
                while queue.state.lock().waiting.is_empty() {
                    std::thread::yield_now();
                }
                drop(held);
                let _turn = queue.check_out();
                order.lock().push("asked again");
            });
            assert_eq!(*order.lock(), ["waited", "asked again"]);
        }
    }

    #[test]
    fn a_panicking_caller_gives_its_session_back() {
        let queue = FairQueue::new(vec![()]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = queue.check_out();
            panic!("a decoder bug");
        }));
        assert!(panicked.is_err());
        let _turn = queue.check_out();
    }
}
