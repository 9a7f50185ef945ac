"""The parts, each beside what people would write themselves."""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from floor import count_products, products_per_second
from naive.pipeline import NaivePipeline, open_network, preprocess
from PIL import Image
from skimage.data import astronaut

from dan_ros.backends import open_backend
from dan_ros.bench.scenes import Walk
from dan_ros.bench.scenes import scene as scene_of
from dan_ros.bench.timer import Comparison, Limit, compare, run_interleaved
from dan_ros.detect import open_detector
from dan_ros.detect.yunet import STRIDES, for_images
from dan_ros.faces.crop import crop_face
from dan_ros.model import store
from dan_ros.network.export import export_onnx, read_fused
from dan_ros.network.quantize import quantize_onnx
from dan_ros.pipeline import STAGES, ExpressionPipeline
from dan_ros.types import Frame

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
        self._network = store.read_model(store.INT8_MODEL).content
        self._detector = for_images(store.read_model('yunet').content)

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


def face() -> np.ndarray:
    """Her face with some of what is about it, uint8 [200, 200, 3], BGR."""
    return portrait()[30:230, 120:320]


def scene(width: int, height: int, faces: int) -> np.ndarray:
    """An image with her face some times in a row, uint8 [height, width, 3], BGR."""
    return scene_of(width, height, faces, face())


def faces_of(size: int, count: int) -> np.ndarray:
    """Faces, each a little aside of the other, uint8 [count, size, size, 3], RGB."""
    shifts = np.random.default_rng(0).integers(-12, 13, (count, 2))
    crops = [astronaut()[63 + y : 176 + y, 166 + x : 279 + x] for y, x in shifts]
    return np.stack([cv2.resize(crop, (size, size)) for crop in crops])


@contextmanager
def models_at(size: int, with_int8: bool = True) -> Iterator[tuple[str, str]]:
    """The bundled model's weights for faces of another size, in fp32 and, if wanted, as int8."""
    file = store.read_model(store.FLOAT_MODEL)
    fused, info = read_fused(file.content, file.name)
    info = replace(info, input_size=(size, size))
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, 'fp32.onnx'), Path(folder, 'int8.onnx')
        export_onnx(fused, info, paths[0])
        if with_int8:
            quantize_onnx(fused, info, paths[1], [faces_of(size, 32)])
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
            'bundled, ONNX Runtime fp32, 96': open_backend('onnxruntime', store.FLOAT_MODEL),
            'bundled, OpenVINO int8, 96': open_backend('openvino', store.INT8_MODEL),
            'bundled, ONNX Runtime int8, 96': open_backend('onnxruntime', store.INT8_MODEL),
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
    return compare(f'network, {batch} face(s)', ways, f'{NAIVE}, 224', Limit(rounds))


def compare_detectors(rounds: int) -> list[Comparison]:
    """YuNet here and in OpenCV, and the Haar cascade, by width of the image."""
    yunet, haar = open_detector('yunet'), open_detector('haar')
    path = next(
        path for path in store.candidate_paths(store.KNOWN_MODELS['yunet']) if path.is_file()
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
        comparisons.append(
            compare(f'detector, {width} px wide', ways, 'Haar cascade', Limit(rounds))
        )
    return comparisons


def compare_crops(rounds: int) -> list[Comparison]:
    """From image and boxes to what the network takes."""
    return [_compare_crops(count, 5 * rounds) for count in (1, 4)]


def _compare_crops(count: int, rounds: int) -> Comparison:
    image = portrait()
    boxes = FACE_BOX + np.random.default_rng(0).integers(-12, 13, (count, 1)).astype(np.float32)
    batches = {size: np.empty((count, size, size, 3), np.uint8) for size in (OFFICIAL_SIZE, 96)}

    def naive() -> object:
        picture = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return torch.cat([preprocess(picture.crop(tuple(box.tolist()))) for box in boxes])

    def ours(size: int) -> object:
        for box, crop in zip(boxes, batches[size], strict=True):
            crop_face(Frame(image), box, 1.0, crop)
        return batches[size]

    ways = {'PIL, floats, 224': naive}
    ways |= {f'here, uint8, {size}': partial(ours, size) for size in batches}
    return compare(f'crop and batch, {count} face(s)', ways, 'PIL, floats, 224', Limit(rounds))


GROWING_SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1440))
SIZES, COUNTS = ((640, 480), (1280, 720)), (1, 4)


INTERVAL = 5
OFFICIAL_WAY = "the official demo's way, 224 px fp32"


def compare_pipelines(rounds: int) -> list[Comparison]:
    """From image to probabilities, against the official demo's way.

    The bundled model is smaller than the official one, so ours runs with that size as well.
    """
    with models_at(OFFICIAL_SIZE, with_int8=False) as (fp32, _):
        ours = {
            'here, 224 px fp32': ExpressionPipeline.open(fp32, 'onnxruntime', 'yunet'),
            'here, 96 px int8': ExpressionPipeline.open(detector='yunet'),
            'here, 96 px int8, one thread': ExpressionPipeline(
                open_detector('yunet', threads=1), open_backend(threads=1)
            ),
        }
        naive = NaivePipeline()
        return [
            _compare_pipelines(size, faces, naive, ours, rounds)
            for size, faces in product(SIZES, COUNTS)
        ]


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
        raise RuntimeError(f'of {faces} faces the ways find {found}: not the same work')
    ways: dict[str, Callable[[], object]] = {OFFICIAL_WAY: partial(naive.run, image)}
    ways |= {name: partial(pipeline.run, [Frame(image)]) for name, pipeline in ours.items()}
    images = {}
    for name in list(ours)[1:]:
        with_interval = f'{name}, detector.interval {INTERVAL}'
        ways[with_interval] = Walk(ours[name], size, faces, face(), INTERVAL)
        images[with_interval] = INTERVAL
    title = f'pipeline, {size[0]}x{size[1]}, {faces} face(s)'
    return compare(title, ways, OFFICIAL_WAY, Limit(rounds), images)


def split_pipelines(rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each step of the pipeline, by what it looks at; all cores."""
    pipeline = ExpressionPipeline.open(detector='yunet')

    def run(frames: list[Frame]) -> dict[str, float]:
        pipeline.run(frames)
        return dict(pipeline.timer.seconds)

    ways = {
        f'{width}x{height}, {faces} face(s)': partial(run, [Frame(scene(width, height, faces))])
        for (width, height), faces in product(SIZES, COUNTS)
    }
    return {
        name: {step: 1e3 * statistics.median(one[step] for one in runs) for step in STAGES}
        for name, runs in run_interleaved(ways, Limit(rounds)).items()
    }


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
    times_ms = compare(title, ways, next(iter(ways)), Limit(rounds)).times_ms
    return Growth(title, times_ms, floors_ms)
