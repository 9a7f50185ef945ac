# SPDX-License-Identifier: Apache-2.0
"""Wrap any ONNX expression classifier in this package's interface, and check the result.

The wrapped graph takes uint8 RGB faces and returns logits (see `metadata`): color, mean, standard
deviation and layout become its first nodes, and the selection of outputs its last ones. The
classifier between them keeps its weights, but is converted to opset 17 and a variable batch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, compose, helper, inliner, numpy_helper, version_converter

from dan_ros.adopt.descriptor import Descriptor
from dan_ros.backends.onnxruntime import open_session
from dan_ros.backends.tensorrt.onnx_transforms import expand_log_softmax
from dan_ros.errors import ModelError, count_of, one_line, shorten
from dan_ros.labels import logits_to_probabilities
from dan_ros.model.metadata import INPUT_NAME, OUTPUT_NAME
from dan_ros.model.normalization import LUMA
from dan_ros.model.onnx_file import parse_onnx
from dan_ros.model.onnx_writer import OPSET, make_model

PREFIX = 'adopted/'  # prefix of all names in the classifier, to avoid name clashes
HALF = 'tensor(float16)'
TYPES = ('tensor(float)', HALF)
CHANNELS = {'nchw': 1, 'nhwc': 3}  # axis of the channels
CHECK_BATCH = 3  # number of noise images on which a wrapped classifier is checked
MAX_DIFFERENCE = 2e-3  # largest error of a probability; fp16 classifiers come close
MIN_PROBABILITY = 1e-7  # lower limit of probabilities before the logarithm
SUM_TOLERANCE = 0.02  # deviation of a softmax's sum from 1; int8 classifiers come close
# With dynamo=True, PyTorch keeps opset 18 where it cannot convert the operators.
REMEDY = f'opset {OPSET} (with PyTorch: dynamo=False, opset_version={OPSET})'


@dataclass(frozen=True)
class Adopted:
    """A wrapped classifier."""

    model: onnx.ModelProto  # the graph, for `onnx_writer.save_model`
    difference: float  # largest difference of a probability between classifier and wrapped graph


class Classifier:
    """A classifier as its author published it, run by ONNX Runtime; arguments as for `adopt`.

    Raises:
        ModelError: it cannot be run, or does not fit the descriptor.
    """

    def __init__(self, content: bytes, descriptor: Descriptor, where: str) -> None:
        self.descriptor, self.where = descriptor, where
        self._session = _open(content, where)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f'{where} has {len(inputs)} inputs; a classifier of faces has one')
        (self.input,) = inputs
        if self.input.type not in TYPES:
            raise ModelError(
                f'{where}: its input {self.input.name} is {self.input.type}, not float'
            )
        self.channels, self.batch = self._check_shape()
        self.output, self.width = self._find_output()
        (output,) = (node for node in self._session.get_outputs() if node.name == self.output)
        self.output_rank = len(output.shape)

    def _check_shape(self) -> tuple[int, int | None]:
        """Return the channels of the input, and its batch size if that is fixed."""
        shape, layout = list(self.input.shape), self.descriptor.layout
        if len(shape) != 4:
            raise ModelError(f'{self.where}: its input is {shape}, not a batch of images')
        batch, *rest = shape
        channels = rest.pop(CHANNELS[layout] - 1)
        expected = 1 if self.descriptor.color == 'gray' else 3
        fits = all(
            not isinstance(found, int) or found == side
            for found, side in zip(rest, self.descriptor.size, strict=True)
        )
        if not fits or (isinstance(channels, int) and channels not in (3, expected)):
            height, width = self.descriptor.size
            raise ModelError(
                f'{self.where}: its input is {shape}; the descriptor says {layout}, '
                f'{height}x{width} pixels, {self.descriptor.color}'
            )
        channels = channels if isinstance(channels, int) else expected
        numbers = max(len(self.descriptor.mean), len(self.descriptor.std))
        if numbers > channels:
            raise ModelError(
                f'{self.where}: its input has one channel, but the descriptor has {numbers} '
                'numbers in mean or std; give one'
            )
        return channels, batch if isinstance(batch, int) else None

    def _find_output(self) -> tuple[str, int]:
        """Return the name of the output with the classes, and its values per face."""
        names = [output.name for output in self._session.get_outputs()]
        if self.descriptor.output and self.descriptor.output not in names:
            raise ModelError(
                f'{self.where} has no output {self.descriptor.output}; it has {", ".join(names)}'
            )
        outputs = zip(names, self._run(self.noise(1)), strict=True)
        widths = {name: output.size for name, output in outputs}
        count = len(self.descriptor.labels)
        if self.descriptor.output:
            names = [self.descriptor.output]
        fitting = [name for name in names if widths[name] == count]
        if not fitting:
            found = ', '.join(f'{name} with {widths[name]}' for name in names)
            raise ModelError(
                f'{self.where}: the descriptor has {count_of(count, "label")}, but the outputs are '
                f'{found} values; list a label for each value, null for those that are not '
                'expressions'
            )
        if len(fitting) > 1:
            raise ModelError(
                f'{self.where}: several outputs have {count} values ({", ".join(fitting)}); name '
                'one in the descriptor: output'
            )
        return fitting[0], count

    def noise(self, count: int) -> np.ndarray:
        """Images of noise, uint8 [count, H, W, 3]."""
        shape = (count, *self.descriptor.size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def _prepare(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Preprocess uint8 [N, H, W, 3] faces with NumPy as the wrapped graph does."""
        x = faces_rgb.astype(np.float32) / 255
        if self.descriptor.color == 'bgr':
            x = x[..., ::-1]
        elif self.descriptor.color == 'gray':
            x = np.repeat(x @ np.array(LUMA, np.float32)[:, None], self.channels, axis=3)
        x = (x - np.array(self.descriptor.mean, np.float32)) / np.array(
            self.descriptor.std, np.float32
        )
        if self.descriptor.layout == 'nchw':
            x = x.transpose(0, 3, 1, 2)
        dtype = np.float16 if self.input.type == HALF else np.float32
        return np.ascontiguousarray(x, dtype)

    def _run(self, faces_rgb: np.ndarray) -> list[np.ndarray]:
        """Run faces one by one, as the classifier may have a fixed batch; outputs [N, ...]."""
        rows: list[list[np.ndarray]] = []
        for face in faces_rgb:
            batch = np.stack([face] * (self.batch or 1))
            try:
                outputs = _run_quietly(self._session, {self.input.name: self._prepare(batch)})
            except Exception as error:  # ONNX Runtime's exceptions have no common base class
                reason = shorten(one_line(error))
                raise ModelError(f'{self.where} cannot be run: {reason}') from None
            # The output of a batch of one may lack its batch.
            whole = np.atleast_1d if self.batch and self.batch > 1 else np.atleast_2d
            rows.append([whole(output)[:1] for output in outputs])
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    def scores(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Outputs of the expressions: uint8 [N, H, W, 3] RGB -> float [N, C], unchanged.

        Raises:
            ModelError: they are not finite, or do not match the descriptor.
        """
        names = [output.name for output in self._session.get_outputs()]
        values = self._run(faces_rgb)[names.index(self.output)].reshape(len(faces_rgb), self.width)
        kept = values[:, kept_outputs(self.descriptor)].astype(np.float32)
        _check_kind(kept, values, self.descriptor, self.where)
        return kept


def adopt(content: bytes, descriptor: Descriptor, where: str, faces: np.ndarray) -> Adopted:
    """Wrap a classifier, and compare the result with the original.

    `faces`, uint8 [N, H, W, 3] RGB, are compared in addition to noise; N may be 0.

    Raises:
        ModelError: the file cannot be wrapped, or the results differ.
    """
    model = parse_onnx(content, where)
    original = Classifier(content, descriptor, where)
    faces = np.concatenate([original.noise(CHECK_BATCH), faces])
    expected = _to_probabilities(original.scores(faces), descriptor)
    wrapped = _wrap(_modernize(model, where), original)
    try:
        wrapped = onnx.load_from_string(expand_log_softmax(wrapped.SerializeToString()))
        session = _open(wrapped.SerializeToString(), where)
        (logits,) = _run_quietly(session, {INPUT_NAME: faces})
        found = logits_to_probabilities(logits, descriptor.expressions)
        difference = float(np.abs(found - expected).max())
    except Exception as error:  # onnx and ONNX Runtime have no common base class of errors
        difference, reason = np.inf, f' ({shorten(one_line(error))})'
    else:
        reason = f' (a probability differs by {difference:.3f})'
    if not difference <= MAX_DIFFERENCE:
        fixed = f'its batch of {original.batch} is part of the graph' if original.batch else ''
        raise ModelError(
            f'{where} gives other results when wrapped{reason}: '
            f'{fixed or "an operator depends on the batch or the opset"}; export it again with a '
            f'variable batch and {REMEDY}'
        )
    return Adopted(wrapped, difference)


def kept_outputs(descriptor: Descriptor) -> list[int]:
    """Indices of the outputs that are expressions."""
    return [index for index, label in enumerate(descriptor.labels) if label is not None]


def _open(content: bytes, where: str) -> onnxruntime.InferenceSession:
    try:
        return open_session(content)
    except ModelError as error:
        raise ModelError(f'{where}: {shorten(one_line(error))}') from None


def _run_quietly(
    session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Return all outputs; an error is raised, but not also printed by ONNX Runtime."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # fatal errors only
    return list(session.run(None, inputs, options))


def _check_kind(kept: np.ndarray, values: np.ndarray, descriptor: Descriptor, where: str) -> None:
    """Check that the outputs are logits or probabilities, as described."""
    if not np.isfinite(kept).all():
        raise ModelError(f'{where} gives results that are not finite; check mean and std')
    sums = kept.sum(axis=1)
    positive = (kept >= 0).all()
    if descriptor.outputs == 'probabilities':
        if not positive or (sums > 1 + SUM_TOLERANCE).any():
            raise ModelError(
                f'{where}: its outputs are not probabilities (a row sums to {sums.max():.3g}); set '
                'outputs: logits in the descriptor'
            )
    elif positive and (np.abs(values.sum(axis=1) - 1) < SUM_TOLERANCE).all():
        raise ModelError(
            f'{where}: its outputs are probabilities already (each row sums to 1); set outputs: '
            'probabilities in the descriptor'
        )


def _to_probabilities(scores: np.ndarray, descriptor: Descriptor) -> np.ndarray:
    if descriptor.outputs == 'probabilities':
        scores = np.log(np.maximum(scores, MIN_PROBABILITY))
    return logits_to_probabilities(scores, descriptor.expressions)


def _modernize(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Convert to opset 17; only standard operators are accepted."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    _sort_nodes(model.graph)
    _drop_empty_axes(model.graph)
    domains = {entry.domain: entry.version for entry in model.opset_import}
    used = {node.domain for node in model.graph.node} - {'', 'ai.onnx'}
    if used:
        raise ModelError(
            f'{where} uses operators of {", ".join(sorted(used))}, which only some runtimes have; '
            'export it without them'
        )
    if domains.get('', domains.get('ai.onnx', OPSET)) != OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # RuntimeError and several classes of protobuf
            raise ModelError(
                f'{where} cannot be converted to opset {OPSET} '
                f'({shorten(one_line(error))}); export it again with {REMEDY}'
            ) from None
    return model


def _wrap(model: onnx.ModelProto, original: Classifier) -> onnx.ModelProto:
    """Add the preprocessing before the classifier's graph, and select its outputs after it."""
    descriptor = original.descriptor
    body = compose.add_prefix(model, PREFIX).graph
    initializers = {tensor.name for tensor in body.initializer}  # old files list them as inputs
    (old_input,) = (value for value in body.input if value.name not in initializers)
    if original.batch:
        _free_batch(body, original.batch)
    _to_float32(body)
    first, constants = _preprocessing(original, old_input.name)
    last, more = _postprocessing(original, PREFIX + original.output)
    if not last:
        _rename(body, PREFIX + original.output, OUTPUT_NAME)
    else:
        last[-1].output[0] = OUTPUT_NAME
    height, width = descriptor.size
    graph = helper.make_graph(
        [*first, *body.node, *last],
        'adopted',
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ['N', height, width, 3])],
        [
            helper.make_tensor_value_info(
                OUTPUT_NAME, TensorProto.FLOAT, ['N', len(descriptor.expressions)]
            )
        ],
        [*constants, *more, *body.initializer],
    )
    graph.sparse_initializer.extend(body.sparse_initializer)
    return make_model(graph)


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Move each node behind those it needs; converters to fp16 append their casts to the graph.

    A graph with a cycle stays as it is; the checker refuses it.
    """
    pending = {name for node in graph.node for name in node.output if name}  # '' is left out
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if pending.isdisjoint(node.input):
                ordered.append(node)
                pending.difference_update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            return
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def _drop_empty_axes(graph: onnx.GraphProto) -> None:
    """Remove an attribute of opset 18 that changes nothing; onnx's converter leaves it."""
    for node in graph.node:
        if node.op_type.startswith('Reduce'):
            kept = [
                item
                for item in node.attribute
                if item.name != 'noop_with_empty_axes' or (item.i and not any(node.input[1:]))
            ]
            del node.attribute[:]
            node.attribute.extend(kept)


