# SPDX-License-Identifier: Apache-2.0
"""Recognize what a file contains by its first bytes, so that errors can name it.

The signatures are from https://en.wikipedia.org/wiki/List_of_file_signatures and the
specifications of the formats.
"""

import re
from dataclasses import dataclass
from pathlib import Path

START_BYTES = 1024  # number of first bytes that are enough to recognize a file

PICTURE, RECORDING, CHECKPOINT = 'picture', 'recording', 'checkpoint'
MODEL, ARCHIVE, VIDEO, TEXT, TABLE = 'model', 'archive', 'video', 'text', 'table'


@dataclass(frozen=True)
class FileContent:
    """What a file contains."""

    name: str  # with its article, such as 'a web page'
    advice: str = ''  # how to get the expected file, or ''
    group: str = ''  # one of the groups above, or '' for content that nothing in this package reads


DOWNLOAD = 'open it in a browser to see why, and download the file itself'
CONVERT_PICTURE = 'convert it to JPEG or PNG'
CONVERT_CHECKPOINT = 'convert it with `dan-ros convert`'
ADOPT = 'use it as a model; a classifier of another project needs `dan-ros adopt`'
UNPACK = 'unpack it'

# Regular expressions that match at the start of a file; the first match counts.
SIGNATURES: tuple[tuple[bytes, FileContent], ...] = (
    # Placeholder files of other programs
    (
        rb'version https?://(git-lfs|git-media|hawser)\b',
        FileContent('a Git LFS pointer', 'run `git lfs pull` to get the file itself'),
    ),
    (
        rb'(\.\./)*\.?/?(\.git/)?annex/objects/',
        FileContent('a git-annex pointer', 'run `git annex get` to get the file itself'),
    ),
    (rb'\0{16}', FileContent('a file of null bytes', 'copy or download it again')),
    (rb'\0\x05\x16[\0\x07]', FileContent('a metadata file of macOS (AppleDouble)', 'delete it')),
    (rb'\0\0\0\x01Bud1', FileContent('a folder file of macOS (.DS_Store)', 'delete it')),
    # Pages and texts
    (rb'\s*(<\?xml[^>]*>)?\s*<svg\b', FileContent('an SVG drawing', CONVERT_PICTURE)),
    (
        rb'\s*(<\?xml[^>]*>\s*)?(<!--.*?(-->\s*|$))*'
        rb'<(!doctype\s+html|html|head|body|script|title|meta)\b|\s*<!--',
        FileContent('a web page', DOWNLOAD),
    ),
    (rb'\s*<(\?xml|[a-z]+[ >])', FileContent('an XML or HTML text', DOWNLOAD, TEXT)),
    (rb'\s*\{\s*"', FileContent('a JSON text', DOWNLOAD, TEXT)),
    # Recordings
    (
        rb'#ros(bag|record) v',
        FileContent(
            'a ROS 1 bag',
            'convert it: `pip install rosbags`, then `rosbags-convert --src FILE --dst FOLDER`',
        ),
    ),
    (rb'\x89mcap0\r\n', FileContent('an MCAP recording', group=RECORDING)),
    (rb'sqlite format 3\0', FileContent('an SQLite database', group=RECORDING)),
    # Models
    (
        rb'pk\x03\x04.{26,}?/data\.pkl',
        FileContent('a PyTorch checkpoint', CONVERT_CHECKPOINT, CHECKPOINT),
    ),
    (rb'\x80[\x02-\x05].', FileContent('a Python pickle', CONVERT_CHECKPOINT, CHECKPOINT)),
    (rb'.{5}\0{3}\{"', FileContent('a safetensors file', CONVERT_CHECKPOINT, CHECKPOINT)),
    # An ONNX file begins with its IR version; then follows its producer, version or graph.
    (rb'\x08[\x03-\x20][\x12\x1a\x22\x28\x32\x3a]', FileContent('an ONNX model', ADOPT, MODEL)),
    (rb'\x89hdf\r\n\x1a\n', FileContent('an HDF5 file')),
    (rb'.{4}tfl3', FileContent('a TensorFlow Lite model')),
    (rb'.{4}ortm', FileContent("a model in ONNX Runtime's own format", group=MODEL)),
    # Tables
    (rb'pk\x03\x04.{26,}?\.npy', FileContent('a NumPy archive', group=TABLE)),
    (rb'\x93numpy', FileContent('a NumPy array', group=TABLE)),
    (rb'par1', FileContent('a Parquet table')),
    # Archives
    (rb'pk(\x03\x04|\x05\x06|\x07\x08)', FileContent('a ZIP archive', UNPACK, ARCHIVE)),
    (rb'\x1f\x8b', FileContent('a gzip archive', UNPACK, ARCHIVE)),
    (rb'bzh[1-9]', FileContent('a bzip2 archive', UNPACK, ARCHIVE)),
    (rb'\xfd7zxz\0', FileContent('an xz archive', UNPACK, ARCHIVE)),
    (rb'7z\xbc\xaf\x27\x1c', FileContent('a 7-Zip archive', UNPACK, ARCHIVE)),
    (rb'rar!\x1a\x07', FileContent('a RAR archive', UNPACK, ARCHIVE)),
    (rb'\x28\xb5\x2f\xfd', FileContent('a zstd archive', 'unpack it with `unzstd`', ARCHIVE)),
    (rb'\x04\x22\x4d\x18', FileContent('an LZ4 archive', 'unpack it with `unlz4`', ARCHIVE)),
    (rb'.{257}ustar', FileContent('a tar archive', UNPACK, ARCHIVE)),
    # Documents and programs
    (rb'%pdf-', FileContent('a PDF document', 'save its pictures as JPEG or PNG')),
    (rb'%!ps', FileContent('a PostScript document')),
    (rb'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', FileContent('a document of Microsoft Office')),
    (rb'\x7felf', FileContent('a program')),
    # Pictures and videos; files of the ISO base media format list their brands after `ftyp`
    (rb'.{4}ftyp(.{4})*?avi[fs]', FileContent('an AVIF picture', CONVERT_PICTURE)),
    (
        rb'.{4}ftyp(.{4})*?(hei[cxms]|hev[cxms]|mif1|msf1)',
        FileContent('a HEIC picture', CONVERT_PICTURE),
    ),
    (rb'.{4}ftypcrx ', FileContent('a raw photo of a camera', CONVERT_PICTURE)),
    (rb'.{4}(ftyp|moov|mdat|wide)', FileContent('a video', group=VIDEO)),
    (rb'\x1a\x45\xdf\xa3', FileContent('a video', group=VIDEO)),
    (rb'riff.{4}avi |flv\x01|\0\0\x01[\xb3\xba]|oggs', FileContent('a video', group=VIDEO)),
    (rb'\xff\x0a|\0{3}\x0cjxl \r\n\x87\n', FileContent('a JPEG XL picture', CONVERT_PICTURE)),
    (rb'8bps', FileContent('a Photoshop picture', CONVERT_PICTURE)),
    (
        rb'fujifilmccd-raw|ii\x55\0|iiro|iirs|mmor|ii\*\0.{4}cr\x02',
        FileContent('a raw photo of a camera', CONVERT_PICTURE),
    ),
    (rb'\xff\xd8\xff', FileContent('a JPEG picture', group=PICTURE)),
    (rb'\x89png\r\n\x1a\n', FileContent('a PNG picture', group=PICTURE)),
    (rb'gif8[79]a', FileContent('a GIF picture', group=PICTURE)),
    (rb'riff.{4}webp', FileContent('a WebP picture', group=PICTURE)),
    (rb'ii[*+]\0|mm\0[*+]', FileContent('a TIFF picture', group=PICTURE)),
    (rb'bm.{4}\0{4}', FileContent('a BMP picture', group=PICTURE)),
    (rb'\xff\x4f\xff\x51|\0{3}\x0cjp  \r\n\x87\n', FileContent('a JPEG 2000 picture', '', PICTURE)),
    (rb'p[1-7f][\s#]', FileContent('a PNM picture', group=PICTURE)),
)
_PATTERNS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), content) for pattern, content in SIGNATURES
)
EMPTY = FileContent('an empty file', 'copy or download it again')


