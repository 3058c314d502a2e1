//! One probe against a whole gallery: each kernel, FAISS `IndexFlatIP`, and the time that reading the f32 templates once
//! takes, which no f32 search can beat. `cargo bench -p face-index --bench search`. The figures that are kept come from
//! `examples/match_floor.rs`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use face_core::{DIM, Embedding, Gallery, PersonId, TemplateId};
use face_index::{Engine, Kernel, Snapshot};
use uuid::Uuid;

fn embedding(state: &mut u64) -> Embedding {
    let raw = std::array::from_fn(|_| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        ((*state >> 40) as f32) / (1_u64 << 23) as f32 - 1.0
    });
    Embedding::from_raw(raw).expect("noise has a norm")
}

fn rows(n: usize, state: &mut u64) -> Vec<(PersonId, TemplateId, Embedding)> {
    let id = |row: usize| Uuid::from_u128(row as u128 + 1);
    (0..n).map(|row| (PersonId(id(row)), TemplateId(id(row)), embedding(state))).collect()
}

/// Adds up every float of `bytes` in 64 independent sums: as little work as reading them allows.
fn read_once(values: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 64];
    for chunk in values.chunks_exact(64) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value;
        }
    }
    sums.iter().sum()
}

fn search(criterion: &mut Criterion) {
    let mut state = 0x1234_5678_9ABC_DEF1;
    let probe = embedding(&mut state);
    for n in [1_000, 10_000, 100_000] {
        let rows = rows(n, &mut state);
        let floats: Vec<f32> = rows.iter().flat_map(|(_, _, embedding)| *embedding.as_slice()).collect();
        let mut group = criterion.benchmark_group(format!("search_{n}"));
        group.sample_size(20).throughput(Throughput::Bytes((n * DIM * size_of::<f32>()) as u64));
        group.bench_function("memory_floor", |bencher| bencher.iter(|| read_once(black_box(&floats))));
        drop(floats);
        for kernel in Kernel::available() {
            let snapshot = Snapshot::with_kernel(rows.clone(), kernel).expect("builds");
            let name = BenchmarkId::new("exact", format!("{kernel:?}"));
            group.bench_function(name, |bencher| bencher.iter(|| snapshot.search(black_box(&probe), 5)));
        }
        if cfg!(feature = "faiss") {
            let snapshot = Snapshot::build(rows, Engine::Faiss).expect("builds");
            group.bench_function("faiss_flat", |bencher| bencher.iter(|| snapshot.search(black_box(&probe), 5)));
        }
        group.finish();
    }
}

criterion_group!(benches, search);
criterion_main!(benches);
