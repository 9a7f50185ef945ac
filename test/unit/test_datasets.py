# SPDX-License-Identifier: Apache-2.0
"""Readers of the data sets, on small sets."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_sets import VOTES, write_fer_csv, write_fer_votes, write_ferplus, write_image

pytest.importorskip('torch')  # the data sets need the extra `train`, which installs torch

from dan_ros import labels
from dan_ros.datasets.catalog import DATASETS, guess_dataset, open_faces
from dan_ros.datasets.csv_files import read_csv, read_header
from dan_ros.datasets.faces import MAX_LISTED_SKIPS, Faces, summarize, summarize_skipped
from dan_ros.datasets.ferplus import FerPlus
from dan_ros.errors import DataError
from dan_ros.images.files import open_picture


def test_ferplus_for_training_keeps_votes_as_soft_targets(tmp_path):
    write_ferplus(tmp_path)
    faces = open_faces('ferplus', tmp_path, 'train')
    assert faces.labels == labels.FERPLUS
    assert faces.classes.tolist() == [0, 2, 0, 1]
    np.testing.assert_allclose(faces.targets.sum(axis=1), 1)
    np.testing.assert_allclose(faces.targets[0], np.eye(8)[0])
    np.testing.assert_allclose(faces.targets[1], [0, 0, 5 / 9, 0, 0, 0, 4 / 9, 0], rtol=1e-6)
    assert faces.targets.dtype == np.float32
    assert faces.native_size == 48


def test_ferplus_for_validation_needs_an_absolute_majority(tmp_path):
    write_ferplus(tmp_path, 'valid', names=np.array(list('abcdefg')))
    faces = open_faces('ferplus', tmp_path, 'valid')
    assert faces.classes.tolist() == [0, 2, 1]  # 5 of 9 valid votes, 6 of 10


def test_ferplus_file_may_be_given_itself(tmp_path):
    path = write_ferplus(tmp_path, 'test')
    assert len(open_faces('ferplus', path, 'valid')) == 3


def test_ferplus_faces_come_as_asked(tmp_path):
    write_ferplus(tmp_path)
    faces = open_faces('ferplus', tmp_path, 'train')
    same = faces.read(np.array([3, 0]), 48)
    assert (same.shape, same.dtype) == ((2, 48, 48, 1), np.uint8)
    with np.load(tmp_path / 'ferplus_train.npz') as content:
        np.testing.assert_array_equal(same[0, :, :, 0], content['images'][6])
    assert faces.read(np.array([1]), 96).shape == (1, 96, 96, 1)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'votes': None}, 'votes'),
        ({'images': np.zeros((7, 48, 48), np.float32)}, 'float32'),
        ({'images': np.zeros((7, 48, 40), np.uint8)}, 'not uint8'),
        ({'votes': VOTES[:5]}, 'votes are'),
        ({'votes': np.ones_like(VOTES)}, 'usable vote'),
    ],
)
def test_invalid_ferplus_files_are_refused_in_one_line(tmp_path, changes, message):
    path = write_ferplus(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as error:
        open_faces('ferplus', tmp_path, 'train')
    assert path.name in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 and no more', b'text'])
def test_damaged_npz_is_one_clear_line(tmp_path, content):
    (tmp_path / 'ferplus_train.npz').write_bytes(content)
    with pytest.raises(DataError, match=r'ferplus_train\.npz cannot be read') as error:
        open_faces('ferplus', tmp_path, 'train')
    assert '\n' not in str(error.value)


def write_npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            archive.writestr(f'{name}.npy', content)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_the_error_names_a_missing_or_damaged_array(tmp_path):
    path = tmp_path / 'ferplus_train.npz'
    images, votes = npy(np.zeros((7, 48, 48), np.uint8)), npy(VOTES)
    cases = [
        ({'x': votes}, "the array 'images' is missing; FER"),
        ({'images': images}, "the array 'votes' is missing; FER"),
        ({'images': images[:-9], 'votes': votes}, "the array 'images' is damaged (EOF"),
        ({'images': images, 'votes': votes[:20]}, "the array 'votes' is damaged (EOF"),
        ({'images': images, 'votes': b'text'}, "the array 'votes' is damaged (not an array)"),
    ]
    for members, words in cases:
        write_npz(path, **members)
        with pytest.raises(DataError) as error:
            open_faces('ferplus', tmp_path, 'train')
        assert str(error.value).startswith(f'{path}')
        assert words in str(error.value)
    write_npz(path, images=images, votes=votes)
    content = path.read_bytes()
    path.write_bytes(content.replace(images[-2000:], images[-2000:-1] + b'\1'))  # a flipped bit
    with pytest.raises(DataError, match=r"the array 'images' is damaged \(Bad CRC"):
        open_faces('ferplus', tmp_path, 'train')


def write_rafdb(root: Path) -> None:
    lines = ['train_00001.jpg 4', 'train_00002.jpg 7', 'test_0001.jpg 1', '']
    (root / 'EmoLabel').mkdir(parents=True)
    (root / 'EmoLabel' / 'list_patition_label.txt').write_text('\n'.join(lines))
    for line in lines[:3]:
        name = line.partition('.')[0]
        write_image(root / 'Image' / 'aligned' / f'{name}_aligned.jpg')


@pytest.mark.parametrize('inner', ['', 'basic'])
def test_rafdb(tmp_path, inner):
    write_rafdb(tmp_path / inner)
    train = open_faces('rafdb', tmp_path, 'train')
    assert [train.labels[index] for index in train.classes] == ['happy', 'neutral']
    assert open_faces('rafdb', tmp_path, 'valid').classes.tolist() == [0]
    face = train.read(np.array([1]), 64)
    assert (face.shape, face.dtype) == ((1, 64, 64, 3), np.uint8)
    np.testing.assert_allclose(face.mean(axis=(0, 1, 2)), [200, 60, 10], atol=4)  # RGB
    assert train.native_size is None


def test_rafdb_with_an_unknown_class(tmp_path):
    write_rafdb(tmp_path)
    path = tmp_path / 'EmoLabel' / 'list_patition_label.txt'
    path.write_text('train_00001.jpg 4\ntrain_00002.jpg 9\n')
    with pytest.raises(DataError, match=r'line 2'):
        open_faces('rafdb', tmp_path, 'train')


def test_unreadable_images_are_left_out_and_listed(tmp_path):
    write_rafdb(tmp_path)
    folder = tmp_path / 'Image' / 'aligned'
    whole = (folder / 'train_00001_aligned.jpg').read_bytes()
    (folder / 'train_00002_aligned.jpg').write_bytes(whole[: len(whole) // 2])
    faces = open_faces('rafdb', tmp_path, 'train')
    assert faces.classes.tolist() == [3]
    assert [Path(name).name for name in faces.skipped] == ['train_00002_aligned.jpg']
    assert len(faces) == len(faces.targets) == 1


@pytest.mark.parametrize('content', [b'', b'no picture', b'\xff\xd8\xff\xe0', b'\x89PNG\r\n\x1a\n'])
def test_a_damaged_image_is_an_error(tmp_path, content):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'a\.jpg'):
        open_picture(path)


def test_nothing_readable_is_an_error(tmp_path):
    write_rafdb(tmp_path)
    for path in (tmp_path / 'Image' / 'aligned').iterdir():
        path.write_bytes(b'')
    with pytest.raises(DataError, match='none of 2 images'):
        open_faces('rafdb', tmp_path, 'train')


def test_affectnet_folders(tmp_path):
    for name in ('0', '3', '7'):
        write_image(tmp_path / 'train' / name / 'a.jpg')
    write_image(tmp_path / 'val' / '6' / 'b.png')
    (tmp_path / 'train' / '0' / 'notes.txt').write_text('no picture')
    eight = open_faces('affectnet8', tmp_path, 'train')
    assert [eight.labels[index] for index in eight.classes] == ['neutral', 'surprise', 'contempt']
    seven = open_faces('affectnet7', tmp_path, 'train')
    assert seven.labels == labels.AFFECTNET7
    assert seven.classes.tolist() == [0, 3]
    assert open_faces('affectnet7', tmp_path, 'valid').classes.tolist() == [6]


def test_affectnet_of_the_first_release_cuts_the_face_out(tmp_path):
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[20:60, 30:70] = (0, 0, 255)
    (tmp_path / 'Manually_Annotated_Images' / '12').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'Manually_Annotated_Images' / '12' / 'a.png'), picture)
    header = 'subDirectory_filePath,face_x,face_y,face_width,face_height,expression,valence'
    rows = ['12/a.png,30,20,40,40,5,-0.5', '12/a.png,30,20,40,40,10,-2']
    rows += ['12/a.png,NULL,NULL,NULL,NULL,7,-0.2']  # as in the original
    (tmp_path / 'training.csv').write_text('\n'.join([header, *rows]))
    faces = open_faces('affectnet8', tmp_path, 'train')
    assert faces.classes.tolist() == [5, 7]
    np.testing.assert_array_equal(faces.read(np.array([0]), 32)[0, 16, 16], [255, 0, 0])
    assert (faces.read(np.array([0]), 32) == [255, 0, 0]).all()
    assert not faces.read(np.array([1]), 32)[0, 0].any()  # the whole image


def test_affectnet_csv_with_phases(tmp_path):
    write_image(tmp_path / 'x' / 'a.jpg')
    rows = ['img_path,label,phase', 'x/a.jpg,1,train', 'x/a.jpg,2,val', 'x/gone.jpg,2,val']
    rows.append(f'{"x" * 300}.jpg,2,val')  # a name too long for the file system
    write_image(tmp_path / 'train_set' / 'images' / '1.jpg')  # as in DAN's repository
    rows += ['./datasets/AffectNet/train_set/images/1.jpg,3,train', '/old/x/images/1.jpg,4,val']
    (tmp_path / 'affectnet.csv').write_text('\n'.join(rows))
    assert open_faces('affectnet8', tmp_path, 'train').classes.tolist() == [1, 3]
    valid = open_faces('affectnet8', tmp_path / 'affectnet.csv', 'valid')
    assert valid.classes.tolist() == [2]
    assert len(valid.skipped) == 3


@pytest.mark.parametrize(
    'text', ['', 'a,b\n1,2\n', 'path,label\nx.jpg,happy\n', 'path,label\nx.jpg\n']
)
def test_an_invalid_affectnet_csv_is_refused(tmp_path, text):
    (tmp_path / 'affectnet.csv').write_text(text)
    with pytest.raises(DataError, match=r'affectnet\.csv'):
        open_faces('affectnet8', tmp_path, 'train')


def test_affectnet_of_2021(tmp_path):
    for number, label in enumerate((4, 7, 8)):
        write_image(tmp_path / 'train_set' / 'images' / f'{number}.jpg')
        (tmp_path / 'train_set' / 'annotations').mkdir(exist_ok=True)
        np.save(tmp_path / 'train_set' / 'annotations' / f'{number}_exp.npy', str(label))
    assert open_faces('affectnet8', tmp_path, 'train').classes.tolist() == [4, 7]


def test_sfew(tmp_path):
    for name in ('Angry', 'Disgust', 'Fear', 'Happy', 'Neutral', 'Sad', 'Surprise'):
        write_image(tmp_path / 'Train' / name / 'a.png')
    write_image(tmp_path / 'Val' / 'Happy' / 'b.png')
    faces = open_faces('sfew', tmp_path, 'train')
    found = [faces.labels[index] for index in faces.classes]
    assert found == ['anger', 'disgust', 'fear', 'happy', 'neutral', 'sad', 'surprise']
    assert len(open_faces('sfew', tmp_path, 'valid')) == 1


@pytest.mark.parametrize('dataset', ['rafdb', 'affectnet7', 'affectnet8', 'sfew', 'ferplus'])
def test_wrong_folder_is_one_clear_line(tmp_path, dataset):
    for root in (tmp_path, tmp_path / 'gone'):
        with pytest.raises(DataError) as error:
            open_faces(dataset, root, 'train')
        assert str(root) in str(error.value)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['bored', 'joy', '8', '04'])
@pytest.mark.parametrize('dataset', ['sfew', 'rafdb', 'fer2013', 'folder', 'affectnet8'])
def test_a_folder_that_is_not_a_class_is_refused(tmp_path, dataset, name):
    write_image(tmp_path / 'train' / 'happy' / 'a.jpg')
    write_image(tmp_path / 'train' / name / 'a.jpg')
    with pytest.raises(DataError, match=f'{name} is not a class; valid folder names are'):
        open_faces(dataset, tmp_path, 'train')


def test_unknown_data_set(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'ck'"):
        open_faces('ck', tmp_path, 'train')


def test_own_images_need_no_split_outside_training(tmp_path):
    write_image(tmp_path / 'Happiness' / 'a.png')
    write_image(tmp_path / 'contempt' / 'b.png')
    faces = open_faces('folder', tmp_path, 'valid')
    assert faces.labels == labels.CANONICAL
    assert sorted(faces.classes) == [1, 7]
    assert [path.name for path in faces.paths] == ['a.png', 'b.png']
    with pytest.raises(DataError, match='no folder train'):
        open_faces('folder', tmp_path, 'train')


def test_own_images_in_splits(tmp_path):
    write_image(tmp_path / 'train' / 'sad' / 'a.png')
    write_image(tmp_path / 'val' / 'anger' / 'b.png')
    for split, index in (('train', 2), ('valid', 6)):
        assert open_faces('folder', tmp_path, split).classes.tolist() == [index]


def test_grayscale_faces_are_read_as_rgb(tmp_path):
    write_ferplus(tmp_path)
    faces = open_faces('ferplus', tmp_path, 'train')
    batch = faces.read_rgb(np.array([0, 2]), 64)
    assert batch.shape == (2, 64, 64, 3)
    assert batch.flags.c_contiguous
    assert (batch[..., 0] == batch[..., 2]).all()


def test_validation_prefers_the_validation_folder_to_the_test_folder(tmp_path):
    for name in ('Test', 'Train_Aligned_Faces', 'Val_Aligned_Faces_new'):
        write_image(tmp_path / name / 'Happy' / 'a.png')
    for split, folder in (('train', 'Train_Aligned_Faces'), ('valid', 'Val_Aligned_Faces_new')):
        (path,) = open_faces('sfew', tmp_path, split).paths
        assert path.parent.parent.name == folder
    shutil.rmtree(tmp_path / 'Val_Aligned_Faces_new')
    (path,) = open_faces('sfew', tmp_path, 'valid').paths
    assert path.parent.parent.name == 'Test'


def test_numbers_are_not_classes_of_your_own_images(tmp_path):
    write_image(tmp_path / 'val' / '3' / 'a.png')
    with pytest.raises(
        DataError, match=r'/3 is not a class; .* rename it .* evaluate --dataset rafdb'
    ):
        open_faces('folder', tmp_path, 'valid')


def test_hidden_folders_are_ignored_and_other_digits_refused(tmp_path):
    write_image(tmp_path / 'happy' / 'a.png')
    write_image(tmp_path / '.ipynb_checkpoints' / 'b.png')
    assert len(open_faces('folder', tmp_path, 'valid')) == 1
    write_image(tmp_path / '\N{SUPERSCRIPT TWO}' / 'c.png')
    with pytest.raises(DataError, match='is not a class'):
        open_faces('folder', tmp_path, 'valid')


def test_one_list_for_both_splits_needs_a_phase(tmp_path):
    (tmp_path / 'affectnet.csv').write_text('path,label\na.png,1\n')
    with pytest.raises(DataError, match='no column phase'):
        open_faces('affectnet8', tmp_path, 'train')


@pytest.mark.parametrize('row', ['a.png', ',', 'a.png,1,inf,0,5,5', 'a.png,x'])
def test_invalid_rows_are_named(tmp_path, row):
    header = 'subDirectory_filePath,expression,face_x,face_y,face_width,face_height'
    (tmp_path / 'validation.csv').write_text(f'{header}\n{row}\n')
    with pytest.raises(DataError, match=r'validation\.csv, line 2'):
        open_faces('affectnet8', tmp_path, 'valid')


def test_an_empty_annotation_is_named(tmp_path):
    (tmp_path / 'val_set' / 'annotations').mkdir(parents=True)
    (tmp_path / 'val_set' / 'annotations' / '1_exp.npy').touch()
    with pytest.raises(DataError, match=r'1_exp\.npy'):
        open_faces('affectnet8', tmp_path, 'valid')


def test_tiny_images_are_readable(tmp_path):
    path = tmp_path / 'happy' / 'a.png'
    path.parent.mkdir()
    cv2.imwrite(str(path), np.zeros((5, 5, 3), np.uint8))
    assert open_faces('folder', tmp_path, 'valid').skipped == {}


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('ferplus_valid.npz', 'ferplus'),
        ('EmoLabel/list_patition_label.txt', 'rafdb'),
        ('basic/EmoLabel/list_patition_label.txt', 'rafdb'),
        ('val_set/annotations/1_exp.npy', 'affectnet7'),
        ('Happiness/a.jpg', 'folder'),
        ('val/sad/a.jpg', 'folder'),
        ('outer/val/sad/a.jpg', 'folder'),
        ('affectnet.csv', 'affectnet7'),
        ('fer2013.csv', 'fer2013'),
        ('icml_face_data.csv', 'fer2013'),
        ('fer2013new.csv', 'ferplus'),
        ('fer2013/fer2013.csv', 'fer2013'),
        ('FER2013Test/label.csv', 'ferplus'),
        ('data/FER2013Train/label.csv', 'ferplus'),
    ],
)
def test_data_sets_are_guessed_from_their_files(tmp_path, path, expected):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    assert guess_dataset(tmp_path, labels.AFFECTNET7) == expected


def test_an_unknown_data_set_is_not_guessed(tmp_path):
    with pytest.raises(DataError, match='--dataset'):
        guess_dataset(tmp_path, labels.AFFECTNET8)
    with pytest.raises(DataError, match='there is no data at'):
        guess_dataset(tmp_path / 'missing', labels.AFFECTNET8)


def test_affectnet_has_contempt_if_the_model_has_it(tmp_path):
    (tmp_path / 'validation.csv').write_text('subDirectory_filePath,expression\n')
    assert guess_dataset(tmp_path, labels.AFFECTNET8) == 'affectnet8'
    assert guess_dataset(tmp_path / 'validation.csv', labels.RAFDB) == 'affectnet7'


@pytest.mark.parametrize('name', ['validation.csv', 'train.csv', 'train_labels.csv'])
def test_a_list_that_any_data_set_may_have_proves_nothing(tmp_path, name):
    (tmp_path / name).write_text('image,label\na.jpg,4\n')
    for root in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match='--dataset'):
            guess_dataset(root, labels.AFFECTNET7)


@pytest.mark.parametrize('layout', ['{}', 'val/{}', 'outer/train/{}'])
@pytest.mark.parametrize(
    ('numbers', 'candidates'),
    [
        ('1234567', ['rafdb (4 is happy)', 'affectnet7', 'affectnet8 (4 is fear)']),
        ('0123456', ['affectnet7 (3 is surprise)', 'affectnet8', 'fer2013 (3 is happy)']),
        ('01234567', ['affectnet7', 'affectnet8']),
        ('4', ['rafdb', 'affectnet7', 'affectnet8', 'fer2013']),
        ('0123456789', []),
    ],
)
def test_numbered_folders_are_never_guessed(tmp_path, layout, numbers, candidates):
    for number in numbers:
        write_image(tmp_path / layout.format(number) / 'a.png')
    with pytest.raises(DataError) as error:
        guess_dataset(tmp_path, labels.AFFECTNET8)
    assert str(error.value).count('--dataset') == len(candidates)
    for candidate in candidates:
        assert f'--dataset {candidate}' in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('files', 'names'),
    [
        (('ferplus_valid.npz', 'EmoLabel/list_patition_label.txt'), ['ferplus', 'rafdb']),
        (('EmoLabel/list_patition_label.txt', 'val/sad/a.png'), ['rafdb', 'folder']),
        (('fer2013.csv', 'train/angry/a.png'), ['fer2013', 'folder']),
        (('val_set/annotations/1_exp.npy', 'fer2013new.csv'), ['ferplus', 'affectnet7']),
    ],
)
def test_a_folder_that_can_be_two_data_sets_is_refused(tmp_path, files, names):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=' or '.join(f'--dataset {name}' for name in names)):
        guess_dataset(tmp_path, labels.AFFECTNET7)


@pytest.mark.parametrize('name', DATASETS)
def test_every_data_set_has_canonical_labels(name):
    assert set(DATASETS[name].labels) <= set(labels.CANONICAL)


def test_a_long_list_of_unreadable_images_is_cut():
    assert summarize_skipped({}, 'list.txt') == []
    skipped = {f'{number}.png': 'is damaged' for number in range(MAX_LISTED_SKIPS + 2)}
    lines = summarize_skipped(skipped, 'list.txt')
    assert lines[0] == '22 images left out as unusable:'
    assert lines[1] == '  0.png: is damaged'
    assert lines[-1] == '  and 2 more, see list.txt'
    assert summarize_skipped(skipped)[-1] == '  and 2 more'
    assert len(lines) == MAX_LISTED_SKIPS + 2


# FER+ and FER-2013 as distributed

USAGES = ('Training', 'PublicTest', 'PrivateTest')
SPLITS = ('train', 'valid', 'test')
FER_FOLDERS = ('FER2013Train', 'FER2013Valid', 'FER2013Test')


@pytest.fixture
def fer_faces() -> np.ndarray:
    """Faces of noise for the three usages, uint8 [21, 48, 48]."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3 * len(VOTES), 48, 48), dtype=np.uint8)


