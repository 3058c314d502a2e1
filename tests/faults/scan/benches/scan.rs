//! How many bytes a second are looked through for ten people, by what they are: `cargo bench -p vector-scan`. A disk of a hub is mostly
//! zeros; what is sealed is noise; a dump is digits.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vector_scan::Scan;

const BYTES: usize = 1 << 20;
const PEOPLE: usize = 10;

fn noise(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn scan(criterion: &mut Criterion) {
    let mut state = 0x1234_5678_9abc_def1;
    let mut component = || ((noise(&mut state) >> 40) as f32) / (1_u64 << 23) as f32 - 1.0;
    let people: Vec<Vec<f32>> = (0..PEOPLE).map(|_| (0..512).map(|_| component()).collect()).collect();
    let sealed: Vec<u8> = (0..BYTES).map(|_| (noise(&mut state) >> 32) as u8).collect();
    let digits: Vec<u8> = sealed.iter().map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]).collect();
    let vectors: Vec<u8> = (0..BYTES / 4).flat_map(|at| people[at / 512 % PEOPLE][at % 512].to_le_bytes()).collect();

    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
    for (name, bytes) in
        [("zeros", &vec![0; BYTES]), ("sealed", &sealed), ("hexadecimal digits", &digits), ("vectors", &vectors)]
    {
        let every = Scan::of(&people);
        group.bench_with_input(BenchmarkId::new("every form", name), bytes, |bencher, bytes| {
            bencher.iter(|| black_box(every.look(bytes)));
        });
        let stored = Scan::of(&people).as_stored();
        group.bench_with_input(BenchmarkId::new("as stored", name), bytes, |bencher, bytes| {
            bencher.iter(|| black_box(stored.look(bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
