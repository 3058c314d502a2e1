"""Makes an INT8 pack of a model pack: ONNX Runtime's static quantiser, file by file, kept only where it pays.

In: a pack (manifest and weights) and the tensors that its models are fed on real pictures (examples/calibration_tensors.rs).
Out: a pack in a folder of its own, with every file that is faster and near enough in INT8 and the others as they are, and a
table of time and error on standard output. The quantiser sees the first half of the tensors, the error is measured on the
second. Warm-up answers and hashes are written down as they are on this machine; thresholds are copied and say so.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

# Quantisation by channel needs opset 13; the pack's files have 9.
OPSET = 17
# An INT8 file is taken when its median time is below this share of the original's: less is not worth an error.
WORTH = 0.9
# Largest error at the 95th percentile, in the unit of each task. Half of what one frame's noise already does to it.
LIMITS = {"detect": 0.03, "landmark": 0.01, "feature": 0.005, "liveness": 0.03, "eye": 0.05, "pose": 2.0}
UNITS = {
    "detect": "score of the best box",
    "landmark": "share of the box",
    "feature": "1 - cosine",
    "liveness": "probability",
    "eye": "probability",
    "pose": "degrees",
}
ROUNDS = 60


def softmax(values):
    exponents = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def meaning(task, outputs):
    """What the programs read from the outputs, as numbers whose differences mean something."""
    if task == "detect":
        return outputs[0][0][:, 1].max(keepdims=True)
    if task == "feature":
        return outputs[0][0] / np.linalg.norm(outputs[0][0])
    if task in ("liveness", "eye"):
        return softmax(outputs[0][0])[:1]
    if task == "pose":
        return np.array([(softmax(output[0]) * np.arange(66)).sum() * 3 - 99 for output in outputs])
    return outputs[0][0]


def error(task, exact, quantised):
    exact, quantised = meaning(task, exact), meaning(task, quantised)
    if task == "feature":
        return 1 - float(exact @ quantised)
    return float(np.abs(exact - quantised).max())


class Tensors(CalibrationDataReader):
    def __init__(self, name, tensors):
        self.feeds = iter([{name: tensor} for tensor in tensors])

    def get_next(self):
        return next(self.feeds, None)


def session(path):
    """As the programs open one: one thread, no spinning, every optimisation."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantised(source, name, tensors, work):
    work.mkdir(parents=True, exist_ok=True)
    newer, prepared, target = work / "opset.onnx", work / "prepared.onnx", work / "int8.onnx"
    onnx.save(version_converter.convert_version(onnx.load(source), OPSET), newer)
    quant_pre_process(newer, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Tensors(name, tensors),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target


def compared(task, source, target, name, tensors):
    """Median times in turns, and the errors on tensors that the quantiser has not seen."""
    exact, fast = session(source), session(target)
    errors = [error(task, exact.run(None, {name: one}), fast.run(None, {name: one})) for one in tensors]
    times = ([], [])
    for turn in range(ROUNDS):
        for one, kept in zip((exact, fast), times):
            began = time.perf_counter()
            one.run(None, {name: tensors[turn % len(tensors)]})
            kept.append(time.perf_counter() - began)
    f32_ms, int8_ms = (float(np.median(kept)) * 1e3 for kept in times)
    return f32_ms, int8_ms, float(np.percentile(errors, 95))


def noise(seed, shape, mean, scale):
    """The warm-up question: SplitMix64's top bytes (crates/face-runtime/src/warm_up.rs)."""
    mask, state, count = (1 << 64) - 1, seed, int(np.prod(shape))
    pixels = np.empty(count, dtype=np.float32)
    for index in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        pixels[index] = (z ^ (z >> 31)) >> 56
    planes = pixels.reshape(shape)
    to_plane = lambda values: np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)
    return ((planes - to_plane(mean)) / to_plane(scale)).astype(np.float32)


