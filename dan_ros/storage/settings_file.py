# SPDX-License-Identifier: Apache-2.0
"""Check settings from YAML files, and report the first problem in one line."""

import difflib
import re
import reprlib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dan_ros.errors import DanError

# Number that YAML 1.1 takes for text, such as 1e-3, quoted.
EXPONENT = re.compile(r"'[-+]?[0-9.]+[eE][-+]?[0-9]+'")
# Quotes values in messages: YAML aliases can expand a few lines to millions of list items.
QUOTE = reprlib.Repr()
QUOTE.maxlevel = 2
QUOTE.maxstring = 100


class Settings(BaseModel, frozen=True, extra='forbid', strict=True, allow_inf_nan=False):
    """Base class of settings: immutable; unknown keys and values of another type are refused."""


AnySettings = TypeVar('AnySettings', bound=Settings)


def check_settings(
    kind: type[AnySettings], content: Any, where: str, error_type: type[DanError]
) -> AnySettings:
    """Build settings from plain dicts, lists, strings and numbers.

    `where` names the origin of `content` in messages.

    Raises:
        DanError: of `error_type`: a key is unknown or missing, or a value is invalid.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise error_type(f'{where}: {_describe(error, kind)}') from None


def _describe(error: ValidationError, kind: type[BaseModel]) -> str:
    """Describe the first problem in one line: key, allowed values, and the value found."""
    first = error.errors(include_url=False)[0]
    name = '.'.join(map(str, first['loc']))
    if first['type'] == 'extra_forbidden':
        known = list(_kind_at(kind, first['loc'][:-1]).model_fields)
        near = difflib.get_close_matches(str(first['loc'][-1]), known, 1, cutoff=0.5)
        hint = f'did you mean {near[0]!r}?' if near else f'known are {", ".join(known)}'
        return f'unknown key {name!r}; {hint}'
    if first['type'] == 'missing' and len(first['loc']) == 1:
        return f'{name} is missing'
    message = first['msg'].removeprefix('Value error, ').replace('Input should', 'must')
    message = message.replace('tuple', 'list').replace('Tuple should', 'must')
    if isinstance(first['input'], dict):  # a rule for several keys; its message names them
        return f'{name}: {message}' if name else message
    where = f'{name}: ' if name else ''
    found = QUOTE.repr(first['input'])
    if EXPONENT.fullmatch(found):
        found += '; YAML takes it for text: write it like 1.0e-3 or 1.0e+3'
    return f'{where}{message}, found {found}'


def _kind_at(kind: type[BaseModel], keys: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the class of nested settings, such as the augmentation in a recipe."""
    for key in keys:
        inner = kind.model_fields[str(key)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return kind
