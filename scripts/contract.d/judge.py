"""What came of the runs of schemathesis: an operation holds if it succeeded at least once and nothing was found against it.

    judge.py DOCUMENT REPORT...          says what was covered, and counts the operations
    judge.py --spoil < DOCUMENT          a document that is wrong in known places, for the next one
    judge.py --found DOCUMENT REPORT     whether a run against that one has found all of them

In: the OpenAPI document, reports (NDJSON). Answers that are always the same refusal prove nothing about an operation, however
many they are. Exit 1 if anything does not hold.
"""

import collections
import json
import sys

METHODS = ("get", "post", "put", "patch", "delete")
# What cannot succeed here, and the tests in which it does.
ELSEWHERE = {
    "stream_events": "a stream that does not end: cloud-hub/tests/hub/events.rs",
    "get_snapshot": "its id comes sealed for a device that lacks much: cloud-hub/tests/hub/snapshots.rs",
    "get_snapshot_manifest": "its id comes sealed for a device that lacks much: cloud-hub/tests/hub/snapshots.rs",
}
# Ways to be wrong that must not stay unnoticed: by operation, what finds it.
SPOILT = {
    "get_tenant": "response_schema_conformance",
    "list_sites": "status_code_conformance",
    "get_jwks": "content_type_conformance",
    "log_in": "real_request_is_taken",
    "list_webhooks": "ignored_auth",
    "nowhere": "never succeeded",
}
# A run that goes on from no answer is none.
LINKED_AT_LEAST = 40


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


class Seen:
    def __init__(self, *reports):
        self.statuses = collections.defaultdict(collections.Counter)
        self.faults = collections.defaultdict(set)
        self.phases = collections.Counter()
        # Requests that took what another was answered with, and those of them that succeeded.
        self.linked = self.linked_well = 0
        for report in reports:
            with open(report, encoding="utf-8") as lines:
                for line in lines:
                    self.event(json.loads(line))

    def event(self, event):
        if "ScenarioFinished" in event:
            self.scenario(event["ScenarioFinished"])
        elif "NonFatalError" in event:
            error = event["NonFatalError"]
            what = error["value"].get("message") or error["value"].get("type")
            self.faults[error.get("label", "schemathesis")].add(("error", str(what)[:300]))

    def succeeded(self, label):
        return any(status and status < 400 for status in self.statuses[label])

    def scenario(self, scenario):
        recorder = scenario["recorder"]
        cases = {name: case["value"] for name, case in (recorder.get("cases") or {}).items()}
        label = lambda name: f"{cases[name]['method']} {cases[name]['path']}" if name in cases else recorder["label"]
        for name, call in (recorder.get("interactions") or {}).items():
            self.phases[scenario["phase"]] += 1
            status = (call.get("response") or {}).get("status_code")
            self.statuses[label(name)][status] += 1
            if recorder["cases"].get(name, {}).get("is_transition_applied"):
                self.linked += 1
                self.linked_well += bool(status and status < 400)
        for name, checks in (recorder.get("checks") or {}).items():
            for check in checks:
                if check["status"] == "failure":
                    self.faults[label(name)].add((check["name"], text_of(check)))


def text_of(check):
    failure = check.get("failure_info") or check.get("failure") or {}
    failure = failure.get("failure", failure) if isinstance(failure, dict) else {}
    return str(failure.get("message") or failure.get("title") or "")[:300]


def faults_of(document, seen):
    """What speaks against each operation, and against what is none (a method that there is not)."""
    labels = dict(operations(document))
    failed = {label: [f"{check}: {text}" for check, text in sorted(faults)] for label, faults in seen.faults.items()}
    for label, operation in labels.items():
        succeeded, elsewhere = seen.succeeded(label), operation["operationId"] in ELSEWHERE
        if not succeeded and not elsewhere:
            failed.setdefault(label, []).append(f"never succeeded; answers: {dict(seen.statuses[label])}")
        if succeeded and elsewhere:
            failed.setdefault(label, []).append("succeeded, and judge.py says that it cannot")
    return failed


def judge(document, *reports):
    seen = Seen(*reports)
    failed = faults_of(document, seen)
    if seen.linked_well < LINKED_AT_LEAST:
        failed["one after the other"] = [f"{seen.linked_well} requests succeeded with what another was answered with; {LINKED_AT_LEAST} should"]
    labels = dict(operations(document))
    held = [label for label in labels if label not in failed and seen.succeeded(label)]
    excused = [label for label in labels if label not in failed and not seen.succeeded(label)]
    answers = collections.Counter()
    for statuses in seen.statuses.values():
        for status, count in statuses.items():
            answers[f"{status // 100}xx" if status else "none"] += count
    tell = lambda line: print(line, file=sys.stderr)
    counted = lambda counts: ", ".join(f"{what} {count}" for what, count in counts)
    tell(f"requests: {sum(seen.phases.values())} ({counted(seen.phases.items())})")
    tell(f"answers: {counted(sorted(answers.items()))}")
    tell(f"one after the other: {seen.linked} requests took what another was answered with, {seen.linked_well} succeeded")
    tell(f"coverage: {len(held)} of {len(labels)} operations succeeded and hold; {len(excused)} elsewhere")
    for label in excused:
        tell(f"  elsewhere: {label}: {ELSEWHERE[labels[label]['operationId']]}")
    for label, faults in failed.items():
        for fault in faults:
            tell(f"error: {label}: {fault}")
    print(f"{len(held)} passed, {len(failed)} failed")
    return 1 if failed or not held else 0


def spoil(document):
    """Keeps few operations, wrongly described, and adds one that there is not."""
    paths = {}
    for path, item in document["paths"].items():
        kept = {method: item[method] for method in METHODS if method in item and item[method]["operationId"] in SPOILT}
        if kept:
            paths[path] = kept
    by_name = {operation["operationId"]: operation for item in paths.values() for operation in item.values()}
    schema = {"type": "object", "required": ["a_field_that_is_not_there"]}
    by_name["get_tenant"]["responses"]["200"]["content"]["application/json"]["schema"] = schema
    del by_name["list_sites"]["responses"]["200"]
    answer = by_name["get_jwks"]["responses"]["200"]
    answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
    # Its real request goes to another place, which refuses it.
    paths["/v1/login/refresh"] = {"post": {**by_name["log_in"]}}
    del paths["/v1/login"]
    # Of two that take no credentials, one says that it does.
    webhooks = paths.pop("/v1/webhooks")["get"]
    paths["/health/live"] = {"get": {**webhooks, "responses": {"200": {"description": "It lives"}}}}
    paths["/v1/nowhere"] = {"get": {"operationId": "nowhere", "responses": {"200": {"description": "?"}, "404": {"description": "no"}}}}
    return {**document, "paths": paths}


def found(document, report):
    failed = faults_of(document, Seen(report))
    missed = 0
    for label, operation in operations(document):
        expected = SPOILT[operation["operationId"]]
        if not any(fault.startswith(expected) for fault in failed.get(label, ())):
            missed += 1
            print(f"error: {label} is described wrongly, and nothing says '{expected}': {failed.get(label)}", file=sys.stderr)
    print(f"{len(SPOILT) - missed} of {len(SPOILT)} faults that are there on purpose were found", file=sys.stderr)
    return 1 if missed else 0


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--spoil"]:
            json.dump(spoil(json.load(sys.stdin)), sys.stdout)
        case ["--found", document, report]:
            sys.exit(found(read(document), report))
        case [document, report, *more]:
            sys.exit(judge(read(document), report, *more))
        case _:
            sys.exit(__doc__)
