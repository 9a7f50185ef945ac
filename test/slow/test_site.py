# SPDX-License-Identifier: Apache-2.0
"""The documentation site builds without a broken link, can be used by all, and has its pictures."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


def test_the_moving_picture_of_the_readme_can_be_made_again(tmp_path):
    tool = ROOT / 'tools' / 'make_moving_picture.py'
    path = tmp_path / 'moving.webp'
    subprocess.run([sys.executable, tool, '--out', path, '--rate', '1'], check=True)
    with Image.open(path) as picture, Image.open(ROOT / 'docs' / 'moving.webp') as shown:
        assert (picture.n_frames, picture.size) == (9, shown.size)