def write_fer(folder: Path, faces: np.ndarray, **options: str) -> None:
    """Write both CSV files, with the rows of the usages interleaved."""
    usages = [USAGES[index % 3] for index in range(len(faces))]
    write_fer_csv(folder, faces, usages, [index % 7 for index in range(len(faces))], **options)
    write_fer_votes(folder, np.repeat(VOTES, 3, axis=0), usages)


def write_fer_folders(folder: Path, faces: np.ndarray, box: str = '', head: str = '') -> None:
    """Write what `generate_training_data.py` makes; some versions add a box to each row."""
    for index, name in enumerate(FER_FOLDERS):
        (folder / name).mkdir(parents=True)
        rows = []
        for number, (face, votes) in enumerate(zip(faces[index::3], VOTES, strict=True)):
            cv2.imwrite(str(folder / name / f'fer{number:07d}.png'), face)
            rows.append(f'fer{number:07d}.png,{box}{",".join(map(str, votes))}\n')
        (folder / name / 'label.csv').write_text(head + ''.join(rows))


def assert_same(one: Faces, two: Faces) -> None:
    assert (one.labels, one.native_size) == (two.labels, two.native_size)
    np.testing.assert_array_equal(one.targets, two.targets)
    np.testing.assert_array_equal(one.classes, two.classes)
    everything = np.arange(len(one))
    np.testing.assert_array_equal(one.read(everything, 48), two.read(everything, 48))