def name_content(start: bytes) -> FileContent | None:
    """Name the content of a file by its first `START_BYTES`; None for unknown content.

    Example:
        >>> name_content(b'<!DOCTYPE html><html>').name
        'a web page'
    """
    start = start[:START_BYTES]
    if not start:
        return EMPTY
    text = _decode(start)
    for pattern, content in _PATTERNS:
        if pattern.match(start if text is None else text.encode()):
            return content
    if text is not None:
        first_line = text.strip().partition('\n')[0].strip()[:60]
        return FileContent(f'a text that begins with {first_line!r}', group=TEXT)
    return None


def explain_wrong_content(start: bytes, expected: str, group: str = '') -> str:
    r"""Return the end of an error message: what a file is, and not what was expected.

    `start` are the first `START_BYTES` of the file, or all of it. For contents of `group`, the
    result is ''.

    Returns:
        Text to append to the file's name; '' if the content is unknown or expected.

    Example:
        >>> explain_wrong_content(b'PK\3\4', 'a checkpoint')
        'is a ZIP archive, not a checkpoint: unpack it'
    """
    content = name_content(start)
    if content is None or (group and content.group == group):
        return ''
    advice = f': {content.advice}' if content.advice else ''
    return f'is {content.name}, not {expected}{advice}'


def explain_wrong_file(path: Path, expected: str, group: str = '') -> str:
    """Apply `explain_wrong_content` to the file at `path`; '' if it cannot be read."""
    try:
        if not path.is_file():  # reading a device may block
            return ''
        with path.open('rb') as file:
            return explain_wrong_content(file.read(START_BYTES), expected, group)
    except OSError:
        return ''


def _decode(start: bytes) -> str | None:
    """Return the start of a text file without its byte order mark, or None for other files."""
    encoding = 'utf-16' if start.startswith((b'\xff\xfe', b'\xfe\xff')) else 'utf-8-sig'
    try:
        text = start.decode(encoding)
    except UnicodeDecodeError as error:
        if error.reason != 'unexpected end of data':  # at the end, a character may be cut off
            return None
        text = start[: error.start].decode(encoding)
    is_text = all(character.isprintable() or character in '\t\n\r\f' for character in text)
    return text if is_text and text.strip() else None
