# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: a table with default, description, unit and range, and typed settings.

Declaration, validation, `config/dan.yaml` and docs/parameters.md are all based on the table.
Defaults of code that also works without ROS come from its configuration classes, so each is written
only once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name

from dan_ros.backends import BACKENDS, PRECISIONS, BackendConfig, ServerConfig
from dan_ros.backends.base import node_parallel_runs, node_threads
from dan_ros.backends.kserve.config import Address
from dan_ros.detect import DETECTORS, DEVICES
from dan_ros.errors import ParameterError, count_of
from dan_ros.images.opencv import MAX_PIXELS
from dan_ros.model.store import DEFAULT_MODEL
from dan_ros.ros.transports import RAW, TRANSPORTS
from dan_ros.video_parameters import VIDEO_PARAMETERS, Spec, to_video_config
from dan_ros.video_pipeline import VideoConfig

IMAGES, CROPPED_FACES = 'images', 'cropped_faces'
INPUTS = (IMAGES, CROPPED_FACES)
IMAGE_TOPIC = 'image'  # the topic of a single camera
PACKAGES = ('vision_msgs', 'foxglove_msgs')  # packages whose messages the node can also publish

SERVER = ServerConfig()

# Parameters that rclpy itself declares when needed.
FOREIGN_PREFIXES = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


def _check_topics(topics: Iterable[str]) -> None:
    for topic in filter(None, topics):
        try:
            validate_full_topic_name(expand_topic_name(topic, 'dan_node', '/robot'))
        except InvalidTopicNameException as error:
            raise ParameterError(str(error)) from None


PARAMETERS = (
    Spec(
        'autostart', True,
        'Configure and activate at start, without a lifecycle manager.',
    ),
    Spec(
        'image_topics', [''],
        'Image topics of several cameras. The default [""] stands for the single topic `image`, '
        'which can be remapped.',
        check=_check_topics,
    ),
    Spec(
        'depth_topics', [''],
        'Depth topics of the cameras, in the order of image_topics; "" for a camera without depth. '
        'Depth must be aligned to the image and have its size, as 16UC1 (mm) or 32FC1 (m). It '
        'gives the true distance of faces; otherwise, an average adult is assumed.',
        check=_check_topics,
    ),
    Spec(
        'input', IMAGES,
        'images: camera images. cropped_faces: faces that another detector publishes under '
        '/humans/faces (ROS4HRI); the node adds only their expressions.',
        choices=INPUTS,
    ),
    Spec(
        'ros4hri', False,
        'Also publish the faces under /humans/faces as described in REP-155; needs hri_msgs.',
    ),
    Spec(
        'humans.faces.width', 128,
        'Width of the pictures on /humans/faces/<id>/cropped and aligned.',
        unit='pixels', limits=(16, 2048),
    ),
    Spec(
        'humans.faces.height', 128,
        'Height of the pictures on /humans/faces/<id>/cropped and aligned.',
        unit='pixels', limits=(16, 2048),
    ),
    Spec(
        'valence_from_expression', False,
        'Fill valence and arousal of hri_msgs/Expression with the mean position of the expressions '
        'on the circumplex, weighted by their probabilities. false: both are NaN, because no model '
        'measures them.',
    ),
    Spec(
        'image_transport', RAW,
        'raw: uncompressed images. compressed: JPEG or PNG on each image topic plus /compressed.',
        choices=TRANSPORTS,
    ),
    Spec(
        'qos.reliability', 'best_effort',
        'Reliability of the image subscriptions. best_effort receives from every publisher.',
        choices=('best_effort', 'reliable'),
    ),
    Spec(
        'model.file', DEFAULT_MODEL,
        'The network. auto: the bundled model, in int8 where that is fastest. Otherwise the name '
        'of a known model (see `dan-ros models`) or the path of an ONNX file from '
        '`dan-ros convert`.',
    ),
    Spec(
        'backend.name', 'auto',
        'Library that runs the network. auto: on a GPU, the first of TensorRT, torch and ONNX '
        'Runtime that works; otherwise the fastest on the CPU. kserve: a server, to which pictures '
        'of faces are sent.',
        choices=BACKENDS,
    ),
    Spec(
        'backend.precision', 'auto',
        'Precision of the network on a GPU. auto: fp16, or int8 for an int8 model.',
        choices=PRECISIONS,
    ),
    Spec(
        'backend.fallback', False,
        'What to do if the GPU or the server for backend.name cannot be used. false: fail to '
        'configure. true: use the CPU, with a warning in diagnostics, and a server as soon as it '
        'answers. If a server fails later, the CPU is used in any case.',
    ),
    Spec(
        'backend.url', SERVER.url,
        'Address of the server for kserve: grpc://host:8001 or http://host:8000, with TLS '
        'grpcs://host:443 or https://host:443.',
        check=lambda url: url and Address.parse(url),
    ),
    Spec(
        'backend.model_name', SERVER.model_name,
        'Name of the model on the server. Empty: the name of the local model file.',
    ),
    Spec(
        'backend.model_version', SERVER.model_version,
        'Version of the model on the server. Empty: the server chooses.',
    ),
    Spec(
        'backend.timeout_ms', SERVER.timeout_ms,
        'Timeout of a call to the server. After it, the local model answers, and a late answer is '
        'dropped.',
        unit='milliseconds', limits=(1.0, 10_000.0),
    ),
    Spec(
        'backend.token_file', SERVER.token_file,
        'File with a bearer token for the server; it is read again when it changes. Empty: none.',
    ),
    Spec(
        'backend.ca_file', SERVER.ca_file,
        'PEM file with the certificates to trust for TLS. Empty: those of the system.',
    ),
    Spec(
        'backend.threads', 0,
        'CPU threads of network and detector. 0: all cores except one, which is left to camera and '
        'middleware; on two cores, several faces of an image are split over both cores.',
        unit='threads', limits=(0, 64),
    ),
    Spec(
        'detector.name', 'auto',
        'Face detector. auto: YuNet, or Haar with a warning if the file of YuNet is missing.',
        choices=DETECTORS,
    ),
    Spec(
        'detector.device', 'cpu',
        'Device that runs YuNet. cuda needs the GPU build of ONNX Runtime.',
        choices=DEVICES,
    ),
    Spec(
        'detector.model_file', '',
        "Path of YuNet's file. Empty: search the default locations.",
    ),
    *VIDEO_PARAMETERS,
    Spec(
        'expression.calibration', '',
        'Path of the file that `dan-ros calibrate` wrote for the model with this camera. Empty: '
        'none.',
    ),
    Spec(
        'publish.tf', True,
        'Publish each face as the frames face_<id> and gaze_<id> on /tf if the camera publishes '
        'camera_info and tf2_msgs is installed.',
        live=True,
    ),
    Spec(
        'publish.vision_msgs', False,
        'Also publish vision_msgs/Detection2DArray on each image topic plus /detections; needs '
        'input: images.',
    ),
    Spec(
        'publish.foxglove_msgs', False,
        'Also publish foxglove_msgs/ImageAnnotations on each image topic plus /annotations, for '
        'the image panel of Foxglove; needs input: images.',
    ),
    Spec(
        'limits.max_pixels', 40_000_000,
        'Larger compressed images are dropped before they are decoded.',
        unit='pixels', limits=(1, MAX_PIXELS), live=True,
    ),
    Spec(
        'rate.max_hz', 0.0,
        'Maximum number of images processed per second and camera, always the newest. 0: no limit.',
        unit='hertz', limits=(0.0, 1000.0), live=True,
    ),
)  # fmt: skip
SPECS = {spec.name: spec for spec in PARAMETERS}