def _free_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Make reshapes that contain the fixed batch size keep the batch of their input."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            constants[node.output[0]] = node.attribute[0].t
    for index, node in enumerate(graph.node):
        if node.op_type != 'Reshape' or node.input[0] in constants:
            continue
        if node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]])
        if len(shape) and shape[0] == batch:
            name = f'{PREFIX}shape_{index}'
            graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]]), name))
            node.input[1] = name
            del node.attribute[:]  # allowzero, with which 0 is not the size of the input


def _to_float32(graph: onnx.GraphProto) -> None:
    """Convert fp16 tensors to fp32, because runtimes treat fp16 inside a graph differently."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == 'to' and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _preprocessing(
    original: Classifier, output: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes from `INPUT_NAME`, uint8 [N, H, W, 3], to the input of the classifier."""
    descriptor, channels = original.descriptor, original.channels
    std = np.broadcast_to(np.array(descriptor.std), channels)
    mean = np.broadcast_to(np.array(descriptor.mean), channels)
    if descriptor.color == 'gray':
        mix = np.repeat(np.array(LUMA)[:, None], channels, axis=1)  # [3, channels]
    else:
        mix = np.eye(3)[:, :: -1 if descriptor.color == 'bgr' else 1]
    constants = [
        numpy_helper.from_array((mix / (255 * std)).astype(np.float32), 'color'),
        numpy_helper.from_array((-mean / std).astype(np.float32), 'offset'),
    ]
    nodes = [
        helper.make_node('Cast', [INPUT_NAME], ['pixels'], 'cast', to=TensorProto.FLOAT),
        helper.make_node('MatMul', ['pixels', 'color'], ['scaled'], 'scale'),
        helper.make_node('Add', ['scaled', 'offset'], ['normalized'], 'shift'),
    ]
    perm = [0, 3, 1, 2] if descriptor.layout == 'nchw' else [0, 1, 2, 3]
    nodes.append(helper.make_node('Transpose', ['normalized'], [output], 'layout', perm=perm))
    return nodes, constants


def _postprocessing(
    original: Classifier, value: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes from an output of the classifier to `OUTPUT_NAME`, float [N, C].

    Nodes without an effect are left out: runtimes would drop them, and the output's name with them.
    """
    descriptor = original.descriptor
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def append(kind: str, name: str, *arrays: np.ndarray, **attributes: Any) -> None:
        names = [f'{name}_{index}' for index in range(len(arrays))]
        constants.extend(map(numpy_helper.from_array, arrays, names))
        last = nodes[-1].output[0] if nodes else value
        nodes.append(helper.make_node(kind, [last, *names], [name], name, **attributes))

    if original.output_rank != 2:
        append('Reshape', 'flat', np.array([-1, original.width]))
    if None in descriptor.labels:
        append('Gather', 'expressions', np.array(kept_outputs(descriptor)), axis=1)
    if descriptor.outputs == 'probabilities':
        append('Max', 'cut', np.array(MIN_PROBABILITY, np.float32))
        append('Log', 'log')
    return nodes, constants


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new if name == old else name