CSV_FORMS = [
    {},
    {'name': 'icml_face_data.csv', 'header': 'emotion, Usage, pixels'},
    {'header': '"emotion","pixels","Usage"', 'quote': '"', 'start': '\ufeff'},
    {'header': 'Usage,emotion,pixels', 'quote': ' '},
]


@pytest.mark.parametrize('form', CSV_FORMS)
def test_all_forms_of_ferplus_have_the_same_faces(tmp_path, fer_faces, form):
    write_fer(tmp_path / 'csv', fer_faces, **form)
    write_fer_folders(tmp_path / 'png', fer_faces)
    for index, split in enumerate(SPLITS):
        write_ferplus(tmp_path, split, images=fer_faces[index::3])
        expected = open_faces('ferplus', tmp_path, split)
        assert len(expected) == (4 if split == 'train' else 3)
        table = open_faces('ferplus', tmp_path / 'csv', split)
        folders = open_faces('ferplus', tmp_path / 'png', split)
        assert_same(table, expected)
        assert_same(folders, expected)
        assert USAGES[index] in table.layout
        assert FER_FOLDERS[index] in folders.layout
        assert [path.parent.name for path in folders.paths] == [FER_FOLDERS[index]] * len(expected)
        assert sum(table.excluded.values()) == sum(expected.excluded.values())