def _to_descriptor(spec: Spec) -> ParameterDescriptor:
    """Create the descriptor for rclpy, shown by `ros2 param describe`."""
    unit = f' Unit: {spec.unit}.' if spec.unit else ''
    when = '' if spec.live else ' Set it at start or before the node is configured.'
    descriptor = ParameterDescriptor(
        description=f'{spec.description}{unit}{when}',
        additional_constraints=spec.allowed,
        # Accept integers for floats; `problem_with` checks the type.
        dynamic_typing=isinstance(spec.default, float) or spec.takes_numbers,
    )
    if spec.limits:
        low, high = spec.limits
        if isinstance(spec.default, float):
            limits = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range = [limits]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def declare_parameters(node: Node) -> list[str]:
    """Declare the whole table on a node.

    Returns:
        Names of overridden but unknown parameters, probably typos.

    Raises:
        ParameterError: an override has an invalid value.
    """
    overrides = node._parameter_overrides  # rclpy has no public API for them
    for spec in PARAMETERS:
        if spec.name in overrides and (problem := _problem_with(spec, overrides[spec.name].value)):
            raise ParameterError(problem)
        node.declare_parameter(spec.name, spec.default, _to_descriptor(spec))
    return [
        name for name in overrides if name not in SPECS and not name.startswith(FOREIGN_PREFIXES)
    ]


def _problem_with(spec: Spec, value: Any) -> str:
    if value is None:
        return f'{spec.name} cannot be []: YAML gives it no type; write an empty list as [""]'
    return spec.problem_with(value)


