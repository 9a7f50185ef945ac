# SPDX-License-Identifier: Apache-2.0
"""The documentation site builds without a broken link, and people of all kinds can use it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    not (ROOT / '.site' / 'ready').exists() or not shutil.which('chromium'),
    reason='needs `make site` once, and Chromium',
)
def test_the_site_has_no_faults():
    done = subprocess.run(
        ['make', 'check-site'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
