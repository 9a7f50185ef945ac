# SPDX-License-Identifier: Apache-2.0
"""CREMA-D, DiffusionFER and EmoNet-Face, on small sets in their published layouts."""

import contextlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_sets import write_image

from dan_ros.datasets import emonet_face
from dan_ros.datasets.catalog import guess_dataset, open_faces
from dan_ros.datasets.cremad import CremaD
from dan_ros.datasets.diffusionfer import DiffusionFer
from dan_ros.datasets.faces import summarize
from dan_ros.errors import DataError

SPLITS = ('train', 'valid', 'test')
HEADER = '"","A","D","F","H","N","S","fileName","numResponses"'


def write_votes(root: Path, votes: dict[str, str]) -> None:
    """Write `tabulatedVotes.csv`: rows for sound, face and both per clip; only the face counts."""
    rows = [HEADER]
    for number, (name, counts) in enumerate(votes.items(), 1):
        rows.append(f'"1{number:05d}",9,9,9,9,9,9,"{name}",54')
        rows.append(f'"2{number:05d}",{counts},"{name}",10')
        rows.append(f'"3{number:05d}",0,0,0,0,0,9,"{name}",9')
    path = root / 'processedResults' / 'tabulatedVotes.csv'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(rows) + '\n')


def write_video(path: Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    codec = cv2.VideoWriter.fourcc(*('mp4v' if path.suffix == '.mp4' else 'FLV1'))
    video = cv2.VideoWriter(str(path), codec, 30, (width, height))
    if not video.isOpened():
        pytest.skip(f'this OpenCV cannot write {path.suffix}')
    for image in images:
        video.write(image)
    video.release()


def test_cremad_images_are_labeled_by_the_votes_on_the_face(tmp_path):
    votes = {
        '1001_DFA_ANG_XX': '6,2,0,0,0,0',
        '1002_DFA_HAP_XX': '0,0,0,3,7,0',  # acted happy, seen as neutral
        '1003_IEO_SAD_HI': '0,0,3,0,0,3',  # no single first choice
        '1076_MTI_SAD_XX': '0,0,0,0,0,9',  # broken according to the authors
        '1010_DFA_FEA_XX': '0,0,5,0,0,0',
        '1015_DFA_DIS_XX': '0,5,0,0,0,0',
    }
    write_votes(tmp_path, votes)
    for name in (*votes, '1004_DFA_NEU_XX'):  # the last clip has no votes
        write_image(tmp_path / 'faces' / f'{name}.jpg')
    (tmp_path / 'faces' / '1001_DFA_ANG_XX.wav').write_bytes(b'sound')
    assert guess_dataset(tmp_path / 'faces', ('happy',)) == 'cremad'
    faces = {split: open_faces('cremad', tmp_path, split) for split in SPLITS}
    train = faces['train']
    assert train.counts == {'anger': 1, 'neutral': 1}
    np.testing.assert_allclose(train.targets[0], [0.75, 0.25, 0, 0, 0, 0])
    np.testing.assert_allclose(train.targets[1], [0, 0, 0, 0.3, 0.7, 0])
    assert train.excluded == {'no single first choice': 1, 'broken clips': 1, 'without votes': 1}
    assert f'2 labeled by the votes of {tmp_path}' in summarize('cremad', 'train', train)[0]
    assert faces['valid'].counts == {'fear': 1}
    assert faces['test'].counts == {'disgust': 1}
    assert train.read(np.array([1]), 48).shape == (1, 48, 48, 3)


def test_cremad_without_votes_uses_the_acted_emotion_and_the_middle_image(tmp_path):
    for number in range(5):
        gray = 50 * number
        write_image(tmp_path / '1001_IEO_SAD_HI' / f'{number:03d}.png', (gray, gray, gray))
    write_image(tmp_path / '1002_DFA_HAP_XX_07.png')
    faces = open_faces('cremad', tmp_path, 'train')
    assert faces.counts == {'happy': 1, 'sad': 1}
    assert faces.paths[0].name == '002.png'
    assert '2 labeled by the acted emotion' in summarize('cremad', 'train', faces)[0]
    assert (faces.read(np.array([0]), 8) == 100).all()


@pytest.mark.parametrize('suffix', ['.mp4', '.flv'])
def test_cremad_videos_are_cut_to_the_face_in_their_middle(tmp_path, portrait, suffix):
    """As in the distributed clips, the face is only in the middle."""
    scene = cv2.resize(portrait, (480, 480))
    black = np.zeros_like(scene)
    folder = tmp_path / 'VideoFlash'
    write_video(folder / f'1001_DFA_HAP_XX{suffix}', [black] * 3 + [scene] * 2 + [black] * 3)
    write_video(folder / f'1002_DFA_ANG_XX{suffix}', [black] * 5)
    (folder / f'1003_DFA_SAD_XX{suffix}').write_bytes(b'version https://git-lfs.github.com/spec/v1')
    assert guess_dataset(tmp_path, ('happy',)) == 'cremad'
    faces = open_faces('cremad', tmp_path, 'train')
    assert faces.counts == {'happy': 1}
    assert not faces.paths  # a video is not an image file, so `evaluate --detect` refuses it
    pointer = 'is a Git LFS pointer, not a video: run `git lfs pull` to get the file itself'
    assert sorted(faces.skipped.values()) == [pointer, 'shows no face']
    face = faces.read(np.array([0]), 112)[0]
    assert face.mean() > 60  # not black
    assert face[..., 0].mean() > face[..., 2].mean()  # skin, in RGB


def test_cremad_errors_name_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r'named like 1001_DFA_ANG_XX.flv; .* need Git LFS'):
        CremaD().open(tmp_path, 'train')
    write_image(tmp_path / '1001_DFA_ANG_XX.jpg')
    write_votes(tmp_path, {'1001_DFA_ANG_XX': 'a,0,0,0,0,0'})
    with pytest.raises(DataError, match='line 3: the votes are not six numbers'):
        CremaD().open(tmp_path, 'train')


