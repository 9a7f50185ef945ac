# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: a table with default, description, unit and range, and typed settings.

Declaration, validation, `config/dan.yaml` and docs/parameters.md are all based on the table.
Defaults of code that also works without ROS come from its configuration classes, so each is written
only once.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
    ParameterUninitializedException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name

from dan_ros.backends import BACKENDS, PRECISIONS, ServerConfig
from dan_ros.backends.base import node_parallel_runs, node_threads
from dan_ros.backends.kserve.config import problem_with_url
from dan_ros.detect import DETECTORS, DEVICES
from dan_ros.errors import ParameterError, count_of, one_line
from dan_ros.faces.quality import QualityThresholds
from dan_ros.images.opencv import MAX_PIXELS
from dan_ros.model.store import DEFAULT_MODEL
from dan_ros.pipeline import ROTATIONS, PipelineConfig
from dan_ros.probabilities import Prior
from dan_ros.ros.transports import RAW, TRANSPORTS
from dan_ros.tracking.attention import AttentionConfig
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.events import EventConfig
from dan_ros.video_pipeline import VideoConfig

IMAGES, CROPPED_FACES = 'images', 'cropped_faces'
INPUTS = (IMAGES, CROPPED_FACES)
IMAGE_TOPIC = 'image'  # the topic of a single camera
PACKAGES = ('vision_msgs', 'foxglove_msgs')  # packages whose messages the node can also publish

VIDEO, PIPELINE, TRACKER, QUALITY = (
    VideoConfig(), PipelineConfig(), TrackerConfig(), QualityThresholds()
)  # fmt: skip
ATTENTION, EVENTS, SERVER = VIDEO.attention, VIDEO.events, ServerConfig()

