# SPDX-License-Identifier: Apache-2.0
"""Check that the model on a server is the one that this robot expects."""

from typing import TYPE_CHECKING

import numpy as np

from dan_ros.backends.kserve.config import MAX_BATCH
from dan_ros.errors import ModelError, count_of, shorten
from dan_ros.labels import logits_to_probabilities
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.store import ModelFile

if TYPE_CHECKING:  # the import needs the client's package
    from dan_ros.backends.kserve.client import ServedModel

SHA256 = 'dan_ros.sha256'  # key of the hash of the ONNX file that the server runs
REMEDY = (
    "set model.file and backend.model_name to the same model, or write the server's files again "
    'with `dan-ros serve-config`'
)


# Largest difference of a probability on `probe_pictures`. Float and int8 differ by 0.02 at most;
# wrong channel orders, and transposed or blank pictures, by at least 0.2.
MAX_DIFFERENCE = 0.1


def parameters_of(file: ModelFile, info: ModelInfo) -> dict[str, str]:
    """Return the parameters by which a robot recognizes a model on a server."""
    return {**info.to_metadata(), SHA256: file.sha256}


def check_model(served: 'ServedModel', file: ModelFile, info: ModelInfo, where: str) -> bool:
    """Check that a server's model can replace a local one.

    It must have the same tensors, labels, input size and crop, and must be the same file or come
    from the same weights: a server with a GPU may run in fp16 what the robot runs in int8.

    Args:
        served: description by the server.
        file, info: the local model.
        where: name of server and model, for messages.

    Returns:
        Whether the server reported its labels and the origin of its weights; False if it has only
        tensors.

    Raises:
        ModelError: the models differ.
    """
    faces = (metadata.INPUT_NAME, 'uint8', [*info.input_size, 3])
    logits = (metadata.OUTPUT_NAME, 'float32', [len(info.labels)])
    _require_same(where, 'inputs', served.inputs, [faces])
    _require_same(where, 'outputs', served.outputs, [logits])
    if 0 < served.max_batch < MAX_BATCH:
        raise ModelError(
            f'{where} takes at most {count_of(served.max_batch, "face")} at once, but robots send '
            f'up to {MAX_BATCH}; {REMEDY}'
        )
    told = served.parameters
    if SHA256 not in told:
        return False
    other = ModelInfo.from_metadata(told, where)
    _require_same(where, 'labels', ','.join(other.labels), ','.join(info.labels))
    _require_same(where, 'crop scale', other.crop_scale, info.crop_scale)
    has_same_weights = info.source_sha256 and other.source_sha256 == info.source_sha256
    if told[SHA256] != file.sha256 and not has_same_weights:
        hashes = (told[SHA256], other.source_sha256), (file.sha256, info.source_sha256)
        _require_same(where, 'SHA-256 of file and weights', *hashes)
    return True


def probe_pictures(size: tuple[int, int]) -> np.ndarray:
    """Return two pictures of colored clouds without faces, uint8 [2, H, W, 3]."""
    places = [np.linspace(0, 5, side) for side in size]
    corners = np.random.RandomState(2).rand(2, 6, 6, 3)
    rows, columns = (np.maximum(0, 1 - np.abs(p[:, None] - np.arange(6))) for p in places)
    clouds = np.einsum('hy,wx,nyxc->nhwc', rows, columns, corners)
    pictures: np.ndarray = (255 * clouds).astype(np.uint8)
    return pictures


def check_answers(
    served: np.ndarray, local: np.ndarray, labels: tuple[str, ...], where: str
) -> None:
    """Check that a server gives nearly the answers of the local model to `probe_pictures`.

    Only this check finds a server that misreads its input.

    Args:
        served, local: logits, float32 [2, C].
        labels: labels of the C classes.
        where: name of server and model, for messages.

    Raises:
        ModelError: the answers differ.
    """
    probabilities = [logits_to_probabilities(logits, labels) for logits in (served, local)]
    difference = float(np.abs(probabilities[0] - probabilities[1]).max())
    if difference > MAX_DIFFERENCE:
        raise ModelError(
            f"{where} differs from this robot's model, or misreads pictures: on a test picture "
            f'its probabilities differ by {difference:.2f}; {REMEDY}'
        )


def _require_same(where: str, what: str, served: object, local: object) -> None:
    if served != local:
        raise ModelError(
            f"{where} differs from this robot's model: {what} {shorten(served)} instead of "
            f'{shorten(local)}; {REMEDY}'
        )