def test_cremad_with_votes_on_other_clips_alone_does_not_use_the_acted_emotion(tmp_path):
    write_image(tmp_path / '1001_DFA_ANG_XX.jpg')
    write_votes(tmp_path, {})
    with pytest.raises(DataError, match='0 labeled by the votes of .*tabulatedVotes.csv'):
        CremaD().open(tmp_path, 'train')


@pytest.mark.parametrize('outer', ['', 'DiffusionFER'])
def test_diffusionfer(tmp_path, outer):
    root = tmp_path / outer / 'DiffusionEmotion_S'
    for label in ('angry', 'happy'):
        for number in range(30):
            write_image(root / 'cropped' / label / f'{label}_{number}.png')
            write_image(root / 'original' / label / f'{label}_{number}.png')
    (root / 'dataset_sheet.csv').write_text('subDirectory_filePath,expression\n')
    assert guess_dataset(tmp_path, ('happy',)) == 'diffusionfer'
    faces = [open_faces('diffusionfer', tmp_path, split) for split in SPLITS]
    paths = [path for part in faces for path in part.paths]
    assert len(paths) == len(set(paths)) == 60
    assert all('cropped' in str(path) for path in paths)
    assert 40 < len(faces[0]) < 56
    assert len(open_faces('diffusionfer', root, 'train')) == len(faces[0])
    with pytest.raises(DataError, match='no DiffusionEmotion_S/cropped .* unpack'):
        DiffusionFer().open(root / 'cropped' / 'angry', 'train')


