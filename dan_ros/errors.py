"""Errors of this package. Every message says what was wrong, where, and what to do next."""

MAX_SHOWN_CHARACTERS = 200  # of a text from elsewhere, such as a path, in a message


class DanError(Exception):
    """Base of every error this package raises on purpose."""


class ModelError(DanError):
    """A model file is missing, damaged, or not what it claims to be."""


class BackendError(DanError):
    """An inference backend is unknown, not installed, or failed."""


class GpuMemoryError(BackendError):
    """The GPU has too little memory left for a batch; a smaller one may fit."""


class GpuLostError(BackendError):
    """The GPU failed in a way that only a new process can get over."""


class FrameError(DanError):
    """A camera image that does not fit its own description.

    Attributes:
        cause: short snake_case name, the key under which dropped frames are counted.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class ParameterError(DanError):
    """A parameter has a value outside its type, range or choices."""


class DataError(DanError):
    """A data set is missing, damaged, or not what the recipe needs."""


class TrainingError(DanError):
    """A training can not start, go on, or be resumed."""


def cut(text: object) -> str:
    """The start of a text from elsewhere, which may be of any length, for a message."""
    whole = str(text)
    return whole if len(whole) <= MAX_SHOWN_CHARACTERS else f'{whole[:MAX_SHOWN_CHARACTERS]}...'
