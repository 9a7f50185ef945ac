# SPDX-License-Identifier: Apache-2.0
"""Errors of this package. Each message says what was wrong, where, and what to do next."""

MAX_SHOWN_CHARACTERS = 200  # length at which `shorten` cuts a text


class DanError(Exception):
    """Base class of all errors that this package defines."""


class ModelError(DanError):
    """A model file is missing, damaged or invalid."""


class MissingModelError(ModelError):
    """There is no file of a known model."""


class DamagedModelError(ModelError):
    """The file of a known model is damaged, or of another version."""


class BackendError(DanError):
    """An inference backend is unknown, not installed, or failed."""


class MissingPackageError(BackendError):
    """A package that a backend needs is not installed, does not load, or is too old."""


class GpuMemoryError(BackendError):
    """The GPU has too little free memory for a batch; a smaller batch may fit."""


class GpuLostError(BackendError):
    """The GPU failed, and only a new process can use it again."""


class FrameError(DanError):
    """A camera image is invalid: damaged, too large, or inconsistent with its fields.

    Attributes:
        cause: snake_case key under which diagnostics count dropped frames.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class ParameterError(DanError):
    """A parameter has a value of the wrong type or outside its range or choices."""


class ConsentError(DanError):
    """A face cannot be released for publication, or is unknown."""


class DataError(DanError):
    """A data set or picture is missing, damaged, or not what the recipe needs."""


class TrainingError(DanError):
    """A training run cannot start, continue or be resumed."""


def count_of(number: int, noun: str, plural: str = '', *, number_format: str = 'd') -> str:
    """Return a number and its noun in singular or plural, for a message.

    Args:
        number: the count.
        noun: the noun in singular.
        plural: its plural, if that is not the noun with an s.
        number_format: `,` separates thousands.

    Example:
        >>> count_of(1, 'image'), count_of(2, 'image'), count_of(0, 'class', 'classes')
        ('1 image', '2 images', '0 classes')
    """
    return f'{number:{number_format}} {noun if number == 1 else plural or f"{noun}s"}'


def one_line(error: BaseException) -> str:
    r"""Return the text of an error on one line, or the name of its type if it has no text.

    Example:
        >>> one_line(ValueError('two\n  lines')), one_line(MemoryError())
        ('two lines', 'MemoryError')
    """
    return ' '.join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """Return the first line of an error, or the name of its type if it has no text."""
    return (str(error) or type(error).__name__).splitlines()[0]


def shorten(text: object) -> str:
    """Cut a text of any length to at most 200 characters, for a message.

    Example:
        >>> len(shorten('x' * 5000))
        203
    """
    whole = str(text)
    return whole if len(whole) <= MAX_SHOWN_CHARACTERS else f'{whole[:MAX_SHOWN_CHARACTERS]}...'
