# SPDX-License-Identifier: Apache-2.0
"""Read YAML files, and report errors in one line."""

from pathlib import Path
from typing import Any

from dan_ros.errors import DanError, one_line


def read_yaml(path: Path, what: str, error_type: type[DanError]) -> Any:
    """Read a YAML file; {} if it is empty.

    `what` names the content in messages, such as 'recipe'.

    Raises:
        DanError: of `error_type`: the file is missing or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding='utf-8')) or {}
    except OSError as error:
        raise error_type(f'the {what} {path} cannot be read: {error.strerror}') from None
    except RecursionError:
        raise error_type(f'{path} is not a {what}: YAML nesting is too deep') from None
    except Exception as error:  # yaml passes on errors of invalid dates, numbers and bytes
        reason = one_line(error)
        raise error_type(f'{path} is not valid YAML: {reason}') from None
