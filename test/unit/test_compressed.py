# SPDX-License-Identifier: Apache-2.0
"""Compressed images: complete ones decode, damaged and huge ones are refused before decoding."""

import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from dan_ros.errors import FrameError
from dan_ros.images import compressed
from dan_ros.images.compressed import JpegDecoder, check_compressed, compressed_to_frame

MANY = 40_000_000


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()


@pytest.fixture(scope='module')
def picture(portrait):
    return portrait[:120, :161]


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_a_complete_image_is_decoded(picture, suffix):
    frame = compressed_to_frame(encoded(suffix, picture), MANY)
    assert frame.encoding == 'bgr8'
    assert frame.size == (161, 120)
    assert np.abs(frame.image.astype(int) - picture).mean() < (0.01 if suffix == '.png' else 5)


def test_progressive_gray_and_sixteen_bit(picture):
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    deep = gray.astype(np.uint16) * 257
    for content in (
        encoded('.jpg', picture, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded('.jpg', gray),
        encoded('.png', gray),
        encoded('.png', deep),
    ):
        frame = compressed_to_frame(content, MANY)
        assert frame.image.shape == (120, 161, 3)
        assert np.abs(frame.image[..., 1].astype(int) - gray).mean() < 8


def test_bytes_after_the_end_of_a_jpeg_are_ignored(picture):
    assert compressed_to_frame(encoded('.jpg', picture) + bytes(512), MANY).size == (161, 120)


def test_the_exif_orientation_is_ignored(picture):
    """Boxes are in pixels of the image as received; phones store their orientation."""
    content = encoded('.jpg', picture)
    tiff = b'II*\0\x08\0\0\0\x01\0' + struct.pack('<HHII', 0x0112, 3, 1, 6) + bytes(4)
    exif = b'Exif\0\0' + tiff
    turned = content[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + content[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (161, 120)
    assert compressed_to_frame(turned, MANY).size == (161, 120)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_an_image_that_ends_early_is_refused_before_decoding(picture, suffix):
    content = encoded(suffix, picture)
    for length in (len(content) // 2, len(content) - 30):
        with pytest.raises(FrameError) as error:
            check_compressed(content[:length], MANY)
        assert error.value.cause == 'bad_data'


@pytest.mark.parametrize('content', [b'', b'\xff', b'GIF89a' + bytes(40), bytes(1000)])
def test_a_format_other_than_jpeg_and_png_is_refused(content):
    with pytest.raises(FrameError) as error:
        check_compressed(content, MANY)
    assert error.value.cause == 'bad_format'


def test_a_bomb_is_refused_by_its_header():
    """60000 x 60000 pixels in 30 kB, which would take 10 GB decoded."""
    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
    bomb += chunk(b'IDAT', zlib.compress(bytes(10**7))) + chunk(b'IEND', b'')
    with pytest.raises(FrameError, match=r'60000 x 60000.*limits\.max_pixels') as error:
        compressed_to_frame(bomb, MANY)
    assert error.value.cause == 'too_large'


@pytest.mark.parametrize(
    'module', ['dan_ros.images.compressed', 'dan_ros.images.files', 'dan_ros.pipeline']
)
def test_opencv_refuses_images_above_the_largest_limit(module):
    """Test a new process that imports the package first, as the node and the command do."""
    code = (
        f'import {module}, cv2, numpy, sys\n'
        'try:\n'
        "    cv2.imdecode(numpy.frombuffer(b'P5 15812 15812 255\\n', numpy.uint8), 1)\n"
        'except cv2.error as error:\n'
        "    sys.exit(0 if 'MAX_IMAGE_PIXELS' in str(error) else str(error))\n"
        "sys.exit('it was decoded')\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_jpeg_with_endless_scans_is_refused(picture):
    """Each scan of a few bytes costs as much time as decoding the whole image."""
    content = encoded('.jpg', picture, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    check_compressed(content, MANY)
    last = content.rindex(b'\xff\xda')
    with pytest.raises(FrameError, match='scans') as error:
        check_compressed(content[:-2] + content[last:-2] * 40 + content[-2:], MANY)
    assert error.value.cause == 'bad_data'


def test_too_little_memory_is_a_memory_error(picture):
    """Decode 108 MB in a process whose memory limit is 16 MiB above its use."""
    code = (
        'import numpy, resource, sys\n'
        'from dan_ros.images.compressed import compressed_to_frame\n'
        'from dan_ros.images.opencv import cv2\n'
        "content = cv2.imencode('.png', numpy.zeros((6000, 6000, 3), numpy.uint8))[1].tobytes()\n"
        'has = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()\n'
        'resource.setrlimit(resource.RLIMIT_AS, (has + 2**24, -1))\n'
        'try:\n'
        '    compressed_to_frame(content, 40_000_000)\n'
        'except MemoryError:\n'
        '    sys.exit(0)\n'
        "sys.exit('it was decoded')\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_jpeg_with_junk_before_its_header_has_no_size(picture):
    """Decoders may disagree about where the header is; fill bytes are allowed."""
    content = encoded('.jpg', picture)
    assert check_compressed(content[:2] + b'\xff\xff\xff' + content[2:], MANY) == (161, 120)
    for junk in (b'\xff\x00\x00\x04', b'\x00', b'junk'):
        with pytest.raises(FrameError, match='without its header') as error:
            check_compressed(content[:2] + junk + content[2:], MANY)
        assert error.value.cause == 'bad_data'


def test_bytes_that_look_like_scans_behind_the_end_do_not_count(picture):
    content = encoded('.jpg', picture)
    assert check_compressed(content + b'\xff\xda' * 1000, MANY) == (161, 120)


def test_an_image_of_exactly_the_limit_passes(picture):
    content = encoded('.jpg', picture)
    check_compressed(content, 161 * 120)
    with pytest.raises(FrameError, match='161 x 120'):
        check_compressed(content, 161 * 120 - 1)


def test_an_image_without_pixels_is_refused(picture):
    content = bytearray(encoded('.png', picture))
    content[16:20] = bytes(4)
    with pytest.raises(FrameError) as error:
        check_compressed(bytes(content), MANY)
    assert error.value.cause == 'bad_size'


# --- in the size that is needed -------------------------------------------------------------------


def test_an_image_is_decoded_in_the_size_that_is_needed(portrait):
    large = cv2.resize(portrait[:400], (1281, 801))
    content, decoder = encoded('.jpg', large), JpegDecoder()

    def decode(*scales: float) -> list[tuple[int, ...]]:
        frame = decoder.decode(content, (1281, 801), max_side_px=330)
        assert frame.size == (1281, 801)
        return [frame.pixels(scale).shape for scale in scales]

    full, half, quarter = (801, 1281, 3), (401, 641, 3), (201, 321, 3)
    assert decode(0.1) == [half]
    assert decode(0.25, 0.5, 0.6, 0.2) == [half, half, full, full]
    assert decode(0.3) == [full]  # full size at once, because the last image needed it
    assert decode(0.3, 0.4) == [half, half]
    decoder = JpegDecoder()
    assert decoder.decode(content, (1281, 801), 300).pixels(0.2).shape == quarter
    frame = decoder.decode(content, (1281, 801), 300)
    np.testing.assert_array_equal(frame.image, compressed_to_frame(content, MANY).image)


@pytest.mark.parametrize('size', [(1281, 801), (320, 240)])
def test_more_pixels_than_there_are_need_no_other_decoding(portrait, size, monkeypatch):
    content, divisors, decode = encoded('.jpg', cv2.resize(portrait, size)), [], compressed._decode

    def counted(content, size, divisor):
        divisors.append(divisor)
        return decode(content, size, divisor)

    monkeypatch.setattr(compressed, '_decode', counted)
    frame = JpegDecoder().decode(content, size, max_side_px=640)
    for scale in (0.5, 2.4, 1.2, 2.4):  # scales of faces smaller than the network's input
        frame.pixels(scale)
    assert divisors == ([2, 1] if size[0] > 640 else [1])


def test_a_png_is_always_decoded_in_full(picture):
    frame = JpegDecoder().decode(encoded('.png', picture), (161, 120), max_side_px=40)
    assert frame.pixels(0.1).shape == (120, 161, 3)


def test_a_jpeg_of_another_size_than_its_header_is_refused(picture):
    with pytest.raises(FrameError) as error:
        JpegDecoder().decode(encoded('.jpg', picture), (500, 400), max_side_px=100)
    assert error.value.cause == 'bad_data'
