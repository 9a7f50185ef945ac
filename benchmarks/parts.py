"""The parts, each beside what people would write themselves."""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from floor import count_products, products_per_second
from measuring import Comparison, compare
from naive.pipeline import NaivePipeline, open_network, preprocess
from PIL import Image
from skimage.data import astronaut

from dan_ros import model_store
from dan_ros.backends import open_backend
from dan_ros.crops import cut_face
from dan_ros.detect import open_detector
from dan_ros.detect.yunet import STRIDES, for_images
from dan_ros.network.export import export_onnx, read_fused
from dan_ros.network.quantise import quantise_onnx
from dan_ros.pipeline import STEPS, ExpressionPipeline
from dan_ros.types import Frame, Prior

OFFICIAL_SIZE = 224
FACE_BOX = np.array([166, 63, 279, 176], np.float32)  # of the portrait
NAIVE = 'torch eager, unfused'


@dataclass
class Growth:
    """Median times of the pipeline by what grows, and the floor of the arithmetic, milliseconds."""

    title: str
    times_ms: dict[str, float]
    floors_ms: dict[str, float]


class Floor:
    """The least time of the arithmetic of the detector and of the bundled model on this machine."""

    def __init__(self) -> None:
        self.float_per_s, self.int8_per_s = (products_per_second(kind) for kind in (False, True))
        self._network = model_store.read_model(model_store.INT8_MODEL).content
        self._detector = for_images(model_store.read_model('yunet').content)

    def network_ms(self, faces: int) -> float:
        """Of the int8 network."""
        return 1e3 * faces * count_products(self._network, N=1) / self.int8_per_s

    def detector_ms(self, width: int, height: int) -> float:
        """Of YuNet, in float; it sees images of whole strides."""
        width, height = (side + -side % STRIDES[-1] for side in (width, height))
        return 1e3 * count_products(self._detector, height=height, width=width) / self.float_per_s


def portrait() -> np.ndarray:
    """The face of the demo, uint8 [512, 512, 3], BGR."""
    return np.ascontiguousarray(astronaut()[..., ::-1])


def scene(width: int, height: int, faces: int) -> np.ndarray:
    """An image with some faces in a row, uint8 [height, width, 3], BGR."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (6, 8, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = image.clip(0, 255).astype(np.uint8)
    side = min(height // 2, width // max(4, faces))
    face = cv2.resize(portrait()[30:230, 120:320], (side, side))
    for index in range(faces):
        left = (2 * index + 1) * width // (2 * faces) - side // 2
        image[height // 4 : height // 4 + side, left : left + side] = face
    return image


def faces_of(size: int, count: int) -> np.ndarray:
    """Faces, each a little aside of the other, uint8 [count, size, size, 3], RGB."""
    shifts = np.random.default_rng(0).integers(-12, 13, (count, 2))
    crops = [astronaut()[63 + y : 176 + y, 166 + x : 279 + x] for y, x in shifts]
    return np.stack([cv2.resize(crop, (size, size)) for crop in crops])


@contextmanager
def models_at(size: int) -> Iterator[tuple[str, str]]:
    """The bundled model's weights for faces of another size, in fp32 and as int8."""
    file = model_store.read_model(model_store.FLOAT_MODEL)
    fused, info = read_fused(file.content, file.name)
    info = replace(info, input_size=(size, size))
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, 'fp32.onnx'), Path(folder, 'int8.onnx')
        export_onnx(fused, info, paths[0])
        quantise_onnx(fused, info, paths[1], [faces_of(size, 32)])
        yield str(paths[0]), str(paths[1])


def compare_networks(rounds: int) -> list[Comparison]:
    """The network at the paper's size and at the bundled model's, for one face and four."""
    with models_at(OFFICIAL_SIZE) as (fp32, int8):
        backends = {
            'torch fused fp32, 224': open_backend('torch', fp32),
            'OpenVINO float, 224': open_backend('openvino', fp32),
            'ONNX Runtime fp32, 224': open_backend('onnxruntime', fp32),
            'OpenVINO int8, 224': open_backend('openvino', int8),
            'ONNX Runtime int8, 224': open_backend('onnxruntime', int8),
            'bundled, ONNX Runtime fp32, 96': open_backend('onnxruntime', model_store.FLOAT_MODEL),
            'bundled, OpenVINO int8, 96': open_backend('openvino', model_store.INT8_MODEL),
            'bundled, ONNX Runtime int8, 96': open_backend('onnxruntime', model_store.INT8_MODEL),
        }
        return [_compare_network(backends, batch, rounds) for batch in (1, 4)]


def _compare_network(backends: dict, batch: int, rounds: int) -> Comparison:
    network = open_network()
    faces = torch.rand(batch, 3, OFFICIAL_SIZE, OFFICIAL_SIZE)

    def run_eager() -> object:
        with torch.no_grad():
            return network(faces)

    ways: dict[str, Callable[[], object]] = {f'{NAIVE}, 224': run_eager}
    for name, backend in backends.items():
        pictures = faces_of(backend.model.input_size[0], batch)
        ways[name] = lambda b=backend, p=pictures: b.infer(p)
    return compare(f'network, {batch} face(s)', ways, f'{NAIVE}, 224', rounds)


