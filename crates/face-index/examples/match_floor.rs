//! The search against FAISS and against the memory that it must read, in one run.
//!
//! `cargo run --release -p face-index --example match_floor -- [--n N] [--probes N] [--threads N] [--rival PYTHON SCRIPT]`
//!
//! Prints one JSON object. For each probe in turn: reading as many bytes as the first pass reads, with nothing else
//! done (the floor), the search, FAISS `IndexFlatIP` of this build, and, when a rival is given, faiss-cpu in a process
//! of its own that times itself. Medians are compared, so a neighbour's load falls on all of them. Set
//! `OMP_NUM_THREADS` and `OPENBLAS_NUM_THREADS` to the number of threads; `scripts/bench match` does.
//!
//! The gallery is made of noise in the shape of people: three templates each, of cosine 0.6 to 0.7 to one another; half of the
//! probes are of an enrolled person and half are strangers.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use face_core::{DIM, Embedding, PersonId, TemplateId};
use face_index::{Engine, Snapshot};
use faiss::index::flat::FlatIndex;
use faiss::{ConcurrentIndex, Index};
use uuid::Uuid;

/// How many are ranked.
const K: usize = 5;
/// Bytes of a row that the first pass reads: 512 and two f32.
const SCANNED_BYTES: usize = DIM + 8;
/// Probes of a micro-batch.
const BATCH: usize = 16;

/// What is asked for on the command line.
struct Arguments {
    n: usize,
    probes: usize,
    threads: NonZeroUsize,
    rival: Option<(String, String)>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parsed = Arguments { n: 100_000, probes: 200, threads: NonZeroUsize::MIN, rival: None };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut number = || given.next().and_then(|text| text.parse().ok()).ok_or("a number above zero is missing");
        match argument.as_str() {
            "--n" => parsed.n = NonZeroUsize::get(number()?),
            "--probes" => parsed.probes = NonZeroUsize::get(number()?),
            "--threads" => parsed.threads = number()?,
            "--rival" => parsed.rival = given.next().zip(given.next()),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(parsed)
}

/// Noise, nearly normal: the sum of four uniform numbers of 16 bits, from one step of a generator.
fn noise(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
    (0..4).map(|part| f32::from((word >> (16 * part)) as u16) / 65_536.0 - 0.5).sum()
}

fn around(person: &[f32; DIM], state: &mut u64) -> Embedding {
    Embedding::from_raw(person.map(|value| value + 0.74 * noise(state))).expect("noise has a norm")
}

/// The templates in gallery order, and the probes.
fn people(n: usize, n_probes: usize) -> (Vec<Embedding>, Vec<Embedding>) {
    let mut state = 0x1234_5678_9ABC_DEF1;
    let (mut templates, mut probes) = (Vec::with_capacity(n), Vec::new());
    let every = (n / 3 / n_probes.div_ceil(2)).max(1);
    for person in 0..n.div_ceil(3) {
        let person_at = std::array::from_fn(|_| noise(&mut state));
        for _ in 0..3.min(n - templates.len()) {
            templates.push(around(&person_at, &mut state));
        }
        if person % every == 0 && probes.len() < n_probes {
            probes.push(around(&person_at, &mut state));
            let stranger = std::array::from_fn(|_| noise(&mut state));
            probes.push(around(&stranger, &mut state));
        }
    }
    while probes.len() < n_probes {
        let stranger = std::array::from_fn(|_| noise(&mut state));
        probes.push(around(&stranger, &mut state));
    }
    probes.truncate(n_probes);
    (templates, probes)
}

fn named(templates: &[Embedding]) -> Vec<(PersonId, TemplateId, Embedding)> {
    let id = |number: usize| Uuid::from_u128(number as u128);
    let rows = templates.iter().enumerate();
    rows.map(|(row, template)| (PersonId(id(row / 3)), TemplateId(id(row)), template.clone())).collect()
}

/// The best five by the templates as they were given, in f64.
fn reference(templates: &[Embedding], probe: &Embedding) -> Vec<usize> {
    let probe = probe.as_slice().map(f64::from);
    let score = |row: &Embedding| {
        let mut sums = [0.0_f64; 8];
        for (p, r) in probe.chunks_exact(8).zip(row.as_slice().chunks_exact(8)) {
            for lane in 0..8 {
                sums[lane] += p[lane] * f64::from(r[lane]);
            }
        }
        sums.iter().sum::<f64>()
    };
    let mut scored: Vec<(f64, usize)> = templates.iter().map(score).zip(0..).collect();
    let kth = K.min(scored.len()) - 1;
    scored.select_nth_unstable_by(kth, |a, b| b.0.total_cmp(&a.0));
    scored[..=kth].iter().map(|(_, row)| *row).collect()
}

fn recall(found: &[Vec<usize>], expected: &[Vec<usize>]) -> f64 {
    let hits: usize = found.iter().zip(expected).map(|(f, e)| e.iter().filter(|row| f.contains(row)).count()).sum();
    hits as f64 / expected.iter().map(Vec::len).sum::<usize>() as f64
}

/// Adds up the words in 16 independent sums: as little work as reading them allows.
fn read_once(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 16];
    for chunk in words.chunks_exact(16) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// The same on several threads, each its own part.
fn read_on(words: &[u64], n_threads: usize) -> u64 {
    if n_threads == 1 {
        return read_once(words);
    }
    std::thread::scope(|scope| {
        let parts = words.chunks(words.len().div_ceil(n_threads));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || read_once(part))).collect();
        readers.into_iter().map(|reader| reader.join().expect("reads")).fold(0, u64::wrapping_add)
    })
}