@pytest.mark.parametrize('name', ['fer2013.csv', 'fer2013new.csv'])
def test_either_csv_of_ferplus_may_be_given_itself(tmp_path, fer_faces, name):
    write_fer(tmp_path, fer_faces)
    assert guess_dataset(tmp_path / name, labels.FERPLUS) == 'ferplus'
    assert_same(
        open_faces('ferplus', tmp_path / name, 'valid'), open_faces('ferplus', tmp_path, 'valid')
    )


@pytest.mark.parametrize(
    ('box', 'head'), [('"(0, 0, 48, 48)",', ''), ('', 'name,neutral,happiness,NF\n')]
)
def test_label_files_of_ferplus_with_a_box_or_header(tmp_path, fer_faces, box, head):
    write_fer(tmp_path / 'csv', fer_faces)
    write_fer_folders(tmp_path / 'outer', fer_faces, box, head)
    expected = open_faces('ferplus', tmp_path / 'csv', 'test')
    assert_same(open_faces('ferplus', tmp_path / 'outer', 'test'), expected)
    assert_same(open_faces('ferplus', tmp_path / 'outer' / 'FER2013Test', 'test'), expected)


def test_folders_of_ferplus_may_come_with_the_votes_of_the_csv(tmp_path, fer_faces):
    write_fer(tmp_path / 'csv', fer_faces)
    write_fer_votes(tmp_path, np.repeat(VOTES, 3, axis=0), [USAGES[i % 3] for i in range(21)])
    folder = tmp_path / 'images' / 'FER2013Valid'
    folder.mkdir(parents=True)
    for number in range(1, 21, 3):
        cv2.imwrite(str(folder / f'fer{number:07d}.png'), fer_faces[number])
    expected = open_faces('ferplus', tmp_path / 'csv', 'valid')
    assert_same(open_faces('ferplus', tmp_path, 'valid'), expected)


