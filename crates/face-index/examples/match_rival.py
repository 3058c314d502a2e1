"""The faiss-cpu side of `match_floor`: an `IndexFlatIP` that times its own searches.

In: on standard input n x 512 f32 templates and the probes, then lines "<first probe> <how many>".
Out: one line with the version, then for each line asked "<nanoseconds> <rows of the first probe>".
"""

import os
import sys
import time

import faiss
import numpy

DIM, K = 512, 5
n_rows, n_probes = int(sys.argv[1]), int(sys.argv[2])
faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def read(n):
    return numpy.frombuffer(sys.stdin.buffer.read(n * DIM * 4), dtype="<f4").reshape(n, DIM)


index = faiss.IndexFlatIP(DIM)
while index.ntotal < n_rows:
    index.add(read(min(10_000, n_rows - index.ntotal)))
probes = read(n_probes)
index.search(probes[:1], K)
print(f"{faiss.__version__} {faiss.get_compile_options().strip()}", flush=True)
for line in sys.stdin.buffer:
    first, n = map(int, line.split())
    start = time.perf_counter_ns()
    _, rows = index.search(probes[first : first + n], K)
    elapsed = time.perf_counter_ns() - start
    print(elapsed, *rows[0], flush=True)
