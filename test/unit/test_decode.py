# SPDX-License-Identifier: Apache-2.0
"""Picture files are decoded as viewers show them: upright, complete, in 8 bits."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dan_ros.images.decode import decode_picture

# Transform that makes the stored pixels upright, per EXIF orientation.
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
every_orientation = pytest.mark.parametrize('orientation', UPRIGHT)


@pytest.fixture(scope='module')
def picture(portrait):
    """A smooth picture, which lossy formats preserve; not square, so that rotations show."""
    return cv2.resize(portrait, (96, 64))


def save(image_bgr: np.ndarray, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    quality = {'quality': 95} if file_format in ('JPEG', 'WEBP', 'AVIF') else {}
    Image.fromarray(image_bgr[..., ::-1]).save(file, file_format, **quality, **options)
    return file.getvalue()


def exif(value: int, order: str = '<', kind: int = 3) -> bytes:
    """EXIF data with the orientation between two other tags; `kind` 3 is SHORT, 4 LONG."""
    packed = struct.pack(order + ('HH' if kind == 3 else 'I'), *[value, 0][: 2 if kind == 3 else 1])
    start = b'II*\0' if order == '<' else b'MM\0*'
    tags = [
        struct.pack(order + 'HHI', 0x0100, 4, 1) + struct.pack(order + 'I', 96),
        struct.pack(order + 'HHI', 0x0112, kind, 1) + packed,
        struct.pack(order + 'HHI', 0x0128, 3, 1) + struct.pack(order + 'HH', 2, 0),
    ]
    return (
        start
        + struct.pack(order + 'IH', 8, len(tags))
        + b''.join(tags)
        + struct.pack(order + 'I', 0)
    )


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, len(data) + 2) + data


def png_chunk(name: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(name + data)
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', crc)


def assert_shows(content: bytes, expected_bgr: np.ndarray) -> None:
    decoded = decode_picture(content)
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected_bgr.shape
    assert np.abs(decoded.astype(int) - expected_bgr).mean() < 6


def jpeg_with(picture: np.ndarray, *segments: bytes) -> bytes:
    content = save(picture, 'JPEG')
    return content[:2] + b''.join(segments) + content[2:]


# --- orientation --------------------------------------------------------------------------------


@every_orientation
@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('file_format', ['JPEG', 'PNG', 'WEBP'])
def test_exif_orientation_is_honored(picture, file_format, order, orientation):
    content = save(picture, file_format, exif=b'Exif\0\0' + exif(orientation, order))
    assert_shows(content, UPRIGHT[orientation](picture))


@every_orientation
@pytest.mark.parametrize('options', [{}, {'compression': 'tiff_lzw'}])
def test_the_orientation_of_a_tiff_is_honored(picture, orientation, options):
    content = save(picture, 'TIFF', tiffinfo={274: orientation}, **options)
    assert_shows(content, UPRIGHT[orientation](picture))


@every_orientation
def test_the_orientation_of_a_big_endian_tiff_is_honored(picture, orientation):
    pixels = np.ascontiguousarray(picture[..., ::-1])
    height, width = pixels.shape[:2]
    tags = {256: width, 257: height, 258: 8, 262: 2, 273: 0, 274: orientation, 277: 3}
    values = tags | {278: height, 279: pixels.size}
    start = 8 + 2 + 12 * len(values) + 4
    values[273] = start
    entries = b''.join(struct.pack('>HHII', tag, 4, 1, value) for tag, value in values.items())
    header = b'MM\0*' + struct.pack('>IH', 8, len(values)) + entries + bytes(4)
    assert_shows(header + pixels.tobytes(), UPRIGHT[orientation](picture))


@every_orientation
def test_the_orientation_of_a_gray_sixteen_bit_png_is_honored(picture, orientation):
    gray = picture[..., 1].astype(np.uint16) * 257
    file = io.BytesIO()
    Image.fromarray(gray).save(file, 'PNG', exif=b'Exif\0\0' + exif(orientation))
    assert_shows(file.getvalue(), UPRIGHT[orientation](np.dstack([picture[..., 1]] * 3)))


@every_orientation
def test_the_rotation_of_an_avif_is_honored(picture, orientation):
    pytest.importorskip('PIL._avif')
    content = save(picture, 'AVIF', exif=exif(orientation))
    assert_shows(content, UPRIGHT[orientation](picture))


def test_exif_between_other_metadata_is_found(picture):
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"/>')
    profile = segment(0xE2, b'ICC_PROFILE\0\1\1' + bytes(3000))
    comment = segment(0xFE, b'Exif\0\0 in a comment')
    data = segment(0xE1, b'Exif\0\0' + exif(6, '>'))
    assert_shows(jpeg_with(picture, xmp, profile, data, comment), UPRIGHT[6](picture))


def test_exif_behind_the_pixels_of_a_png_is_found(picture):
    content = save(picture, 'PNG')
    end = content.rindex(b'IEND') - 4
    content = content[:end] + png_chunk(b'eXIf', exif(8)) + content[end:]
    assert_shows(content, UPRIGHT[8](picture))


def test_exif_in_a_text_of_a_png_is_found(picture):
    """ImageMagick stored EXIF data in this way before PNG had a chunk for it."""
    data = b'Exif\0\0' + exif(3)
    text = PngImagePlugin.PngInfo()
    text.add_text('Raw profile type exif', f'\nexif\n{len(data):8}\n{data.hex()}\n', zip=True)
    assert_shows(save(picture, 'PNG', pnginfo=text), UPRIGHT[3](picture))


def test_an_orientation_stored_as_a_long_number_is_honored(picture):
    assert_shows(
        jpeg_with(picture, segment(0xE1, b'Exif\0\0' + exif(6, kind=4))), UPRIGHT[6](picture)
    )


@pytest.mark.parametrize(
    'data',
    [
        exif(0),
        exif(9),
        exif(6)[:15],
        b'II*\0' + struct.pack('<I', 9999),
        b'II not TIFF',
        b'',
        b'MM\0*\0\0\0\x08' + b'\xff' * 40,
    ],
)
@pytest.mark.parametrize('file_format', ['JPEG', 'PNG', 'WEBP'])
def test_invalid_exif_data_is_ignored(picture, file_format, data):
    if file_format == 'JPEG':
        content = jpeg_with(picture, segment(0xE1, b'Exif\0\0' + data))
    elif file_format == 'PNG':
        content = save(picture, 'PNG')
        content = content[:33] + png_chunk(b'eXIf', data) + content[33:]
    else:
        content = save(picture, 'WEBP', exif=b'Exif\0\0' + data)
    assert_shows(content, picture)


# --- the end ------------------------------------------------------------------------------------


def thumbnail(picture: np.ndarray) -> bytes:
    """EXIF data that contains a complete JPEG, as written by cameras."""
    return segment(0xE1, b'Exif\0\0' + exif(1) + save(cv2.resize(picture, (24, 16)), 'JPEG'))


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize(
    'trailer',
    [
        bytes(5000),
        bytes(600_000),
        b'\xff' * 5000,
        b'\0\0\0\x18ftypmp42' + bytes(range(256)) * 40 + b'\xff\xd8\xff\xda' * 50,
        b'\xff\xd8\xff\xe0 the start of another picture',
    ],
)
def test_bytes_behind_the_end_of_a_jpeg_are_ignored(picture, trailer, progressive):
    content = save(picture, 'JPEG', progressive=progressive)
    assert_shows(content + trailer, picture)


def test_bytes_behind_the_end_of_a_png_are_ignored(picture):
    assert_shows(save(picture, 'PNG') + bytes(20_000), picture)
    assert_shows(save(picture, 'PNG') + save(picture[::-1], 'PNG'), picture)


def test_the_first_of_several_jpegs_is_taken(picture):
    first, second = (save(image, 'JPEG') for image in (picture, picture[:32]))
    assert_shows(first + second, picture)


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'restart_marker_rows': 1}])
def test_a_truncated_jpeg_is_refused_whatever_follows(picture, options):
    whole = save(picture, 'JPEG', **options)
    content = whole[:2] + thumbnail(picture) + whole[2:]
    assert_shows(content, picture)
    for length in (len(content) // 2, len(content) - 30, len(content) - 1):
        for trailer in (b'', bytes(5000), content):
            assert decode_picture(content[:length] + trailer) is None


@pytest.mark.parametrize('file_format', ['PNG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'PPM', 'JPEG2000'])
def test_other_truncated_formats_are_refused(picture, file_format):
    content = save(picture, file_format)
    whole = decode_picture(content)
    if whole is None and file_format == 'GIF':
        pytest.skip('OpenCV reads GIF since 4.11')
    assert whole.shape == picture.shape
    for share in (0.3, 0.6, 0.9):
        assert decode_picture(content[: int(share * len(content))]) is None


# --- depth and color ----------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.png', '.tiff', '.pgm'])
@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_every_depth_in_sixteen_bits_is_shown(picture, suffix, bits):
    gray = picture[..., 1]
    deep = gray.astype(np.uint16) << (bits - 8)
    assert deep.max() >= 1 << (bits - 1)
    content = cv2.imencode(suffix, deep)[1].tobytes()
    assert_shows(content, np.dstack([gray] * 3))


def test_ten_bits_of_color_in_sixteen_are_shown(picture):
    content = cv2.imencode('.png', picture.astype(np.uint16) << 2)[1].tobytes()
    assert_shows(content, picture)


def test_a_dark_picture_of_eight_bits_stays_dark(picture):
    dark = picture // 8
    np.testing.assert_array_equal(decode_picture(save(dark, 'PNG')), dark)


def test_cmyk_is_shown_with_and_without_the_marker_of_adobe(picture):
    cmyk = Image.fromarray(picture[..., ::-1]).convert('CMYK')
    marked, unmarked = io.BytesIO(), io.BytesIO()
    cmyk.save(marked, 'JPEG', quality=95)
    assert_shows(marked.getvalue(), picture)
    Image.fromarray(255 - np.asarray(cmyk), 'CMYK').save(unmarked, 'JPEG', quality=95)
    content = unmarked.getvalue()
    marker = content.index(b'\xff\xee')
    length = int.from_bytes(content[marker + 2 : marker + 4], 'big')
    content = content[:marker] + content[marker + 2 + length :]
    assert_shows(content, picture)
    assert decode_picture(content[: len(content) // 2]) is None