def described(entry, path):
    """The manifest's entry of a file, with hash, length and warm-up answers as they are here."""
    content = path.read_bytes()
    entry = dict(entry, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    model = onnx.load(path)
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    entry["onnx"] = dict(entry["onnx"], ir_version=model.ir_version, opset=opset)
    spec, question = entry["input"], entry["warm_up"]
    fed = noise(question["seed"], spec["shape"], spec["mean"], spec["scale"])
    names = [output["name"] for output in entry["outputs"]]
    answers = []
    for name, values in zip(names, session(path).run(names, {spec["name"]: fed})):
        flat = values.astype(np.float64).ravel()
        count = min(8, flat.size)
        samples = [float(flat[index * flat.size // count]) for index in range(count)]
        answers.append({"output": name, "rms": float(np.sqrt((flat**2).mean())), "samples": samples})
    # Rounding of whole steps of INT8 differs more between processors than that of floats.
    entry["warm_up"] = dict(question, tolerance=max(question["tolerance"], 0.05), answers=answers)
    return entry


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    return value.isoformat()


def is_tables(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def write(table, lines, path=""):
    later = {}
    for key, value in table.items():
        if is_tables(value) or (isinstance(value, dict) and path != "files."):
            later[key] = value
        else:
            lines.append(f"{key} = {toml(value)}")
    for key, value in later.items():
        for one in value if is_tables(value) else [value]:
            lines += ["", f"[[{path}{key}]]" if is_tables(value) else f"[{path}{key}]"]
            write(one, lines, f"{path}{key}." if key != "files" else "files.")
    return lines


def main():
    parser = argparse.ArgumentParser()
    for name in ("manifest", "weights", "tensors", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tasks", default="all", help="which files to try, separated by commas")
    parser.add_argument("--keep-all", action="store_true", help="take every INT8 file that was tried, whatever it costs")
    arguments = parser.parse_args()
    manifest = tomllib.loads(arguments.manifest.read_text())
    tried = set(LIMITS) if arguments.tasks == "all" else set(arguments.tasks.split(","))
    if tried - set(LIMITS):
        sys.exit(f"no such task: {', '.join(sorted(tried - set(LIMITS)))}; there are {', '.join(LIMITS)}")
    if arguments.out.exists():
        sys.exit(f"{arguments.out} exists: name a folder that does not")
    work = arguments.out.with_name(f".{arguments.out.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    pack = work / "pack"
    pack.mkdir(parents=True)
    rows, taken = [], []
    for number, entry in enumerate(manifest["files"]):
        task, spec, source = entry["task"], entry["input"], arguments.weights / entry["path"]
        shutil.copy(source, pack / entry["path"])
        if task not in tried:
            continue
        tensors = np.fromfile(arguments.tensors / f"{task}.f32", dtype="<f4").reshape(-1, *spec["shape"])
        if len(tensors) < 8:
            sys.exit(f"{task}: only {len(tensors)} tensors to calibrate with; give more pictures of faces")
        seen, unseen = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        target = quantised(source, spec["name"], seen, work / task)
        f32_ms, int8_ms, p95 = compared(task, source, target, spec["name"], unseen)
        worth = int8_ms <= WORTH * f32_ms and p95 <= LIMITS[task]
        if worth or arguments.keep_all:
            shutil.copy(target, pack / entry["path"])
            manifest["files"][number] = described(entry, pack / entry["path"])
            taken.append(task)
        rows.append((task, f32_ms, int8_ms, int8_ms / f32_ms, p95, LIMITS[task], UNITS[task], worth))
    print(f"{'file':<10}{'f32 ms':>8}{'int8 ms':>9}{'ratio':>7}{'error p95':>11}{'limit':>8}  unit, worth it")
    for task, f32_ms, int8_ms, ratio, p95, limit, unit, worth in rows:
        print(f"{task:<10}{f32_ms:>8.2f}{int8_ms:>9.2f}{ratio:>7.2f}{p95:>11.4f}{limit:>8}  {unit}: {'yes' if worth else 'no'}")
    if not taken:
        shutil.rmtree(work)
        print("\nno file is worth it: no pack is written (--keep-all writes one all the same, for measuring)")
        return
    manifest["name"] += "-int8"
    # Boxes and landmarks decide what the embedder sees.
    if {"detect", "landmark", "feature"} & set(taken):
        manifest["space_id"] += "-int8"
        for threshold in manifest["thresholds"]:
            threshold["data_set"] += " (of the f32 pack; not measured with these weights)"
    manifest["provenance"] += f" INT8 by ONNX Runtime {ort.__version__}'s static quantiser: {', '.join(taken)}."
    (pack / "manifest.toml").write_text("\n".join(write(manifest, [])) + "\n")
    pack.rename(arguments.out)
    shutil.rmtree(work)
    print(f"\nwritten to {arguments.out} with {', '.join(taken)} in INT8; next:\n"
          f"  edge-agent models add {arguments.out}\n"
          f"  edge-agent eval pairs --pack {manifest['name']} --images DIR --pairs FILE.csv")


main()