# Parameters that rclpy itself declares when needed.
FOREIGN_PREFIXES = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        name: name with dots, such as detector.interval.
        default: bool, int, float, str or list of str; defines the parameter's type.
        description: what it does, in full sentences.
        unit: unit of the value, or ''.
        minimum: lowest allowed number.
        maximum: highest allowed number.
        choices: allowed values; () for all.
        live: whether it may be changed while the node is configured.
        check: returns what else is wrong with a value, in one line; '' if it is valid.
        takes_numbers: whether a list of numbers may replace the text with commas.
    """

    name: str
    default: Any
    description: str
    unit: str = ''
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    live: bool = False
    check: Callable[[Any], str] | None = None
    takes_numbers: bool = False

    @property
    def allowed(self) -> str:
        """Allowed values in plain English."""
        if self.choices:
            return 'one of ' + ', '.join(str(choice) for choice in self.choices)
        kind = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a string'}
        text = kind.get(type(self.default), 'a list of strings')
        text += ' or a list of numbers' if self.takes_numbers else ''
        if self.minimum is not None:
            text += f' from {self.minimum:.9g} to {self.maximum:.9g}'
        return f'{text} ({self.unit})' if self.unit else text

    def problem_with(self, value: Any) -> str:
        """Return why a value is invalid, in one line; '' if it is valid."""
        if not (self._has_right_type(value) and self._is_in_range(value)):
            return f'{self.name} cannot be {value!r}: it must be {self.allowed}{self._hint(value)}'
        problem = self.check(self.to_value(value)) if self.check else ''
        return f'{self.name}: {problem}' if problem else ''

    def _hint(self, value: Any) -> str:
        if isinstance(self.default, str) and type(value) in (bool, int, float):
            return f'; in a shell, write {self.name}:=\'"{str(value).lower()}"\''
        return ''

    def to_value(self, value: Any) -> Any:
        """Convert a valid value to the type of the default: an int may become a float."""
        if self.takes_numbers and not isinstance(value, str):
            return ','.join(str(number) for number in value)
        return type(self.default)(value)

    def _has_right_type(self, value: Any) -> bool:
        if self.takes_numbers and isinstance(value, (list, tuple, array)):
            return all(type(number) in (int, float) for number in value)
        if isinstance(self.default, float):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(self.default, list):
            return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        return type(value) is type(self.default)

    def _is_in_range(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return self.minimum is None or self.minimum <= value <= self.maximum

    def to_descriptor(self) -> ParameterDescriptor:
        """Create the descriptor for rclpy, shown by `ros2 param describe`."""
        unit = f' Unit: {self.unit}.' if self.unit else ''
        when = '' if self.live else ' Set it at start or before the node is configured.'
        descriptor = ParameterDescriptor(
            description=f'{self.description}{unit}{when}',
            additional_constraints=self.allowed,
            # Accept integers for floats; `problem_with` checks the type.
            dynamic_typing=isinstance(self.default, float) or self.takes_numbers,
        )
        if self.minimum is None or self.maximum is None:
            return descriptor
        if isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))
            ]
        return descriptor


def _problem_with_topics(topics: Iterable[str]) -> str:
    for topic in filter(None, topics):
        try:
            validate_full_topic_name(expand_topic_name(topic, 'dan_node', '/robot'))
        except (InvalidTopicNameException, ValueError) as error:
            return one_line(error)
    return ''


def _problem_with_prior(text: str) -> str:
    try:
        Prior.parse(text)
    except ParameterError as error:
        return str(error)
    return ''


PARAMETERS = (
    Spec(
        'autostart',
        True,
        'Configure and activate at start, without a lifecycle manager.',
    ),
    Spec(
        'image_topics',
        [''],
        'Image topics of several cameras. The default [""] stands for the single topic `image`, '
        'which can be remapped.',
        check=_problem_with_topics,
    ),
    Spec(
        'depth_topics',
        [''],
        'Depth topics of the cameras, in the order of image_topics; "" for a camera without depth. '
        'Depth must be aligned to the image and have its size, as 16UC1 (mm) or 32FC1 (m). It '
        'gives the true distance of faces, which is otherwise that of an average adult.',
        check=_problem_with_topics,
    ),
    Spec(
        'image_rotation',
        PIPELINE.rotation,
        'Clockwise rotation that makes the image of a camera mounted on its side upright. Results '
        'are given in pixels of the image as received.',
        unit='degrees',
        choices=ROTATIONS,
        live=True,
    ),
    Spec(
        'input',
        IMAGES,
        'images: camera images. cropped_faces: faces that another detector publishes under '
        '/humans/faces (ROS4HRI); the node adds only their expressions.',
        choices=INPUTS,
    ),
    Spec(
        'ros4hri',
        False,
        'Also publish the faces under /humans/faces as described in REP-155; needs hri_msgs.',
    ),
    Spec(
        'humans.faces.width',
        128,
        'Width of the pictures on /humans/faces/<id>/cropped and aligned.',
        unit='pixels',
        minimum=16,
        maximum=2048,
    ),
    Spec(
        'humans.faces.height',
        128,
        'Height of the pictures on /humans/faces/<id>/cropped and aligned.',
        unit='pixels',
        minimum=16,
        maximum=2048,
    ),
    Spec(
        'valence_from_expression',
        False,
        'Fill valence and arousal of hri_msgs/Expression with the mean position of the expressions '
        'on the circumplex, weighted by their probabilities. false: both are NaN, because no model '
        'measures them.',
    ),
    Spec(
        'image_transport',
        RAW,
        'raw: uncompressed images. compressed: JPEG or PNG on each image topic plus /compressed.',
        choices=TRANSPORTS,
    ),
    Spec(
        'qos.reliability',
        'best_effort',
        'Reliability of the image subscriptions. best_effort receives from every publisher.',
        choices=('best_effort', 'reliable'),
    ),
    Spec(
        'model.file',
        DEFAULT_MODEL,
        'The network. auto: the bundled model, in int8 where that is fastest. Otherwise the name '
        'of a known model (see `dan-ros models`) or the path of an ONNX file from '
        '`dan-ros convert`.',
    ),
    Spec(
        'backend.name',
        'auto',
        'Library that runs the network. auto: on a GPU, the first of TensorRT, torch and ONNX '
        'Runtime that works; otherwise the fastest on the CPU. kserve: a server, to which pictures '
        'of faces are sent.',
        choices=BACKENDS,
    ),
    Spec(
        'backend.precision',
        'auto',
        'Precision of the network on a GPU. auto: fp16, or int8 for an int8 model.',
        choices=PRECISIONS,
    ),
    Spec(
        'backend.fallback',
        False,
        'What to do if the GPU or the server for backend.name cannot be used. false: fail to '
        'configure. true: use the CPU, with a warning in diagnostics, and a server as soon as it '
        'answers. If a server fails later, the CPU is used in any case.',
    ),
    Spec(
        'backend.url',
        SERVER.url,
        'Address of the server for kserve: grpc://host:8001 or http://host:8000, with TLS '
        'grpcs://host:443 or https://host:443.',
        check=problem_with_url,
    ),
    Spec(
        'backend.model_name',
        SERVER.model_name,
        'Name of the model on the server. Empty: the name of the local model file.',
    ),
    Spec(
        'backend.model_version',
        SERVER.model_version,
        'Version of the model on the server. Empty: the server chooses.',
    ),
    Spec(
        'backend.timeout_ms',
        SERVER.timeout_ms,
        'Timeout of a call to the server. After it, the local model answers, and a late answer is '
        'dropped.',
        unit='milliseconds',
        minimum=1.0,
        maximum=10_000.0,
    ),
    Spec(
        'backend.token_file',
        SERVER.token_file,
        'File with a bearer token for the server; it is read again when it changes. Empty: none.',
    ),
    Spec(
        'backend.ca_file',
        SERVER.ca_file,
        'PEM file with the certificates to trust for TLS. Empty: the default ones of the system.',
    ),
    Spec(
        'backend.threads',
        0,
        'CPU threads of network and detector. 0: all cores except one, which is left to camera and '
        'middleware; on two cores, several faces of an image are split over both cores.',
        unit='threads',
        minimum=0,
        maximum=64,
    ),
    Spec(
        'detector.name',
        'auto',
        'Face detector. auto: YuNet, or Haar with a warning if the file of YuNet is missing.',
        choices=DETECTORS,
    ),
    Spec(
        'detector.device',
        'cpu',
        'Device that runs YuNet. cuda needs the GPU build of ONNX Runtime.',
        choices=DEVICES,
    ),
    Spec(
        'detector.model_file',
        '',
        "Path of YuNet's file. Empty: search the default locations.",
    ),
    Spec(
        'detector.max_side_px',
        PIPELINE.max_side_px,
        'Longer side of the downscaled copy on which faces are detected; crops come from the full '
        'image. Smaller is faster but misses small faces.',
        unit='pixels',
        minimum=64,
        maximum=4096,
        live=True,
    ),
    Spec(
        'detector.interval',
        VIDEO.detector_interval,
        'Run full-frame detection on every Nth image; in between, search around known faces, and '
        'in every second image where the image changed. A new face is found at most one image '
        'late, or N - 1 images late if it changes the image too little. 10 saves about a third of '
        'the work.',
        unit='images',
        minimum=1,
        maximum=100,
        live=True,
    ),
    Spec(
        'detector.min_score',
        0.6,
        'Minimum confidence of the detector.',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'max_faces',
        PIPELINE.max_faces,
        'Maximum number of faces classified per image, the largest first. The rest are published '
        'as unknown.',
        unit='faces',
        minimum=1,
        maximum=1000,
        live=True,
    ),
    Spec(
        'expression.min_confidence',
        TRACKER.min_confidence,
        'A face is published as unknown if its most likely expression is less probable than this.',
        unit='probability',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'expression.prior',
        'model',
        'How often each expression is assumed to occur. model: as the model file or the '
        'calibration says. none: as in the training data. balanced: all equally often, which finds '
        'rare expressions but also causes false alarms. Or eight shares with sum 1, in the order '
        'of the message, such as [0.6, 0.2, 0.05, 0.05, 0.02, 0.02, 0.05, 0.01].',
        live=True,
        check=_problem_with_prior,
        takes_numbers=True,
    ),
    Spec(
        'expression.calibration',
        '',
        'Path of the file that `dan-ros calibrate` wrote for the model with this camera. Empty: '
        'none.',
    ),
    Spec(
        'tracker.max_missed_s',
        TRACKER.max_missed_s,
        'A face that is missing for longer gets a new id.',
        unit='seconds',
        minimum=0.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'tracker.max_distance',
        TRACKER.max_distance,
        'Maximum distance between a face and its predicted position at which it keeps its id.',
        unit='face sizes',
        minimum=0.0,
        maximum=10.0,
        live=True,
    ),
    Spec(
        'tracker.min_hits',
        TRACKER.min_hits,
        'Number of consecutive images in which a new face must be found before it is published. 2 '
        'or 3 suppress false detections.',
        unit='images',
        minimum=1,
        maximum=100,
        live=True,
    ),
    Spec(
        'smoothing.half_life_s',
        TRACKER.half_life_s,
        'Time in which the weight of past probabilities halves, at any frame rate. 0 turns '
        'smoothing off.',
        unit='seconds',
        minimum=0.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'smoothing.margin',
        TRACKER.margin,
        'How much more probable another expression must be before the published label changes.',
        unit='probability',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'quality.min_side_px',
        QUALITY.min_side_px,
        'A face with a smaller box is published as unknown.',
        unit='pixels of the longer side',
        minimum=0.0,
        maximum=4096.0,
        live=True,
    ),
    Spec(
        'quality.min_frontality',
        QUALITY.min_frontality,
        'A face turned further away is published as unknown. 1: frontal, 0: turned by 90 degrees.',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'quality.min_sharpness',
        QUALITY.min_sharpness,
        'A less sharp face is published as unknown. Sharp faces have 7 to 12; 0 accepts all faces.',
        unit='cycles per face',
        minimum=0.0,
        maximum=100.0,
        live=True,
    ),
    Spec(
        'attention.angle_deg',
        ATTENTION.angle_deg,
        'A face starts to look at the camera when its head is turned away by less than this, and '
        'stops beyond 1.4 times this angle. The measured angle is about 0.7 of the real one.',
        unit='degrees',
        minimum=1.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'attention.min_duration_s',
        ATTENTION.min_duration_s,
        'How long a head must be turned to the camera, or away from it, before `looking` changes.',
        unit='seconds',
        minimum=0.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'events.min_duration_s',
        EVENTS.min_duration_s,
        'How long a new expression must last before an event is published.',
        unit='seconds',
        minimum=0.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'publish.tf',
        True,
        'Publish each face as the frames face_<id> and gaze_<id> on /tf if the camera publishes '
        'camera_info and tf2_msgs is installed.',
        live=True,
    ),
    Spec(
        'consent.required',
        VIDEO.consent_required,
        'Classify and publish a face only after the service ~/grant_consent has released it. '
        'Published images do not show other faces.',
    ),
    Spec(
        'privacy.blur',
        VIDEO.blur,
        'Replace every face by its average color wherever the node publishes images: '
        '~/debug_image, ~/preview and the faces of ROS4HRI. Every image is then searched in full, '
        'as with detector.interval 1.',
        live=True,
    ),
    Spec(
        'publish.vision_msgs',
        False,
        'Also publish vision_msgs/Detection2DArray on each image topic plus /detections.',
    ),
    Spec(
        'publish.foxglove_msgs',
        False,
        'Also publish foxglove_msgs/ImageAnnotations on each image topic plus /annotations, for '
        'the image panel of Foxglove.',
    ),
    Spec(
        'limits.max_pixels',
        40_000_000,
        'Larger compressed images are dropped before they are decoded.',
        unit='pixels',
        minimum=1,
        maximum=MAX_PIXELS,
        live=True,
    ),
    Spec(
        'rate.max_hz',
        0.0,
        'Maximum number of images processed per second and camera, always the newest. 0: no limit.',
        unit='hertz',
        minimum=0.0,
        maximum=1000.0,
        live=True,
    ),
)
SPECS = {spec.name: spec for spec in PARAMETERS}


def declare_parameters(node: Node) -> list[str]:
    """Declare the whole table on a node.

    Returns:
        Names of overridden but unknown parameters, probably typos.

    Raises:
        ParameterError: an override has an invalid value.
    """
    for spec in PARAMETERS:
        try:
            node.declare_parameter(spec.name, spec.default, spec.to_descriptor())
        except (InvalidParameterTypeException, InvalidParameterValueException):
            value = node._parameter_overrides[spec.name].value
            raise ParameterError(spec.problem_with(value)) from None
        if problem := _problem_with_declared(node, spec):
            raise ParameterError(problem)
    return [
        name
        for name in getattr(node, '_parameter_overrides', {})  # rclpy has no public API for them
        if name not in SPECS and not name.startswith(FOREIGN_PREFIXES)
    ]


def _problem_with_declared(node: Node, spec: Spec) -> str:
    try:
        value = node.get_parameter(spec.name).value
    except ParameterUninitializedException:
        return f'{spec.name} cannot be []: YAML gives it no type; write an empty list as [""]'
    return spec.problem_with(value)


def read_parameters(node: Node) -> dict[str, Any]:
    """Read every parameter of a node that declared the table."""
    return {name: spec.to_value(node.get_parameter(name).value) for name, spec in SPECS.items()}


def problem_with_changes(changes: Iterable[Any], is_configured: bool) -> str:
    """Return why a set of changes is refused, in one line; '' if it is valid.

    Args:
        changes: new values, rclpy.parameter.Parameter.
        is_configured: whether the node is configured, so that only live parameters may change.
    """
    for change in changes:
        spec = SPECS.get(change.name)
        if spec is None:
            continue
        problem = spec.problem_with(change.value)
        if not problem and is_configured and not spec.live:
            problem = (
                f'{spec.name} cannot be changed while the node is configured: deactivate and '
                'clean it up first'
            )
        if problem:
            return problem
    return ''


def problem_with_names(node: Node, changes: Iterable[Any]) -> str:
    """Return which parameter is unknown, in one line, or ''; rclpy's error does not name it."""
    for change in changes:
        if not node.has_parameter(change.name):
            when = ': set it at start' if change.name.startswith(FOREIGN_PREFIXES) else ''
            return f'unknown parameter {change.name!r}{when}'
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
    """Parameters of the backend and its model; see `choose_backend`."""

    name: str
    model: str
    threads: int
    precision: str
    fallback: bool
    server: ServerConfig
    parallel_runs: int


