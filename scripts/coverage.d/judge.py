#!/usr/bin/env python3
"""Makes figures of what cargo-llvm-cov and cargo-mutants left, and holds them against the goals. Used by scripts/coverage.

In: NAME.lcov for lines; NAME.all (the list of all mutants) and NAME.N/mutants.out/outcomes.json for mutants.
Out: figures on standard output (JSON or a table), what is missing on standard error; exit 1 if a goal is missed.
Lines of tests are not counted: files of tests, and what stands below `#[cfg(test)] mod` in a file.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import sys

WORST = 5  # files named with a share of lines that is too small
TEST_FILE = re.compile(r"(^|/)(tests|benches|examples)(/|\.rs$)")
KINDS = {"CaughtMutant": "caught", "MissedMutant": "missed", "Timeout": "timeout", "Unviable": "unviable"}


class Unusable(Exception):
    """A report that is not what it should be: no figure is made of it."""


def percent(part, total):
    # Rounded down, so that a goal is not reached by rounding.
    return int(1000 * part / total) / 10 if total else 0.0


def first_test_line(source):
    """The line of `#[cfg(test)]` before a module in braces, from which on a file has tests only; past the end if there is none."""
    lines = source.splitlines()
    for number, line in enumerate(lines, 1):
        if line == "#[cfg(test)]" and any(re.match(r"mod \w+ \{$", after) for after in lines[number : number + 3]):
            return number
    return len(lines) + 1


def lines_by_file(report):
    """{file: {line: times}} of an lcov report. A line that several instances of a generic have counts if one of them ran."""
    files, lines = {}, None
    for entry in report.read_text().splitlines():
        if entry.startswith("SF:"):
            lines = files.setdefault(entry[3:], {})
        elif entry.startswith("DA:"):
            number, times = entry[3:].split(",")[:2]
            lines[int(number)] = max(lines.get(int(number), 0), int(times))
    if not files:
        raise Unusable(f"{report.name} names no file")
    return files


def inside(file, sources):
    """The file's path in the repository, or None if it is not below a folder of `sources`."""
    for folder in sources:
        if file.startswith(f"{folder}/"):
            return file[len(str(folder)) + 1 :]
    return None


def measure_lines(report, copies, folder):
    """Figures of the files below `folder` of the repository."""
    within = "" if folder == "." else f"{folder}/"
    by_file = {}
    for file, lines in lines_by_file(report).items():
        name = inside(file, copies)
        if name is None or not name.startswith(within) or TEST_FILE.search(name):
            continue
        end = first_test_line(pathlib.Path(file).read_text())
        counted = [times for number, times in lines.items() if number < end]
        if counted:
            by_file[name] = (sum(times > 0 for times in counted), len(counted))
    covered, total = (sum(pair[i] for pair in by_file.values()) for i in (0, 1))
    if total == 0:
        raise Unusable(f"{report.name} has no lines of ours")
    worst = sorted(by_file.items(), key=lambda item: item[1][0] - item[1][1])[:WORST]
    worst = [{"file": name, "covered": hit, "total": of} for name, (hit, of) in worst if hit < of]
    return {"covered": covered, "total": total, "percent": percent(covered, total), "worst": worst}


def measure_mutants(reports, crate, part, seconds):
    every = len(json.loads((reports / f"{crate}.all").read_text()))
    k, n = map(int, part.split("/"))
    counts, missed, late = dict.fromkeys(KINDS.values(), 0), [], []
    for half in sorted(reports.glob(f"{crate}.[01]")):
        outcomes = half / "mutants.out" / "outcomes.json"
        if not outcomes.exists():  # a part with no mutant in it
            continue
        for outcome in json.loads(outcomes.read_text())["outcomes"]:
            if outcome["scenario"] == "Baseline":
                if outcome["summary"] != "Success":
                    raise Unusable(f"{crate}: its tests fail with no mutant in it")
                continue
            kind, name = KINDS[outcome["summary"]], outcome["scenario"]["Mutant"]["name"]
            counts[kind] += 1
            if kind in ("missed", "timeout"):
                (missed if kind == "missed" else late).append(name)
    tried, due = sum(counts.values()), len(range(k - 1, every, n))
    if tried != due:
        raise Unusable(f"{crate}: {tried} mutants were tried where {due} were due")
    noticed = counts["caught"] + counts["timeout"]
    judged = noticed + counts["missed"]
    if judged == 0:
        raise Unusable(f"{crate}: not one mutant could be judged")
    return {**counts, "tried": tried, "of": every, "score": percent(noticed, judged), "seconds": seconds, "names_missed": sorted(missed), "names_timeout": sorted(late)}