def test_excluded_faces_of_ferplus_are_counted(tmp_path, fer_faces):
    write_fer(tmp_path, fer_faces)
    assert open_faces('ferplus', tmp_path, 'train').excluded == {
        'only single votes': 1,
        'unknown or not a face': 1,
        'without a name': 1,
    }
    valid = open_faces('ferplus', tmp_path, 'valid')
    assert valid.excluded['no absolute majority'] == 1
    lines = summarize('ferplus', 'valid', valid)
    assert lines[0].startswith('data set ferplus, split valid: ')
    assert lines[1].startswith('3 faces: neutral 1, happy 1, surprise 1, sad 0, ')
    assert lines[2].endswith('no absolute majority 1, without a name 1')


def test_missing_and_damaged_images_of_ferplus_are_listed(tmp_path, fer_faces):
    write_fer_folders(tmp_path, fer_faces)
    folder = tmp_path / 'FER2013Valid'
    (folder / 'fer0000000.png').unlink()
    (folder / 'fer0000001.png').write_bytes(b'broken')
    faces = open_faces('ferplus', tmp_path, 'valid')
    assert faces.classes.tolist() == [1]
    assert [Path(path).name for path in faces.skipped] == ['fer0000000.png', 'fer0000001.png']
    assert all(faces.skipped.values())