@dataclass(frozen=True)
class DetectorSettings:
    """Parameters of the detector; see `open_detector`."""

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
    image_topics: tuple[str, ...]
    depth_topics: tuple[str, ...]
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
        threads = values['backend.threads'] or node_threads()
        return cls(
            autostart=values['autostart'],
            input=values['input'],
            image_topics=tuple(values['image_topics']),
            depth_topics=tuple(values['depth_topics']),
            image_transport=values['image_transport'],
            reliability=values['qos.reliability'],
            ros4hri=values['ros4hri'],
            valence_from_expression=values['valence_from_expression'],
            calibration=values['expression.calibration'],
            picture_size=(values['humans.faces.width'], values['humans.faces.height']),
            backend=BackendSettings(
                values['backend.name'],
                values['model.file'],
                threads,
                values['backend.precision'],
                values['backend.fallback'],
                ServerConfig(
                    values['backend.url'],
                    values['backend.model_name'],
                    values['backend.model_version'],
                    values['backend.timeout_ms'],
                    values['backend.token_file'],
                    values['backend.ca_file'],
                ),
                1 if values['backend.threads'] else node_parallel_runs(),
            ),
            detector=DetectorSettings(
                values['detector.name'],
                values['detector.min_score'],
                values['detector.model_file'],
                threads,
                values['detector.device'],
            ),
            video=_video_config(values),
            publishes_tf=values['publish.tf'],
            packages=tuple(name for name in PACKAGES if values[f'publish.{name}']),
            max_pixels=values['limits.max_pixels'],
            max_hz=values['rate.max_hz'],
        )

    @property
    def cameras(self) -> list[str]:
        """Image topic of each camera."""
        return [topic for topic in self.image_topics if topic] or [IMAGE_TOPIC]

    @property
    def depths(self) -> list[str]:
        """Depth topic of each of `cameras`; '' for none."""
        return list(self.depth_topics) if any(self.depth_topics) else [''] * len(self.cameras)

    def check(self) -> None:
        """Check rules that concern several parameters, since they may be set one by one.

        Raises:
            ParameterError: depth_topics and image_topics differ in length.
        """
        if len(self.depths) != len(self.cameras):
            raise ParameterError(
                f'depth_topics has {count_of(len(self.depths), "entry", "entries")}, but the '
                f'number of cameras is {len(self.cameras)} ({", ".join(self.cameras)}): give one '
                'for each, "" for a camera without depth'
            )


