"""The Python side of the `pipeline` example: the same model calls on the same picture, as OpenCV users write them.

In: the folder of the models, threads, whether ONNX Runtime's threads spin ("1" or "0"), whether it takes denormal numbers for
zero (not unless it is told to), and how often Lintel runs the
landmark and the feature model for a face (twice each means: again on the framed box, and on the mirror image); on standard input a line
"<width> <height>", the picture as RGB bytes, then empty lines. Out: one line with the versions, then for each empty line
"<nanoseconds> <JSON of the answers>". The answers are compared with Lintel's, so that both do the same work.

What is fair here: the same ONNX Runtime, the same threads, sessions made once, tensors made by OpenCV's vectorised
`blobFromImage` where it can, no work inside the measured time that the answers do not need.
"""

import json
import sys
import time

import cv2
import numpy as np
import onnxruntime as ort

FOLDER, THREADS, SPINS, FLUSHES = sys.argv[1], int(sys.argv[2]), *sys.argv[3:5]
LANDMARK_RUNS, FEATURE_RUNS = map(int, sys.argv[5:])
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# Where the landmarks' bounding box lies in the box that the model is used to (face_core::landmarks).
FRAMING = np.array([0.010, 0.265, 0.991, 0.981])
POSE_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
POSE_SCALE = 1 / (np.array([0.229, 0.224, 0.225], np.float32) * 255)
ANGLES = np.arange(66, dtype=np.float32) * 3 - 99


def session(name):
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", SPINS)
    options.add_session_config_entry("session.set_denormal_as_zero", FLUSHES)
    opened = ort.InferenceSession(f"{FOLDER}/fr_{name}.onnx", options, providers=["CPUExecutionProvider"])
    inputs, outputs = opened.get_inputs()[0].name, [output.name for output in opened.get_outputs()]
    return lambda tensor: dict(zip(outputs, opened.run(None, {inputs: tensor})))