def break_line(path: Path, number: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text(''.join(lines))


@pytest.mark.parametrize(
    ('file', 'line', 'old', 'new', 'words'),
    [
        ('fer2013.csv', 3, ' ', ' x ', r'fer2013\.csv, line 3: pixels are not 48 x 48'),
        ('fer2013.csv', 3, ' ', ' 300 ', r'fer2013\.csv, line 3: pixels are not 48 x 48'),
        ('fer2013.csv', 3, ' ', ' -1 ', r'fer2013\.csv, line 3: pixels are not 48 x 48'),
        ('fer2013.csv', 5, 'Training', 'PublicTest', 'do not fit together: they differ in line 5'),
        ('fer2013.csv', 1, 'pixels', 'face', 'must name the columns pixels, usage; it has emotion'),
        ('fer2013new.csv', 1, 'NF', 'x', 'must name the columns usage, image name'),
        ('fer2013new.csv', 6, ',0,', ',-3,', r'fer2013new\.csv, line 6: expected ten vote counts'),
        ('fer2013new.csv', 6, ',0,', ',,', r'fer2013new\.csv, line 6: expected ten vote counts'),
        ('fer2013new.csv', 22, 'PrivateTest', 'PrivateTest,', r'new\.csv, line 22: expected ten'),
    ],
)
def test_invalid_rows_of_ferplus_are_named(tmp_path, fer_faces, file, line, old, new, words):
    write_fer(tmp_path, fer_faces)
    break_line(tmp_path / file, line, old, new)
    with pytest.raises(DataError, match=words) as error:
        open_faces('ferplus', tmp_path, 'valid')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('file', ['fer2013.csv', 'fer2013new.csv'])
def test_both_files_of_ferplus_must_be_complete(tmp_path, fer_faces, file):
    write_fer(tmp_path, fer_faces)
    lines = (tmp_path / file).read_text().splitlines(keepends=True)
    (tmp_path / file).write_text(''.join(lines[:-1]))
    with pytest.raises(DataError, match='differ in line 22; both must be complete'):
        open_faces('ferplus', tmp_path, 'valid')
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match=r'nor fer2013\.csv with fer2013new\.csv'):
        open_faces('ferplus', tmp_path, 'valid')


@pytest.mark.parametrize('form', CSV_FORMS)
def test_fer2013_has_its_own_labels(tmp_path, fer_faces, form):
    usages = [USAGES[index % 3] for index in range(21)]
    path = write_fer_csv(tmp_path, fer_faces, usages, [i % 7 for i in range(21)], **form)
    names = ('anger', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
    for root in (tmp_path, path):
        assert guess_dataset(root, labels.FERPLUS) == 'fer2013'
        for index, split in enumerate(SPLITS):
            faces = open_faces('fer2013', root, split)
            assert [faces.labels[c] for c in faces.classes] == [
                names[i % 7] for i in range(index, 21, 3)
            ]
            same = faces.read(np.arange(7), 48)[..., 0]
            np.testing.assert_array_equal(same, fer_faces[index::3])


def test_the_second_opinion_weighs_the_training_targets(tmp_path, fer_faces):
    write_fer(tmp_path / 'csv', fer_faces)
    for split in ('train', 'valid'):
        write_ferplus(tmp_path, split, images=fer_faces[SPLITS.index(split) :: 3])
    emotions = np.arange(0, 21, 3) % 7  # emotions of the training faces, see `write_fer`
    np.savez(tmp_path / 'fer2013_labels.npz', train=emotions.astype(np.uint8))
    plain = open_faces('ferplus', tmp_path, 'train')
    weighed = FerPlus(0.25).open(tmp_path, 'train')
    assert_same(weighed, FerPlus(0.25).open(tmp_path / 'csv', 'train'))
    np.testing.assert_array_equal(weighed.classes, plain.classes)
    np.testing.assert_allclose(weighed.targets.sum(axis=1), 1, atol=1e-6)
    assert_same(FerPlus(0.25).open(tmp_path, 'valid'), open_faces('ferplus', tmp_path, 'valid'))


def test_the_second_opinion_decides_where_votes_are_divided(tmp_path):
    neutral, sad = 10 * np.eye(10, dtype=int)[[0, 3]]
    votes = [neutral] * 20 + [sad] * 20 + [(neutral + sad) // 2] * 2 + [neutral]
    images = np.zeros((len(votes), 48, 48), np.uint8)
    write_ferplus(tmp_path, 'train', images=images, votes=np.array(votes, np.uint8))
    emotions = [6] * 20 + [4] * 20 + [4, 6] + [4]  # FER-2013: 4 is sad, 6 neutral
    np.savez(tmp_path / 'fer2013_labels.npz', train=np.array(emotions, np.uint8))
    targets = FerPlus(1.0).open(tmp_path, 'train').targets[:, [0, 3]]  # neutral, sad
    called_sad, called_neutral, agreed = targets[-3:]
    assert called_sad[1] > 0.9
    assert called_neutral[1] < 0.1
    assert agreed.tolist() == [1, 0]
    half = FerPlus(0.5).open(tmp_path, 'train').targets[-3, 3]
    assert 0.5 < half < called_sad[1]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (None, 'labels of FER-2013 .* are missing; .* set second_opinion to 0'),
        ({'valid': np.zeros(7, np.uint8)}, "the array 'train' is missing"),
        ({'train': np.zeros(6, np.uint8)}, r'`train` is uint8 \[6\], not uint8 \[7\] from 0 to 6'),
        ({'train': np.full(7, 7, np.uint8)}, 'from 0 to 6'),
        ({'train': np.zeros(7)}, 'is float64'),
    ],
)
def test_a_second_opinion_that_does_not_fit_is_refused(tmp_path, content, words):
    write_ferplus(tmp_path)
    if content is not None:
        np.savez(tmp_path / 'fer2013_labels.npz', **content)
    with pytest.raises(DataError, match=words) as error:
        FerPlus(0.5).open(tmp_path, 'train')
    assert '\n' not in str(error.value)


def test_folders_of_ferplus_have_no_second_opinion(tmp_path, fer_faces):
    write_fer_folders(tmp_path, fer_faces)
    with pytest.raises(DataError, match='labels of FER-2013 .* are missing'):
        FerPlus(0.5).open(tmp_path, 'train')


def test_an_emotion_out_of_range_is_named(tmp_path, fer_faces):
    write_fer_csv(tmp_path, fer_faces[:2], ['PublicTest'] * 2, [3, 7])
    with pytest.raises(DataError, match=r"line 3: emotion '7' is not a number from 0 to 6"):
        open_faces('fer2013', tmp_path, 'valid')