def _video_config(values: Mapping[str, Any]) -> VideoConfig:
    is_cropped = values['input'] == CROPPED_FACES
    return VideoConfig(
        # A cropped face fills its image, so there is no region to search.
        detector_interval=1 if is_cropped else values['detector.interval'],
        blur=values['privacy.blur'],
        consent_required=values['consent.required'],
        pipeline=PipelineConfig(
            max_side_px=values['detector.max_side_px'],
            max_faces=values['max_faces'],
            rotation=values['image_rotation'],
            prior=Prior.parse(values['expression.prior']),
            quality=QualityThresholds(
                min_side_px=values['quality.min_side_px'],
                min_frontality=values['quality.min_frontality'],
                min_sharpness=values['quality.min_sharpness'],
            ),
        ),
        tracker=TrackerConfig(
            max_missed_s=values['tracker.max_missed_s'],
            max_distance=values['tracker.max_distance'],
            min_hits=values['tracker.min_hits'],
            half_life_s=values['smoothing.half_life_s'],
            margin=values['smoothing.margin'],
            min_confidence=values['expression.min_confidence'],
        ),
        attention=AttentionConfig(
            values['attention.angle_deg'], values['attention.min_duration_s']
        ),
        events=EventConfig(values['events.min_duration_s']),
    )
