# SPDX-License-Identifier: Apache-2.0
"""Compares each part of the package with a plain implementation of the same task."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from naive.pipeline import SIZE as OFFICIAL_SIZE
from naive.pipeline import NaivePipeline, open_network, preprocess
from PIL import Image
from skimage.data import astronaut

from dan_ros.backends import Backend, open_backend
from dan_ros.bench.pipelines import COUNTS, INTERVAL, SIZES, IntervalRun
from dan_ros.bench.scenes import make_scene
from dan_ros.bench.timer import Comparison, Limit, compare
from dan_ros.detect import open_detector
from dan_ros.faces.crop import crop_face
from dan_ros.model import store
from dan_ros.network.export import export_onnx, read_fused
from dan_ros.network.quantize import quantize_onnx
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame

PORTRAIT = np.ascontiguousarray(astronaut()[..., ::-1])  # uint8 [512, 512, 3], BGR
FACE = PORTRAIT[30:230, 120:320]  # the face and its surroundings
FACE_BOX = np.array([166, 63, 279, 176], np.float32)  # xyxy, pixels of the portrait
GROWING_SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1440))

Variants = dict[str, Callable[[], object]]


def scene(width: int, height: int, faces: int) -> np.ndarray:
    """Make an image with real faces in a row, uint8 [height, width, 3], BGR."""
    return make_scene(width, height, faces, FACE)


def make_faces(size: int, count: int) -> np.ndarray:
    """Cut out the face at slightly different positions, uint8 [count, size, size, 3], RGB."""
    shifts = np.random.default_rng(0).integers(-12, 13, (count, 2))
    crops = [astronaut()[63 + y : 176 + y, 166 + x : 279 + x] for y, x in shifts]
    return np.stack([cv2.resize(crop, (size, size)) for crop in crops])


@contextmanager
def models_at(size: int) -> Iterator[tuple[str, str]]:
    """Write the bundled model for another face size; yield the fp32 and the int8 file."""
    file = store.read_model(store.FLOAT_MODEL)
    fused, info = read_fused(file.content, file.name)
    info = replace(info, input_size=(size, size))
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder, 'fp32.onnx'), Path(folder, 'int8.onnx')
        export_onnx(fused, info, fp32)
        quantize_onnx(fused, info, int8, [make_faces(size, 32)])
        yield str(fp32), str(int8)


def compare_networks(rounds: int) -> list[Comparison]:
    """Time the network at the size of the paper and of the bundled model, for 1 and 4 faces."""
    with models_at(OFFICIAL_SIZE) as (fp32, int8):
        backends = {
            'torch fused fp32, 224': open_backend('torch', fp32),
            'OpenVINO float, 224': open_backend('openvino', fp32),
            'ONNX Runtime fp32, 224': open_backend('onnxruntime', fp32),
            'OpenVINO int8, 224': open_backend('openvino', int8),
            'ONNX Runtime int8, 224': open_backend('onnxruntime', int8),
            'bundled, ONNX Runtime fp32, 96': open_backend('onnxruntime', store.FLOAT_MODEL),
            'bundled, OpenVINO int8, 96': open_backend('openvino', store.INT8_MODEL),
            'bundled, ONNX Runtime int8, 96': open_backend('onnxruntime', store.INT8_MODEL),
        }
        return [_compare_network(backends, batch, rounds) for batch in COUNTS]


def _compare_network(backends: dict[str, Backend], batch: int, rounds: int) -> Comparison:
    network = open_network()
    faces = torch.rand(batch, 3, OFFICIAL_SIZE, OFFICIAL_SIZE)
    variants: Variants = {'torch eager, unfused, 224': torch.no_grad()(lambda: network(faces))}
    for name, backend in backends.items():
        variants[name] = partial(backend.infer, make_faces(backend.model.input_size[0], batch))
    return compare(f'network, {batch} face(s)', variants, Limit(rounds))


def compare_detectors(rounds: int) -> list[Comparison]:
    """Time the Haar cascade, OpenCV's YuNet and ours by width of the image."""
    yunet, haar = open_detector('yunet'), open_detector('haar')
    candidates = store.candidate_paths(store.KNOWN_MODELS['yunet'])
    path = str(next(path for path in candidates if path.is_file()))
    comparisons = []
    for width in (320, 640, 1280):
        image = scene(width, width * 3 // 4, 1)
        opencv_yunet = cv2.FaceDetectorYN.create(path, '', (image.shape[1], image.shape[0]), 0.6)
        variants: Variants = {
            'Haar cascade': partial(haar.detect, image),
            'YuNet, OpenCV': partial(opencv_yunet.detect, image),
            'YuNet, here': partial(yunet.detect, image),
        }
        comparisons.append(compare(f'detector, {width} px wide', variants, Limit(rounds)))
    return comparisons


def compare_crops(rounds: int) -> list[Comparison]:
    """Time the step from image and boxes to the input of the network, for 1 and 4 faces."""
    return [_compare_crops(count, 5 * rounds) for count in COUNTS]


def _compare_crops(count: int, rounds: int) -> Comparison:
    shifts = np.random.default_rng(0).integers(-12, 13, (count, 1)).astype(np.float32)
    boxes = FACE_BOX + shifts  # [count, 4]

    def naive() -> object:
        picture = Image.fromarray(cv2.cvtColor(PORTRAIT, cv2.COLOR_BGR2RGB))
        return torch.cat([preprocess(picture.crop(tuple(box.tolist()))) for box in boxes])

    def ours(batch: np.ndarray) -> None:
        for box, crop in zip(boxes, batch, strict=True):
            crop_face(Frame(PORTRAIT), box, 1.0, crop)

    variants: Variants = {'PIL, floats, 224': naive}
    for size in (OFFICIAL_SIZE, 96):
        batch = np.empty((count, size, size, 3), np.uint8)
        variants[f'here, uint8, {size}'] = partial(ours, batch)
    return compare(f'crop and batch, {count} face(s)', variants, Limit(rounds))


def compare_pipelines(rounds: int) -> list[Comparison]:
    """Time the step from image to probabilities, with the official demo as the baseline.

    The bundled model is smaller than the official one, so ours also runs at the official size.
    """
    with models_at(OFFICIAL_SIZE) as (fp32, _):
        ours = {
            'here, 224 px fp32': ExpressionPipeline.open(fp32, 'onnxruntime', 'yunet'),
            'here, 96 px int8': ExpressionPipeline.open(detector='yunet'),
            'here, 96 px int8, one thread': ExpressionPipeline(
                open_detector('yunet', threads=1), open_backend(threads=1)
            ),
        }
    naive = NaivePipeline()
    return [_compare_pipelines(*case, naive, ours, rounds) for case in product(SIZES, COUNTS)]


def _compare_pipelines(
    size: tuple[int, int],
    faces: int,
    naive: NaivePipeline,
    ours: dict[str, ExpressionPipeline],
    rounds: int,
) -> Comparison:
    image = scene(*size, faces)
    found = [len(naive.run(image)), *(len(p.run([Frame(image)])[0]) for p in ours.values())]
    if set(found) != {faces}:
        raise RuntimeError(f'the variants do not do the same work: {found} of {faces} faces found')
    variants: Variants = {'official demo, 224 px fp32': partial(naive.run, image)}
    variants |= {name: partial(pipeline.run, [Frame(image)]) for name, pipeline in ours.items()}
    images = {}
    for name in list(ours)[1:]:
        with_interval = f'{name}, detector.interval {INTERVAL}'
        variants[with_interval] = IntervalRun(ours[name], size, faces, FACE, INTERVAL)
        images[with_interval] = INTERVAL
    title = f'pipeline, {size[0]}x{size[1]}, {faces} face(s)'
    return compare(title, variants, Limit(rounds), images)


def compare_growth(rounds: int) -> list[Comparison]:
    """Time the pipeline by number of faces, image size and number of cameras."""
    pipeline = ExpressionPipeline.open(detector='yunet')
    frame = Frame(scene(640, 480, 1))
    cases = {
        'faces, 640x480': {str(n): [Frame(scene(640, 480, n))] for n in (1, 2, 4, 8)},
        'pixels, one face': {f'{w}x{h}': [Frame(scene(w, h, 1))] for w, h in GROWING_SIZES},
        'cameras, 640x480, one face each': {str(n): [frame] * n for n in (1, 2, 4)},
    }
    return [
        compare(
            f'pipeline by {title}',
            {name: partial(pipeline.run, frames) for name, frames in by_name.items()},
            Limit(rounds),
        )
        for title, by_name in cases.items()
    ]