def compare_detectors(rounds: int) -> list[Comparison]:
    """YuNet here and in OpenCV, and the Haar cascade, by width of the image."""
    yunet, haar = open_detector('yunet'), open_detector('haar')
    path = next(
        path
        for path in model_store.candidate_paths(model_store.KNOWN_MODELS['yunet'])
        if path.is_file()
    )
    comparisons = []
    for width in (320, 640, 1280):
        image = scene(width, width * 3 // 4, 1)
        by_opencv = cv2.FaceDetectorYN.create(str(path), '', (image.shape[1], image.shape[0]), 0.6)
        ways = {
            'Haar cascade': lambda i=image: haar.detect(i),
            'YuNet, OpenCV': lambda i=image, d=by_opencv: d.detect(i),
            'YuNet, here': lambda i=image: yunet.detect(i),
        }
        comparisons.append(compare(f'detector, {width} px wide', ways, 'Haar cascade', rounds))
    return comparisons


def compare_crops(rounds: int) -> list[Comparison]:
    """From image and boxes to what the network takes."""
    return [_compare_crops(count, 5 * rounds) for count in (1, 4)]


def _compare_crops(count: int, rounds: int) -> Comparison:
    image = portrait()
    boxes = FACE_BOX + np.random.default_rng(0).integers(-12, 13, (count, 1)).astype(np.float32)
    batch = np.empty((count, 96, 96, 3), np.uint8)

    def naive() -> object:
        picture = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return torch.cat([preprocess(picture.crop(tuple(box.tolist()))) for box in boxes])

    def ours() -> object:
        for box, crop in zip(boxes, batch, strict=True):
            cut_face(Frame(image), box, 1.0, crop)
        return batch

    ways = {'PIL, floats, 224': naive, 'here, uint8, 96': ours}
    return compare(f'crop and batch, {count} face(s)', ways, 'PIL, floats, 224', rounds)


GROWING_SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1440))
SIZES, COUNTS = ((640, 480), (1280, 720)), (1, 4)


def compare_pipelines(rounds: int) -> list[Comparison]:
    """From image to probabilities, against the official demo's way."""
    naive, ours = NaivePipeline(), ExpressionPipeline.open(detector='yunet')
    comparisons = []
    for (width, height), faces in product(SIZES, COUNTS):
        image = scene(width, height, faces)
        (seen,) = ours.run([Frame(image)])
        found = len(naive.run(image)), len(seen)
        prior = Prior(expected=[face.face.box_xyxy for face in seen])
        ways = {
            f"the official demo's way ({found[0]} found)": lambda i=image: naive.run(i),
            f'here ({found[1]} found)': lambda i=image: ours.run([Frame(i)]),
            'here, faces found where they were': lambda i=image, p=prior: ours.run([Frame(i)], [p]),
        }
        title = f'pipeline, {width}x{height}, {faces} face(s)'
        comparisons.append(compare(title, ways, next(iter(ways)), rounds))
    return comparisons


def split_pipelines(rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each step of the pipeline, by what it looks at."""
    pipeline = ExpressionPipeline.open(detector='yunet')
    splits = {}
    for (width, height), faces in product(SIZES, COUNTS):
        image = scene(width, height, faces)
        runs = []
        for _ in range(5 * rounds):
            pipeline.run([Frame(image)])
            runs.append(dict(pipeline.watch.seconds))
        splits[f'{width}x{height}, {faces} face(s)'] = {
            step: 1e3 * statistics.median(seconds[step] for seconds in runs) for step in STEPS
        }
    return splits


def measure_growth(rounds: int) -> list[Growth]:
    """How the pipeline's time grows with faces, pixels and cameras, and the floor beside it."""
    pipeline = ExpressionPipeline.open(detector='yunet')
    floor = Floor()
    scenes = {
        'faces, 640x480': {str(n): [scene(640, 480, n)] for n in (1, 2, 4, 8)},
        'pixels, one face': {f'{w}x{h}': [scene(w, h, 1)] for w, h in GROWING_SIZES},
        'cameras, 640x480, one face each': {str(n): [scene(640, 480, 1)] * n for n in (1, 2, 4)},
    }
    return [
        _measure_growth(title, cases, pipeline, floor, rounds) for title, cases in scenes.items()
    ]


def _measure_growth(
    title: str,
    cases: dict[str, list[np.ndarray]],
    pipeline: ExpressionPipeline,
    floor: Floor,
    rounds: int,
) -> Growth:
    frames = {name: [Frame(image) for image in images] for name, images in cases.items()}
    ways = {name: lambda f=of_case: pipeline.run(f) for name, of_case in frames.items()}
    floors_ms = {}
    for name, of_case in frames.items():
        faces = sum(map(len, pipeline.run(of_case)))
        widths = (min(frame.size[0], pipeline.max_side_px) for frame in of_case)
        detection = sum(floor.detector_ms(width, width * 3 // 4) for width in widths)
        floors_ms[name] = detection + floor.network_ms(faces)
    times_ms = compare(title, ways, next(iter(ways)), rounds).times_ms
    return Growth(title, times_ms, floors_ms)