def read_parameters(node: Node) -> dict[str, Any]:
    """Read every parameter of a node that declared the table."""
    return {name: spec.to_value(node.get_parameter(name).value) for name, spec in SPECS.items()}


def problem_with_changes(node: Node, changes: Iterable[Any]) -> str:
    """Return which parameter is unknown or gets an invalid value, in one line, or ''.

    rclpy would only say that a type is wrong, by number, and not of which parameter.
    """
    for change in changes:
        if not node.has_parameter(change.name):
            when = ': set it at start' if change.name.startswith(FOREIGN_PREFIXES) else ''
            return f'unknown parameter {change.name!r}{when}'
        spec = SPECS.get(change.name)
        if spec and (problem := spec.problem_with(change.value)):
            return problem
    return ''


def without_unchanged(node: Node, changes: Iterable[Any]) -> list[Any]:
    """Leave out parameters that keep their value: setting them again must never be refused."""
    return [
        change
        for change in changes
        if _is_always_settable(node, change.name)
        or node.get_parameter(change.name).to_parameter_msg() != change.to_parameter_msg()
    ]


def _is_always_settable(node: Node, name: str) -> bool:
    if name in SPECS:
        return SPECS[name].live
    return not node.describe_parameter(name).read_only


@dataclass(frozen=True)
class BackendSettings:
    """Parameters of the backend and its model: the arguments of `choose_backend`."""

    name: str
    model: str
    config: BackendConfig


@dataclass(frozen=True)
class DetectorSettings:
    """Parameters of the detector: the arguments of `open_detector`."""

    name: str
    min_score: float
    model_file: str
    threads: int
    device: str


@dataclass(frozen=True)
class Settings:
    """Typed values of all parameters; the table describes them."""

    autostart: bool
    input: str
    cameras: list[str]  # image topic of each camera
    depths: list[str]  # depth topic of each of `cameras`; '' for none
    image_transport: str
    reliability: str
    ros4hri: bool
    valence_from_expression: bool
    calibration: str
    picture_size: tuple[int, int]
    backend: BackendSettings
    detector: DetectorSettings
    video: VideoConfig
    publishes_tf: bool
    packages: tuple[str, ...]
    max_pixels: int
    max_hz: float

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> 'Settings':
        """Build the settings from the value of each parameter by name."""
        cameras = [topic for topic in values['image_topics'] if topic] or [IMAGE_TOPIC]
        depths = values['depth_topics']
        threads = values['backend.threads'] or node_threads()
        video = to_video_config(values)
        # A cropped face fills its image, so there is no region to search.
        is_cropped = values['input'] == CROPPED_FACES
        return cls(
            autostart=values['autostart'],
            input=values['input'],
            cameras=cameras,
            depths=depths if any(depths) else [''] * len(cameras),
            image_transport=values['image_transport'],
            reliability=values['qos.reliability'],
            ros4hri=values['ros4hri'],
            valence_from_expression=values['valence_from_expression'],
            calibration=values['expression.calibration'],
            picture_size=(values['humans.faces.width'], values['humans.faces.height']),
            backend=BackendSettings(
                values['backend.name'],
                values['model.file'],
                BackendConfig(
                    threads=threads,
                    precision=values['backend.precision'],
                    fallback=values['backend.fallback'],
                    server=ServerConfig(
                        **{field.name: values[f'backend.{field.name}'] for field in fields(SERVER)}
                    ),
                    parallel_runs=1 if values['backend.threads'] else node_parallel_runs(),
                ),
            ),
            detector=DetectorSettings(
                values['detector.name'],
                values['detector.min_score'],
                values['detector.model_file'],
                threads,
                values['detector.device'],
            ),
            video=replace(video, detector_interval=1) if is_cropped else video,
            publishes_tf=values['publish.tf'],
            packages=tuple(name for name in PACKAGES if values[f'publish.{name}']),
            max_pixels=values['limits.max_pixels'],
            max_hz=values['rate.max_hz'],
        )

    def check(self) -> None:
        """Check rules that concern several parameters, since they may be set one by one.

        Raises:
            ParameterError: depth_topics and image_topics differ in length, or results are to be
                published for camera images although there are none.
        """
        if self.input == CROPPED_FACES and self.packages:
            raise ParameterError(
                f'publish.{self.packages[0]} needs input: {IMAGES}; there is no camera image to '
                f'which the results of {CROPPED_FACES} belong'
            )
        if len(self.depths) != len(self.cameras):
            raise ParameterError(
                f'depth_topics has {count_of(len(self.depths), "entry", "entries")}, but the '
                f'number of cameras is {len(self.cameras)} ({", ".join(self.cameras)}): give one '
                'for each, "" for a camera without depth'
            )
