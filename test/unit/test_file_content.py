# SPDX-License-Identifier: Apache-2.0
"""Files are named by their first bytes."""

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as safetensors

from dan_ros.model.store import KNOWN_MODELS, read_model
from dan_ros.storage.file_content import (
    CHECKPOINT,
    MODEL,
    explain_wrong_content,
    name_content,
)


def saved(save, *arguments, **options) -> bytes:
    """Return the file that `save` writes; `arguments` come before the file."""
    file = io.BytesIO()
    save(*arguments, file, **options)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('notes.txt', 'notes')
    return file.getvalue()


def archived() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('notes.txt'))
    return file.getvalue()


def iso_media(*brands: bytes) -> bytes:
    """The start of a file of the ISO base media format; the first brand is the major one."""
    content = b'ftyp' + brands[0] + bytes(4) + b''.join(brands)
    return (len(content) + 4).to_bytes(4, 'big') + content + bytes(100)


STATE = {'weight': torch.zeros(3)}
PIXELS = Image.new('RGB', (9, 9))


@pytest.mark.parametrize(
    ('content', 'name'),
    [
        (b'', 'an empty file'),
        (bytes(5000), 'a file of null bytes'),
        (b'<!DOCTYPE html><html>', 'a web page'),
        (b'\xef\xbb\xbf\r\n<!-- saved -->\n<HTML lang="en">', 'a web page'),
        (b'<!--' + b' a long comment' * 200, 'a web page'),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C">', 'a web page'),
        ('<html>größe'.encode('utf-16'), 'a web page'),
        ('<html><p>größe</p>'.encode('latin-1'), 'a web page'),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', 'an XML or HTML text'),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', 'an SVG drawing'),
        (b'{"message": "not found"}', 'a JSON text'),
        (b'404: Not Found\n', "a text that begins with '404: Not Found'"),
        ('Nicht erlaubt für ö'.encode()[:-1], "a text that begins with 'Nicht erlaubt für'"),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'a Git LFS pointer'),
        (b'../../.git/annex/objects/xk/m4/SHA256E-s1--0', 'a git-annex pointer'),
        (b'#ROSBAG V2.0\n', 'a ROS 1 bag'),
        (b'#ROSRECORD V1.1\n', 'a ROS 1 bag'),
        (b'%PDF-1.7\n', 'a PDF document'),
        (iso_media(b'heic', b'mif1', b'heic'), 'a HEIC picture'),
        (iso_media(b'mif1', b'miaf', b'heix'), 'a HEIC picture'),
        (iso_media(b'avif', b'mif1'), 'an AVIF picture'),
        (iso_media(b'mif1', b'avif'), 'an AVIF picture'),
        (iso_media(b'isom', b'mp41'), 'a video'),
        (iso_media(b'qt  '), 'a video'),
        (b'\0\x05\x16\x07\0\x02\0\0Mac OS X', 'a metadata file of macOS (AppleDouble)'),
        (b'\x28\xb5\x2f\xfd' + bytes(50), 'a zstd archive'),
        (zipped(), 'a ZIP archive'),
        (archived(), 'a tar archive'),
        (pickle.dumps([STATE]), 'a Python pickle'),
        (saved(torch.save, STATE), 'a PyTorch checkpoint'),
        (safetensors(STATE), 'a safetensors file'),
        (saved(np.savez, images=np.zeros(3)), 'a NumPy archive'),
        (saved(PIXELS.save, format='JPEG'), 'a JPEG picture'),
        (saved(PIXELS.save, format='PNG'), 'a PNG picture'),
        (saved(PIXELS.save, format='TIFF', big_tiff=True), 'a TIFF picture'),
    ],
)
def test_content_is_named(content, name):
    assert name_content(content).name == name


@pytest.mark.parametrize(
    'content', [bytes(range(256)), b'\x08\x08\xff\x07dan_ros:', b'\xff\xfe\xd8']
)
def test_unknown_content_has_no_name(content):
    assert name_content(content) is None
    assert explain_wrong_content(content, 'a picture') == ''


def test_the_explanation_names_the_content_and_the_way_out():
    words = explain_wrong_content(b'version https://git-lfs.github.com/spec/v1', 'a checkpoint')
    assert words == (
        'is a Git LFS pointer, not a checkpoint: run `git lfs pull` to get the file itself'
    )
    assert explain_wrong_content(zipped(), 'a checkpoint', CHECKPOINT).startswith('is a ZIP')


def test_nothing_is_said_about_content_that_is_expected():
    assert explain_wrong_content(saved(torch.save, STATE), 'a checkpoint', CHECKPOINT) == ''


@pytest.mark.parametrize('name', KNOWN_MODELS)
def test_a_model_is_named_only_where_none_is_expected(name):
    content = read_model(name).content
    assert name_content(content).name == 'an ONNX model'
    assert explain_wrong_content(content, 'a model', MODEL) == ''
    assert '`dan-ros adopt`' in explain_wrong_content(content, 'a checkpoint', CHECKPOINT)