@pytest.mark.parametrize(
    'folders', [('train', 'validation', 'test'), ('Training', 'PublicTest', 'PrivateTest')]
)
@pytest.mark.parametrize('names', [('0', '3', '6'), ('angry', 'happy', 'neutral')])
def test_fer2013_in_folders(tmp_path, folders, names):
    for folder in folders:
        for name in names:
            write_image(tmp_path / 'images' / folder / name / f'{folder}.png')
    for folder, split in zip(folders, SPLITS, strict=True):
        faces = open_faces('fer2013', tmp_path, split)
        found = [faces.labels[index] for index in faces.classes]
        assert found == ['anger', 'happy', 'neutral']
        assert {path.stem for path in faces.paths} == {folder}
    with pytest.raises(DataError, match='tmp|no folder'):
        open_faces('fer2013', tmp_path / 'images' / folders[0] / names[0], 'valid')


# Numbered and named class folders


@pytest.mark.parametrize('names', ['1234567', labels.RAFDB])
@pytest.mark.parametrize('outer', ['', 'DATASET'])
def test_rafdb_in_class_folders(tmp_path, names, outer):
    for split in ('train', 'test'):
        for name in names:
            write_image(tmp_path / outer / split / name / f'{split}_1_aligned.jpg')
    (tmp_path / 'train_labels.csv').write_text('image,label\n')
    for split, folder in (('train', 'train'), ('valid', 'test'), ('test', 'test')):
        faces = open_faces('rafdb', tmp_path, split)
        names_found = [path.parent.name for path in faces.paths]
        found = dict(zip(names_found, np.array(faces.labels)[faces.classes], strict=True))
        assert found == dict(zip(names, labels.RAFDB, strict=True))
        assert {path.parent.parent.name for path in faces.paths} == {folder}


def test_rafdb_without_split_folders_is_split_by_the_names_of_the_files(tmp_path):
    for name in ('train_1_aligned.jpg', 'test_1_aligned.jpg', 'test_2_aligned.jpg'):
        write_image(tmp_path / '4' / name)
    assert [p.name[:6] for p in open_faces('rafdb', tmp_path, 'train').paths] == ['train_']
    assert [p.name[:5] for p in open_faces('rafdb', tmp_path, 'valid').paths] == ['test_'] * 2
    for path in (tmp_path / '4').glob('test_*'):
        path.unlink()
    assert len(open_faces('rafdb', tmp_path, 'valid')) == 1  # the folder train itself was given
    (tmp_path / '4' / 'train_1_aligned.jpg').rename(tmp_path / '4' / 'a.jpg')
    with pytest.raises(DataError, match='no images with names like train_1'):
        open_faces('rafdb', tmp_path, 'train')


def test_affectnet_in_numbered_folders_without_splits(tmp_path):
    for number in '1234567':
        write_image(tmp_path / number / 'a.png')
    assert open_faces('affectnet8', tmp_path, 'valid').classes.tolist() == [1, 2, 3, 4, 5, 6, 7]
    seven = open_faces('affectnet7', tmp_path, 'valid')
    assert seven.classes.tolist() == [1, 2, 3, 4, 5, 6]
    assert seven.excluded == {'class contempt': 1}


@pytest.mark.parametrize('second', ['HAPPY', 'happiness', '4'])
def test_two_folders_of_one_class_are_refused(tmp_path, second):
    for name in ('happy', second):
        write_image(tmp_path / 'train' / name / 'a.png')
    with pytest.raises(DataError, match='both mean the class happy') as error:
        open_faces('rafdb', tmp_path, 'train')
    assert all(str(tmp_path / 'train' / name) in str(error.value) for name in ('happy', second))


@pytest.mark.parametrize('header', [True, False])
@pytest.mark.parametrize('images', ['.', 'Manually_Annotated'])
def test_affectnet_of_the_first_release_as_distributed(tmp_path, header, images):
    """In the original, validation.csv has no header."""
    write_image(tmp_path / images / 'Manually_Annotated_Images' / '12' / 'a.jpg')
    columns = (
        'subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,'
        'expression,valence,arousal'
    )
    rows = ['12/a.jpg,0,0,20,20,1.5;2.5,3,0.1,0.2', '12/a.jpg,0,0,20,20,1.5;2.5,9,-2,-2']
    path = tmp_path / 'Manually_Annotated_file_lists' / 'validation.csv'
    path.parent.mkdir()
    path.write_text('\n'.join([columns, *rows] if header else rows))
    for root in (tmp_path, path):
        assert guess_dataset(root, labels.AFFECTNET8) == 'affectnet8'
        faces = open_faces('affectnet8', root, 'valid')
        assert faces.classes.tolist() == [3]
        assert faces.excluded == {'class 9': 1}
        assert not faces.skipped


def test_affectnet_may_have_test_faces(tmp_path):
    write_image(tmp_path / 'a.jpg')
    rows = ['img_path,label,phase', 'a.jpg,1,train', 'a.jpg,2,test']
    (tmp_path / 'affectnet.csv').write_text('\n'.join(rows))
    assert open_faces('affectnet8', tmp_path, 'test').classes.tolist() == [2]


# Files in class folders


@pytest.mark.parametrize(
    ('name', 'suffix'),
    [
        ('a', '.png'),
        ('a.gif', '.gif'),
        ('a.jfif', '.jpg'),
        ('a.JPG', '.jpg'),
        ('a.jp2', '.jp2'),
        ('a.pgm', '.ppm'),
        ('a.dat', '.webp'),
        ('a.txt', '.bmp'),
    ],
)
def test_images_are_recognized_by_content_not_by_suffix(tmp_path, name, suffix):
    picture = np.full((64, 64, 3), (10, 60, 200), np.uint8)
    (tmp_path / 'happy').mkdir()
    (tmp_path / 'happy' / name).write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
    faces = open_faces('folder', tmp_path, 'valid')
    assert [path.name for path in faces.paths] == [name]