/// faiss-cpu in a process of its own. Each line asked is a probe's number; each answer is its time and its rows.
struct Rival {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
    version: String,
}

impl Rival {
    fn start(
        python: &str,
        script: &str,
        templates: &[Embedding],
        probes: &[Embedding],
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(python);
        command.arg(script).arg(templates.len().to_string()).arg(probes.len().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut ask = child.stdin.take().ok_or("no pipe")?;
        let mut answer = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        for row in templates.iter().chain(probes) {
            ask.write_all(&row.to_le_bytes())?;
        }
        ask.flush()?;
        let mut version = String::new();
        answer.read_line(&mut version)?;
        Ok(Self { child, ask, answer, version: version.trim().to_owned() })
    }

    fn search(&mut self, probe: usize, n: usize) -> Result<(Duration, Vec<usize>), Box<dyn Error>> {
        writeln!(self.ask, "{probe} {n}")?;
        self.ask.flush()?;
        let mut line = String::new();
        self.answer.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let nanoseconds = numbers.next().ok_or("the rival ended")??;
        let rows: Result<Vec<u64>, _> = numbers.collect();
        Ok((Duration::from_nanos(nanoseconds), rows?.into_iter().map(|row| row as usize).collect()))
    }

    fn stop(self) -> Result<(), Box<dyn Error>> {
        let Self { mut child, ask, .. } = self;
        drop(ask);
        child.wait()?;
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(all: &[Duration]) -> f64 {
    part_of(all, 2)
}

/// The time that a tenth of the calls stayed below: what a neighbour on the same cores did not disturb.
fn undisturbed(all: &[Duration]) -> f64 {
    part_of(all, 10)
}

fn part_of(all: &[Duration], part: usize) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted.get(all.len() / part).map_or(f64::NAN, |time| milliseconds(*time))
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

/// The times of one contender, and what it found.
#[derive(Default)]
struct Column {
    times: Vec<Duration>,
    found: Vec<Vec<usize>>,
}

impl Column {
    fn add(&mut self, (time, found): (Duration, Vec<usize>)) {
        self.times.push(time);
        self.found.push(found);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { n, probes: n_probes, threads, rival } = arguments()?;
    let (templates, probes) = people(n, n_probes);
    let mut rival = match rival {
        Some((python, script)) => Some(Rival::start(&python, &script, &templates, &probes)?),
        None => None,
    };

    // What a start costs: stored bytes are checked, then indexed.
    let stored: Vec<_> = templates.iter().map(Embedding::to_le_bytes).collect();
    let (load, loaded) =
        timed(|| stored.iter().map(|bytes| Embedding::from_le_bytes(bytes)).collect::<Result<Vec<_>, _>>());
    drop((stored, loaded?));
    let rows = named(&templates);
    let (build, snapshot) = timed(|| Snapshot::build(rows, Engine::Exact));
    let snapshot = snapshot?;
    let mut index = FlatIndex::new_ip(u32::try_from(DIM)?)?;
    let flat: Vec<f32> = templates.iter().flat_map(|row| *row.as_slice()).collect();
    let (faiss_build, added) = timed(|| index.add(&flat));
    added?;
    drop(flat);
    let index = index;
    let words = vec![1_u64; n * SCANNED_BYTES / 8];

    let ours = |probe: &Embedding| {
        let found = snapshot.search_batch(std::slice::from_ref(probe), K, threads);
        found.into_iter().flatten().map(|row| row.template.0.as_u128() as usize).collect::<Vec<_>>()
    };
    let theirs = |probe: &Embedding| {
        let found = index.search(probe.as_slice(), K).expect("searches");
        found.labels.iter().filter_map(|label| label.get()).map(|row| row as usize).collect::<Vec<_>>()
    };
    for probe in probes.iter().take(10) {
        black_box((ours(probe), theirs(probe), read_on(&words, threads.get())));
    }
    let (mut floor, mut lintel, mut built, mut wheel) =
        (Vec::new(), Column::default(), Column::default(), Column::default());
    for (number, probe) in probes.iter().enumerate() {
        floor.push(timed(|| black_box(read_on(black_box(&words), threads.get()))).0);
        lintel.add(timed(|| ours(probe)));
        built.add(timed(|| theirs(probe)));
        if let Some(rival) = &mut rival {
            wheel.add(rival.search(number, 1)?);
        }
    }

    let (mut batch, mut built_batch, mut wheel_batch) = (Vec::new(), Vec::new(), Vec::new());
    for (number, probes) in probes.chunks_exact(BATCH).enumerate() {
        let joined: Vec<f32> = probes.iter().flat_map(|probe| *probe.as_slice()).collect();
        batch.push(timed(|| black_box(snapshot.search_batch(probes, K, threads))).0);
        built_batch.push(timed(|| black_box(index.search(&joined, K).expect("searches"))).0);
        if let Some(rival) = &mut rival {
            wheel_batch.push(rival.search(number * BATCH, BATCH)?.0);
        }
    }

    let expected: Vec<Vec<usize>> = probes.iter().map(|probe| reference(&templates, probe)).collect();
    let floor_ms = median(&floor);
    let lintel_ms = median(&lintel.times);
    let built_ms = median(&built.times);
    let mut parts = Vec::new();
    let (mut faiss_ms, mut faster, mut faiss_batch_ms) = (built_ms, "this build", median(&built_batch));
    let mut faiss_undisturbed_ms = undisturbed(&built.times);
    if let Some(rival) = rival {
        let wheel_ms = median(&wheel.times);
        parts.push(format!("\"faiss_cpu\":\"{}\",\"faiss_cpu_ms\":{wheel_ms:.4}", rival.version));
        parts.push(format!("\"faiss_cpu_recall_at_5\":{:.5}", recall(&wheel.found, &expected)));
        if wheel_ms < faiss_ms {
            (faiss_ms, faster) = (wheel_ms, "faiss-cpu");
        }
        faiss_undisturbed_ms = faiss_undisturbed_ms.min(undisturbed(&wheel.times));
        faiss_batch_ms = faiss_batch_ms.min(median(&wheel_batch));
        rival.stop()?;
    }
    let batch_ms = median(&batch);
    let lintel_undisturbed_ms = undisturbed(&lintel.times);
    let bytes_ratio = snapshot.vector_bytes() as f64 / (n * DIM * size_of::<f32>()) as f64;
    println!(
        "{{\"n\":{n},\"threads\":{threads},\"probes\":{n_probes},\"lintel_ms\":{lintel_ms:.4},\"faiss_flat_ms\":{faiss_ms:.4},\
         \"ratio\":{:.4},\"recall_at_5\":{:.5},\"bytes_ratio\":{bytes_ratio:.4},\"faster_faiss\":\"{faster}\",\
         \"faiss_build_ms\":{built_ms:.4},\"floor_ms\":{floor_ms:.4},\"floor_gb_s\":{:.2},\"of_floor\":{:.3},\
         \"undisturbed_lintel_ms\":{lintel_undisturbed_ms:.4},\"undisturbed_faiss_ms\":{faiss_undisturbed_ms:.4},\
         \"undisturbed_ratio\":{:.4},\"undisturbed_floor_ms\":{:.4},\
         \"batch\":{BATCH},\"batch_probes_per_s\":{:.0},\"faiss_batch_probes_per_s\":{:.0},\
         \"load_ms\":{:.1},\"build_ms\":{:.1},\"faiss_add_ms\":{:.1},\"faiss_recall_at_5\":{:.5},\"engine\":\"{:?}\"{}}}",
        lintel_ms / faiss_ms,
        recall(&lintel.found, &expected),
        (words.len() * 8) as f64 / floor_ms / 1e6,
        lintel_ms / floor_ms,
        lintel_undisturbed_ms / faiss_undisturbed_ms,
        undisturbed(&floor),
        BATCH as f64 / batch_ms * 1e3,
        BATCH as f64 / faiss_batch_ms * 1e3,
        milliseconds(load),
        milliseconds(build),
        milliseconds(faiss_build),
        recall(&built.found, &expected),
        snapshot.engine(),
        parts.iter().map(|part| format!(",{part}")).collect::<String>(),
    );
    Ok(())
}