RATINGS = {
    'anger': [{'human-1': {'Hostile|Anger': 5, 'Positive|Amusement': 0}},
              {'human-2': {'Hostile|Anger': 3, 'Positive|Amusement': 1}}],
    'happy': [{'human-4': {'Amusement': True}}, {'human-6': {'Amusement': True}},
              {'human-3': {'Distress': False}}],
    'Pride': [{'human-1': {'Positive|Pride': 6, 'Hostile|Anger': 2}}],
    'no agreement': [{'human-1': {'Hostile|Anger': 1, 'Low|Fear': 0}}],
    'no agreement again': [{'human-1': {'Fear': True}}, {'human-2': {'Fear': False}}],
}  # fmt: skip


def write_parquet(path: Path, labels: list[str], images: list[bytes]) -> None:
    pyarrow = pytest.importorskip('pyarrow', reason='reads EmoNet-Face; no other part needs it')
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{'bytes': content, 'path': 'x.png'} for content in images]
    parquet.write_table(pyarrow.table({'path': rows, 'label': labels, 'age': [30] * 5}), path)


def test_emonet_face(tmp_path):
    labels, images = [], []
    for number, label in enumerate(RATINGS):
        image = np.full((40, 40, 3), number, np.uint8)
        content = cv2.imencode('.png', image)[1].tobytes()
        labels.append(repr(RATINGS[label]))
        images.append(content)
    folder = tmp_path / 'emonet-face-hq'
    write_parquet(folder / 'data' / 'train-00000-of-00001.parquet', labels, images)
    assert guess_dataset(folder, ('happy',)) == 'emonet_face'
    counts, excluded = {}, {}
    for split in SPLITS:
        with contextlib.suppress(DataError):  # five faces do not fill three splits
            faces = open_faces('emonet_face', folder, split)
            counts |= faces.counts
            excluded |= faces.excluded
            assert faces.read(np.array([0]), 48).shape == (1, 48, 48, 3)
    assert counts == {'anger': 1, 'happy': 1}
    write_parquet(folder / 'data' / 'train-00000-of-00001.parquet', ['[1'] * 5, images)
    with pytest.raises(DataError, match='row 0: the label is not a list of ratings'):
        [open_faces('emonet_face', folder, split) for split in SPLITS]
    (folder / 'data' / 'train-00000-of-00001.parquet').write_bytes(b'no parquet')
    with pytest.raises(DataError, match='is not a Parquet file of EmoNet-Face') as error:
        open_faces('emonet_face', folder, 'train')
    assert '\n' not in str(error.value)


def test_what_emonet_face_cannot_read_is_named(tmp_path, monkeypatch):
    """The second row has no ratings, and the third one is not an image."""
    image = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    labels = [repr(RATINGS['anger']), '[]', *[repr(RATINGS['anger'])] * 3]
    path = tmp_path / 'emonet-face-hq.parquet'
    write_parquet(path, labels, [image, image, b'web page', image, image])
    monkeypatch.setattr(emonet_face, 'tenth_of', lambda content: 0)
    assert guess_dataset(path, ('happy',)) == 'emonet_face'
    faces = open_faces('emonet_face', path, 'train')
    assert faces.counts == {'anger': 3}
    assert faces.excluded == {'no agreement': 1}
    assert faces.skipped == {f'{path}, row 2': 'is not an image'}
    write_parquet(path, labels, [b''] * 5)
    with pytest.raises(DataError, match=r'none of 4 images can be read; the first is .*, row 0'):
        open_faces('emonet_face', path, 'train')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(DataError, match='needs the Python package pyarrow: `pip install pyarrow`'):
        open_faces('emonet_face', path, 'train')


def test_a_tie_of_emonet_face_is_no_agreement():
    once, twice = [{'human-1': {'Anger': True, 'Fear': True}}], [{'human-2': {'Fear': True}}]
    assert emonet_face._category(repr(once), '') == ''
    assert emonet_face._category(repr(once + twice), '') == 'Fear'


def test_emonet_face_without_its_files(tmp_path):
    with pytest.raises(DataError, match=r'has no .parquet files; give the folder of laion'):
        open_faces('emonet_face', tmp_path, 'train')
