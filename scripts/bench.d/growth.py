"""Draws how the search grows with the gallery: the JSON of `scripts/bench match --json` in, one SVG out.

Both axes are logarithmic. Lines: Lintel, the faster FAISS, and the time to read the first pass's bytes (the floor).
"""

import json
import math
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 440, 70, 20, 50, 50
LINES = [("lintel_ms", "Lintel", "#1b6ca8"), ("faiss_flat_ms", "FAISS IndexFlatIP", "#c0392b"), ("floor_ms", "memory floor", "#7f8c8d")]


def main():
    measured = json.load(sys.stdin)
    runs = sorted([measured, *measured["growth"]], key=lambda run: run["n"])
    sizes = [run["n"] for run in runs]
    times = [run[key] for run in runs for key, _, _ in LINES]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(n):
        return LEFT + (math.log10(n) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(ms):
        return HEIGHT - BOTTOM - (math.log10(ms) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">Exact top 5 of n × 512, one thread, median of a probe</text>',
        f'<text x="{LEFT}" y="36" fill="#555">{measured["machine"]}, {measured["date"][:10]}, commit {measured["commit"]}</text>',
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power:g} ms</text>')
    for n in sizes:
        out.append(f'<path d="M{x(n):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        out.append(f'<text x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n:,}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">templates</text>')
    for index, (key, name, colour) in enumerate(LINES):
        points = " ".join(f"{x(run['n']):.1f},{y(run[key]):.1f}" for run in runs)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(run["n"]):.1f}" cy="{y(run[key]):.1f}" r="3" fill="{colour}"/>' for run in runs]
        row = TOP + 16 + 18 * index
        out.append(f'<path d="M{LEFT + 14} {row}h24" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{LEFT + 44}" y="{row + 4}">{name}</text>')
    print("\n".join([*out, "</svg>"]))


main()
