"""The node's parameters: one table with default, meaning, unit and range of each.

It drives declaration, validation and `config/dan.yaml`. Where a part that works without ROS has a
default of its own, it is taken from there: every default is written once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
    ParameterUninitializedException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_full_topic_name import validate_full_topic_name

from dan_ros.backends import BACKENDS, PRECISIONS
from dan_ros.detect import DETECTORS, DEVICES
from dan_ros.errors import ParameterError
from dan_ros.faces.quality import QualityThresholds
from dan_ros.images.opencv import MAX_PIXELS
from dan_ros.model.store import DEFAULT_MODEL
from dan_ros.ros.sources import IMAGES, INPUTS, RAW, TRANSPORTS
from dan_ros.tracking.config import TrackerConfig

FOLLOWING, GATES = TrackerConfig(), QualityThresholds()

# Declared by rclpy itself, when it needs them.
FOREIGN_PREFIXES = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        name: dotted.
        default: bool, int, float, str or list of str; its type is the parameter's.
        description: what it does, a sentence.
        unit: of the value, or ''.
        minimum, maximum: of a number, both included.
        choices: the allowed values, or () for all.
        live: whether it may be changed while the node is configured.
        check: says in one line what else is wrong with a value, '' if nothing is.
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

    @property
    def allowed(self) -> str:
        """The allowed values, for people."""
        if self.choices:
            return 'one of ' + ', '.join(str(choice) for choice in self.choices)
        kind = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a string'}
        text = kind.get(type(self.default), 'a list of strings')
        if self.minimum is not None:
            text += f' from {self.minimum:.9g} to {self.maximum:.9g}'
        return f'{text} ({self.unit})' if self.unit else text

    def problem_with(self, value: Any) -> str:
        """Why a value is refused, in one line; '' if it is allowed."""
        if not (self._has_right_type(value) and self._is_in_range(value)):
            return f'{self.name} can not be {value!r}: it must be {self.allowed}'
        problem = self.check(value) if self.check else ''
        return f'{self.name}: {problem}' if problem else ''

    def to_value(self, value: Any) -> Any:
        """An allowed value in the type of the default: a whole number becomes a float."""
        return type(self.default)(value)

    def _has_right_type(self, value: Any) -> bool:
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
        """Descriptor for rclpy, which shows in `ros2 param describe`."""
        unit = f' Unit: {self.unit}.' if self.unit else ''
        when = '' if self.live else ' Set at start or before configuring.'
        descriptor = ParameterDescriptor(
            description=f'{self.description}{unit}{when}',
            additional_constraints=self.allowed,
            # so that whole numbers pass for floats; `problem_with` holds the type
            dynamic_typing=isinstance(self.default, float),
        )
        if self.minimum is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
            ]
        elif self.minimum is not None:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))
            ]
        return descriptor


def _problem_with_topics(topics: Iterable[str]) -> str:
    for topic in filter(None, topics):
        try:
            validate_full_topic_name(expand_topic_name(topic, 'dan_node', '/robot'))
        except (InvalidTopicNameException, ValueError) as error:  # of the whole, or before
            return ' '.join(str(error).split())
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
        'Several cameras: the names of their image topics. The default [""] is the one topic '
        '`image`, which can be remapped.',
        check=_problem_with_topics,
    ),
    Spec(
        'image_rotation',
        0,
        'Clockwise turn that sets the image of a camera mounted on its side upright; results are '
        'given in the image as received.',
        unit='degrees',
        choices=(0, 90, 180, 270),
        live=True,
    ),
    Spec(
        'input',
        IMAGES,
        'images of cameras, or cropped_faces: those that another detector publishes under '
        '/humans/faces (ROS4HRI), to which the expression alone is added.',
        choices=INPUTS,
    ),
    Spec(
        'ros4hri',
        False,
        'Publish faces under /humans/faces as well, as REP-155 has them; needs hri_msgs.',
    ),
    Spec(
        'image_transport',
        RAW,
        'raw, or compressed: JPEG and PNG on the topic of each camera with /compressed behind.',
        choices=TRANSPORTS,
    ),
    Spec(
        'qos.reliability',
        'best_effort',
        'Reliability of the image subscriptions; best_effort receives from every publisher.',
        choices=('best_effort', 'reliable'),
    ),
    Spec(
        'model.file',
        DEFAULT_MODEL,
        'The network: auto is the bundled one, as int8 where that is fastest; else the name of a '
        'known model (see `dan-ros models`), or the path of an ONNX file of `dan-ros convert`.',
    ),
    Spec(
        'backend.name',
        'auto',
        'What runs the network; auto takes the first that works of TensorRT, torch and ONNX '
        'Runtime on a GPU, and the fastest on the CPU.',
        choices=BACKENDS,
    ),
    Spec(
        'backend.precision',
        'auto',
        'Of the network on a GPU; auto is fp16, or int8 for an int8 model.',
        choices=PRECISIONS,
    ),
    Spec(
        'backend.fallback',
        False,
        'Where backend.name asks for a GPU that can not be used: false is an error, true goes on '
        'with the CPU and a warning in diagnostics.',
    ),
    Spec(
        'backend.threads',
        0,
        'CPU threads of network and detector; 0 is one a core but one, which is left to camera and '
        'middleware.',
        unit='threads',
        minimum=0,
        maximum=64,
    ),
    Spec(
        'detector.name',
        'auto',
        'What finds faces; auto is YuNet and, where its file can not be had, Haar with a warning.',
        choices=DETECTORS,
    ),
    Spec(
        'detector.device',
        'cpu',
        'Where YuNet runs; cuda needs the GPU build of ONNX Runtime.',
        choices=DEVICES,
    ),
    Spec(
        'detector.model_file',
        '',
        "Path of YuNet's file; empty looks in the usual places.",
    ),
    Spec(
        'detector.max_side_px',
        640,
        'Longer side of the reduced copy that faces are looked for in; crops come from the full '
        'image. Smaller is faster and misses small faces.',
        unit='pixels',
        minimum=64,
        maximum=4096,
        live=True,
    ),
    Spec(
        'detector.interval',
        1,
        'Every so-manieth image of a camera is looked through whole; in between faces are looked '
        'for where they were, and in the whole image only if one is not found there. Cheaper; new '
        'faces come up to so many images later.',
        unit='images',
        minimum=1,
        maximum=100,
        live=True,
    ),
    Spec(
        'detector.min_score',
        0.6,
        'Least confidence of the detector in a face.',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'max_faces',
        16,
        'So many faces of an image are judged, the largest; the rest are published as unknown.',
        unit='faces',
        minimum=1,
        maximum=1000,
        live=True,
    ),
    Spec(
        'expression.min_confidence',
        FOLLOWING.min_confidence,
        'A face whose most likely expression is less likely than this is published as unknown.',
        unit='probability',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'tracker.max_missed_s',
        FOLLOWING.max_missed_s,
        'A face that is away for longer gets a new id.',
        unit='seconds',
        minimum=0.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'tracker.max_distance',
        FOLLOWING.max_distance,
        'Farthest a face may be from where it is expected and keep its id.',
        unit='face sizes',
        minimum=0.0,
        maximum=10.0,
        live=True,
    ),
    Spec(
        'tracker.min_hits',
        FOLLOWING.min_hits,
        'A new face is published from the so-manieth image in a row on that it is found in; 2 or 3 '
        'keep out what is no face.',
        unit='images',
        minimum=1,
        maximum=100,
        live=True,
    ),
    Spec(
        'smoothing.half_life_s',
        FOLLOWING.half_life_s,
        'Weight of the past in probabilities halves in this time, at any rate of images; 0 '
        'switches smoothing off.',
        unit='seconds',
        minimum=0.0,
        maximum=60.0,
        live=True,
    ),
    Spec(
        'smoothing.margin',
        FOLLOWING.margin,
        'Least lead of another expression over the published one for the label to change.',
        unit='probability',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'quality.min_side_px',
        GATES.min_side_px,
        'A face whose box is smaller is published as unknown.',
        unit='pixels of the longer side',
        minimum=0.0,
        maximum=4096.0,
        live=True,
    ),
    Spec(
        'quality.min_frontality',
        GATES.min_frontality,
        'A face turned further away is published as unknown: 1 is frontal, 0 turned by 90 degrees.',
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Spec(
        'quality.min_sharpness',
        GATES.min_sharpness,
        'A more blurred face is published as unknown; sharp ones have 7 to 12. 0 lets all pass.',
        unit='cycles a face',
        minimum=0.0,
        maximum=100.0,
        live=True,
    ),
    Spec(
        'publish.tf',
        True,
        'Publish each face as the frame face_<id> on /tf, where camera_info comes and tf2_msgs is '
        'installed.',
        live=True,
    ),
    Spec(
        'limits.max_pixels',
        40_000_000,
        'A larger compressed image is refused before it is decoded.',
        unit='pixels',
        minimum=1,
        maximum=MAX_PIXELS,
        live=True,
    ),
    Spec(
        'rate.max_hz',
        0.0,
        'Most images processed a second, always the newest; 0 is no limit.',
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
        Names among the node's overrides that no parameter has: typing errors, most likely.

    Raises:
        ParameterError: an override has a value that is not allowed.
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
        for name in getattr(node, '_parameter_overrides', {})  # rclpy has no public way to them
        if name not in SPECS and not name.startswith(FOREIGN_PREFIXES)
    ]


def _problem_with_declared(node: Node, spec: Spec) -> str:
    try:
        value = node.get_parameter(spec.name).value
    except ParameterUninitializedException:
        return f'{spec.name} can not be []: YAML gives it no type; an empty list is [""]'
    return spec.problem_with(value)


def read_parameters(node: Node) -> dict[str, Any]:
    """Value of every parameter by name; floats are floats."""
    return {name: spec.to_value(node.get_parameter(name).value) for name, spec in SPECS.items()}


def check_change(changes: Iterable[Parameter], is_configured: bool) -> SetParametersResult:
    """Accept or refuse a set of changes as a whole."""
    for change in changes:
        spec = SPECS.get(change.name)
        if spec is None:
            continue
        problem = spec.problem_with(change.value)
        if not problem and is_configured and not spec.live:
            problem = (
                f'{spec.name} can not be changed while the node is configured: deactivate and '
                'clean it up first'
            )
        if problem:
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)