cv2.setNumThreads(THREADS)
DETECT, LANDMARK, POSE, LIVENESS, EYE, FEATURE = map(
    session, ["detect", "landmark", "pose", "liveness", "eye", "feature"]
)


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def resized(crop, size):
    """Area means when shrinking, bilinear when enlarging: what OpenCV recommends and Lintel does."""
    shrinks = crop.shape[1] >= size[0] and crop.shape[0] >= size[1]
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def cut(frame, left, top, right, bottom):
    """The rectangle; where it protrudes, the edge is repeated."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = round(left), round(top), round(right), round(bottom)
    inside = frame[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    margins = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
    return cv2.copyMakeBorder(inside, *margins, cv2.BORDER_REPLICATE) if any(margins) else inside


def detect(frame):
    height, width = frame.shape[:2]
    scale = min(320 / width, 240 / height)
    small = resized(frame, (round(width * scale), round(height * scale)))
    left, top = (320 - small.shape[1]) // 2, (240 - small.shape[0]) // 2
    if left or top:
        small = cv2.copyMakeBorder(
            small, top, 240 - top - small.shape[0], left, 320 - left - small.shape[1], cv2.BORDER_CONSTANT, value=(127,) * 3
        )
    found = DETECT(cv2.dnn.blobFromImage(small, 1 / 128, (320, 240), (127, 127, 127), swapRB=True))
    scores, boxes = found["scores"][0, :, 1], found["boxes"][0]
    likely = scores > 0.65
    scores = scores[likely]
    corners = (boxes[likely] * (320, 240, 320, 240) - (left, top, left, top)) / scale
    sized = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(sized, scores, 0.65, 0.4)
    return [sized[index] for index in kept]


def grey_tensor(crop, size, scale):
    return cv2.dnn.blobFromImage(resized(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), size), scale)


def landmarks_once(frame, box):
    x, y, w, h = box
    points = LANDMARK(grey_tensor(cut(frame, x, y, x + w, y + h), (64, 64), 1 / 256))["output"]
    return points.reshape(68, 2) * (w, h) + (x, y)


def landmarks(frame, box):
    points = landmarks_once(frame, box)
    if LANDMARK_RUNS == 1:
        return points
    low = points.min(axis=0)
    size = (points.max(axis=0) - low) / (FRAMING[2:] - FRAMING[:2])
    return landmarks_once(frame, (*(low - FRAMING[:2] * size), *size))


def pose(frame, box):
    x, y, w, h = box
    crop = resized(cut(frame, x - w / 4, y - h / 4, x + w * 5 / 4, y + h * 5 / 4), (224, 224))
    tensor = (cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) - POSE_MEAN) * POSE_SCALE
    bins = POSE(np.ascontiguousarray(tensor.transpose(2, 0, 1)[None]))
    return [float(softmax(bins[name][0]) @ ANGLES) for name in ("output", "617", "618")]


def live_score(frame, box):
    height, width = frame.shape[:2]
    x, y, w, h = box
    side, total = max(w, h) * 2.7, 0.0
    for crop_w, crop_h in ((w * 2.7, h * 2.7), (side, side)):
        shrink = min(width / crop_w, height / crop_h, 1)
        crop_w, crop_h = crop_w * shrink, crop_h * shrink
        left = min(max(x + w / 2 - crop_w / 2, 0), width - crop_w)
        top = min(max(y + h / 2 - crop_h / 2, 0), height - crop_h)
        crop = resized(cut(frame, left, top, left + crop_w, top + crop_h), (128, 128))
        total += softmax(next(iter(LIVENESS(cv2.dnn.blobFromImage(crop)).values()))[0])[0]
    return float(total / 2)


def eyes(frame, points):
    closed = []
    for first in (36, 42):
        eye = points[first : first + 6]
        (x, y), side = eye.mean(axis=0), np.linalg.norm(eye[3] - eye[0]) * 1.6
        crop = cut(frame, x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        closed.append(float(softmax(next(iter(EYE(grey_tensor(crop, (24, 24), 1 / 255)).values()))[0])[0]))
    return closed


def five(points):
    lids = [points[[37, 38, 40, 41]].mean(axis=0), points[[43, 44, 46, 47]].mean(axis=0)]
    return np.array([*lids, points[30], points[[48, 60]].mean(axis=0), points[[54, 64]].mean(axis=0)])


def aligned(frame, points):
    """The least-squares similarity to the template, in closed form; then the warp."""
    source, target = points - points.mean(axis=0), TEMPLATE - TEMPLATE.mean(axis=0)
    spread = (source**2).sum()
    a = (source * target).sum() / spread
    b = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    move = TEMPLATE.mean(axis=0) - turn @ points.mean(axis=0)
    return cv2.warpAffine(frame, np.column_stack([turn, move]), (112, 112), flags=cv2.INTER_LINEAR)


def embedding_once(crop):
    raw = FEATURE(cv2.dnn.blobFromImage(crop, 1 / 128, (112, 112), (127, 127, 127)))["output"][0]
    return raw / np.linalg.norm(raw)


def embedding(crop):
    if FEATURE_RUNS == 1:
        return embedding_once(crop)
    both = embedding_once(crop) + embedding_once(cv2.flip(crop, 1))
    return both / np.linalg.norm(both)


def quality(crop):
    """Sharpness, brightness and structure of the aligned face."""
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (56, 56), interpolation=cv2.INTER_AREA)
    sharpness = cv2.Laplacian(grey, cv2.CV_32F).var() / max(grey.var(), 1e-6)
    slopes = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    regions = [slopes[20:32, 12:26], slopes[20:32, 30:44], slopes[40:52, 16:40]]
    return float(sharpness), float(grey.mean()), min(float(region.mean()) for region in regions) / float(slopes.mean())


def look(frame):
    box = max(detect(frame), key=lambda found: found[2] * found[3])
    points = landmarks(frame, box)
    angles = pose(frame, box)
    crop = aligned(frame, five(points))
    return box, points, angles, quality(crop), live_score(frame, box), eyes(frame, points), embedding(crop)


width, height = map(int, sys.stdin.buffer.readline().split())
rgb = np.frombuffer(sys.stdin.buffer.read(width * height * 3), np.uint8).reshape(height, width, 3)
picture = np.ascontiguousarray(rgb[:, :, ::-1])
print(f"onnxruntime {ort.__version__}, opencv {cv2.__version__}, numpy {np.__version__}", flush=True)
for _ in sys.stdin.buffer:
    start = time.perf_counter_ns()
    box, _, angles, _, live, closed, feature = look(picture)
    elapsed = time.perf_counter_ns() - start
    answers = {
        "box": [float(value) for value in box],
        "pose": angles,
        "live": live,
        "closed": closed,
        "embedding": [round(float(value), 6) for value in feature],
    }
    print(elapsed, json.dumps(answers), flush=True)