def test_a_portable_bitmap_in_text_form_is_an_image(tmp_path):
    (tmp_path / 'happy').mkdir()
    (tmp_path / 'happy' / 'a').write_text('P2\n2 2\n255\n0 9 99 200\n')
    assert len(open_faces('folder', tmp_path, 'valid')) == 1


def test_images_in_folders_of_a_class_folder_are_read(tmp_path):
    write_image(tmp_path / 'happy' / 'ann' / 'a.png')
    write_image(tmp_path / 'other' / 'b.png')
    (tmp_path / 'happy' / 'bob').symlink_to(tmp_path / 'other')
    write_image(tmp_path / 'happy' / '@eaDir' / 'c.png')
    (tmp_path / 'other').rename(tmp_path.parent / f'{tmp_path.name}_other')
    (tmp_path / 'happy' / 'bob').unlink()
    (tmp_path / 'happy' / 'bob').symlink_to(tmp_path.parent / f'{tmp_path.name}_other')
    faces = open_faces('folder', tmp_path, 'valid')
    assert [path.name for path in faces.paths] == ['a.png', 'b.png']


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    write_image(tmp_path / 'happy' / 'ann' / 'a.png')
    write_image(tmp_path / 'sad' / 'b.png')
    (tmp_path / 'happy' / 'ann' / 'all').symlink_to(tmp_path / 'happy')
    (tmp_path / 'happy' / 'up').symlink_to('..')
    assert open_faces('folder', tmp_path, 'valid').counts == {'happy': 1, 'sad': 1}


def test_every_file_that_should_be_an_image_is_counted(tmp_path):
    write_image(tmp_path / 'happy' / 'a.png')
    write_image(tmp_path / 'loose.png')
    contents = {
        'IMG_1.HEIC': b'\0\0\0\x18ftypheic' + bytes(200),
        'page.jpg': b'<html>Sign in</html>',
        'empty.png': b'',
        'archive.zip': b'PK\x03\x04' + bytes(100),
        'cut.jpeg': b'\xff\xd8\xff',
    }
    for name, content in contents.items():
        (tmp_path / 'happy' / name).write_bytes(content)
    (tmp_path / 'happy' / 'gone.jpg').symlink_to(tmp_path / 'nowhere.jpg')
    faces = open_faces('folder', tmp_path, 'valid')
    assert len(faces) == 1
    assert {Path(path).name for path in faces.skipped} == {*contents, 'gone.jpg', 'loose.png'}
    assert all(reason and '\n' not in reason for reason in faces.skipped.values())
    assert faces.skipped[str(tmp_path / 'loose.png')] == 'is not in a class folder'


def test_files_that_accompany_images_are_left_alone(tmp_path):
    write_image(tmp_path / 'happy' / 'a.png')
    write_image(tmp_path / '__MACOSX' / 'happy' / '._a.png')
    for name in ('.DS_Store', '._a.png', 'Thumbs.db', 'desktop.ini'):
        (tmp_path / 'happy' / name).write_bytes(b'\0\1\2')
    for name in ('notes.txt', 'README', 'points.pts', 'labels.json', 'umlaut.md'):
        (tmp_path / 'happy' / name).write_bytes('text, \xe4'.encode('latin-1'))
    (tmp_path / 'labels.csv').write_text('image,label\n')
    faces = open_faces('folder', tmp_path, 'valid')
    assert (len(faces), faces.skipped, faces.empty_folders) == (1, {}, ())


def test_class_folders_without_a_face_are_said(tmp_path):
    write_image(tmp_path / 'happy' / 'a.png')
    (tmp_path / 'sad').mkdir()
    (tmp_path / 'angry').mkdir()
    (tmp_path / 'angry' / 'a.heic').write_bytes(b'\0\0\0\x18ftypheic')
    faces = open_faces('folder', tmp_path, 'valid')
    assert faces.empty_folders == (f'{tmp_path / "angry"} (anger)', f'{tmp_path / "sad"} (sad)')
    lines = summarize('folder', 'valid', faces)
    assert lines[0] == f'data set folder, split valid: class folders in {tmp_path}'
    assert lines[1].startswith('1 face: neutral 0, happy 1, sad 0')
    assert 'angry (anger)' in lines[2]


def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    write_image(tmp_path / 'happy' / 'secret' / 'a.png')

    def scandir(path, original=os.scandir):
        if Path(path).name == 'secret':
            raise PermissionError(13, 'Permission denied', str(path))
        return original(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    with pytest.raises(PermissionError):
        open_faces('folder', tmp_path, 'valid')


def test_lines_of_a_csv_file_are_counted_with_blank_ones(tmp_path):
    (tmp_path / 'a.csv').write_text('\ufeffName, "Two\nlines"\n\n\nx ,  y\n', encoding='utf-8')
    assert list(read_csv(tmp_path / 'a.csv')) == [(2, ['Name', 'Two\nlines']), (5, ['x', 'y'])]
    assert read_header(tmp_path / 'a.csv') == ['name', 'two\nlines']


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (None, 'a.csv cannot be read: No such file'),
        (b'a,\xff\n', 'a.csv is not a UTF-8 text file'),
        (b'a,b\n"' + b'x' * (1 << 18), r'a.csv, line 2: not a CSV file \(field larger'),
    ],
)
def test_a_file_that_is_not_a_csv_file_is_named(tmp_path, content, words):
    path = tmp_path / 'a.csv'
    if content:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(read_csv(path))
    assert read_header(path) == ([] if content is None or b'\xff' in content else ['a', 'b'])