def complaints(figures, goal_lines, goal_score):
    """Yields what is below a goal, and where to look."""
    for crate, told in figures["lines"].items():
        if told["percent"] < goal_lines:
            yield f"{crate}: {told['percent']} % of the lines, {goal_lines - told['percent']:.1f} below the goal of {goal_lines} %"
            for file in told["worst"]:
                yield f"  {file['file']}: {file['total'] - file['covered']} of {file['total']} lines are not run"
    for crate, told in figures["mutants"].items():
        if told["score"] < goal_score:
            yield f"{crate}: {told['score']} % of the mutants, {goal_score - told['score']:.1f} below the goal of {goal_score} %; missed:"
            yield from (f"  {name}" for name in told["names_missed"])


def table(figures):
    for crate, told in figures["lines"].items():
        print(f"{crate:<14} lines   {told['percent']:5.1f} %  {told['covered']} of {told['total']}")
    for crate, told in figures["mutants"].items():
        print(
            f"{crate:<14} mutants {told['score']:5.1f} %  {told['caught']} caught, {told['timeout']} too slow, {told['missed']} missed, "
            f"{told['unviable']} do not build; {told['tried']} of {told['of']} tried"
        )


def self_test(reports):
    """On the crate that was made for it (made.rs): what nobody tests is found, what is tested is not blamed, and goals can be missed."""
    lines = measure_lines(reports / "made.lcov", [reports / "made" / "1"], ".")
    mutants = measure_mutants(reports, "made", "1/1", 0)
    figures = {"lines": {"made": lines}, "mutants": {"made": mutants}}
    dead = []
    # may_vote has three lines and forgotten has four.
    if (lines["covered"], lines["total"]) != (3, 7):
        dead.append(f"lines: 3 of 7 are run, but {lines['covered']} of {lines['total']} were found")
    if not mutants["names_missed"] or not all("forgotten" in name for name in mutants["names_missed"]) or mutants["caught"] < 3:
        dead.append(f"mutants: those of forgotten() and no others are missed, but these were: {mutants['names_missed']}, {mutants['caught']} caught")
    told = list(complaints(figures, 80, 70))
    if not any("src/lib.rs: 4 of 7" in line for line in told) or not any("forgotten" in line for line in told):
        dead.append(f"goals: nothing was said of {told}")
    if list(complaints(figures, 42, 1)):
        dead.append("goals: something is said when they are met")
    try:
        measure_mutants(reports, "made", "1/2", 0)
        dead.append("parts: nobody missed the mutants that were not tried")
    except Unusable:
        pass
    return dead


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--self-test", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--reports", type=pathlib.Path)
    parser.add_argument("--copies", nargs="+", type=pathlib.Path, help="where the sources were when they were measured")
    parser.add_argument("--measured", nargs="+", default=[], metavar="CRATE=FOLDER")
    for flag in ("--lines", "--mutants", "--json"):
        parser.add_argument(flag, choices=("yes", "no"))
    parser.add_argument("--goal-lines", type=int)
    parser.add_argument("--goal-score", type=int)
    parser.add_argument("--took", action="append", default=[], metavar="CRATE=SECONDS")
    for name in ("--part", "--commit", "--command"):
        parser.add_argument(name)
    parser.add_argument("--keep", type=pathlib.Path)
    asked = parser.parse_args()
    if asked.self_test:
        dead = self_test(asked.self_test)
        for line in dead:
            print(f"error: self-test: {line}", file=sys.stderr)
        return 1 if dead else 0

    took = dict(pair.split("=") for pair in asked.took)
    figures = {"lines": {}, "mutants": {}}
    wrong = []
    for crate, folder in (pair.split("=") for pair in asked.measured):
        try:
            if asked.lines == "yes":
                figures["lines"][crate] = measure_lines(asked.reports / f"{crate}.lcov", asked.copies, folder)
            if asked.mutants == "yes":
                figures["mutants"][crate] = measure_mutants(asked.reports, crate, asked.part, int(took[crate]))
        except (Unusable, OSError, ValueError, KeyError) as error:
            wrong.append(f"{crate}: no figure: {error}")
    wrong.extend(complaints(figures, asked.goal_lines, asked.goal_score))
    told = {
        "ok": not wrong,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%FT%TZ"),
        "commit": asked.commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": asked.command,
        "goals": {"lines_percent": asked.goal_lines, "score_percent": asked.goal_score},
        **{kind: measured for kind, measured in figures.items() if measured},
    }
    if asked.keep:
        asked.keep.write_text(json.dumps(told, indent=2) + "\n")
        print(f"kept in {asked.keep}", file=sys.stderr)
    if asked.json == "yes":
        print(json.dumps(told))
    else:
        table(figures)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
