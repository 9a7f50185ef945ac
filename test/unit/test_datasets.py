# SPDX-License-Identifier: Apache-2.0
"""Readers of the data sets, on small sets."""

import io
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_sets import VOTES, write_ferplus, write_image

pytest.importorskip('torch')  # train/ is installed with it

from dan_ros import labels
from dan_ros.datasets.catalog import DATASETS, guess_dataset, open_faces
from dan_ros.datasets.faces import MAX_LISTED_SKIPS, summarize_skipped
from dan_ros.errors import DataError
from dan_ros.images.files import read_picture


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
    assert faces.classes.tolist() == [0, 2, 1]  # 5 of the 9 that count, 6 of 10


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
def test_a_damaged_image_is_none(tmp_path, content):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    assert read_picture(path) is None
    assert read_picture(tmp_path / 'missing.jpg') is None


def test_nothing_readable_is_an_error(tmp_path):
    write_rafdb(tmp_path)
    for path in (tmp_path / 'Image' / 'aligned').iterdir():
        path.write_bytes(b'')
    with pytest.raises(DataError, match='none of its 2 images'):
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
    (tmp_path / 'training.csv').write_text('\n'.join([header, *rows]))
    faces = open_faces('affectnet8', tmp_path, 'train')
    assert faces.classes.tolist() == [5]
    np.testing.assert_array_equal(faces.read(np.array([0]), 32)[0, 16, 16], [255, 0, 0])
    assert (faces.read(np.array([0]), 32) == [255, 0, 0]).all()


def test_affectnet_csv_with_phases(tmp_path):
    write_image(tmp_path / 'x' / 'a.jpg')
    rows = ['img_path,label,phase', 'x/a.jpg,1,train', 'x/a.jpg,2,val', 'x/gone.jpg,2,val']
    rows.append(f'{"x" * 300}.jpg,2,val')  # can't even be looked at
    (tmp_path / 'affectnet.csv').write_text('\n'.join(rows))
    assert open_faces('affectnet8', tmp_path, 'train').classes.tolist() == [1]
    valid = open_faces('affectnet8', tmp_path / 'affectnet.csv', 'valid')
    assert valid.classes.tolist() == [2]
    assert len(valid.skipped) == 2


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


def test_a_folder_that_is_not_a_class_is_refused(tmp_path):
    write_image(tmp_path / 'train' / 'bored' / 'a.jpg')
    with pytest.raises(DataError, match='bored is not a class'):
        open_faces('sfew', tmp_path, 'train')


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


def test_only_affectnet_has_class_numbers_as_folders(tmp_path):
    write_image(tmp_path / 'val' / '3' / 'a.png')
    assert open_faces('affectnet8', tmp_path, 'valid').classes.tolist() == [3]
    with pytest.raises(DataError, match=r'/3 is not a class; valid folder names are neutral'):
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
    assert open_faces('folder', tmp_path, 'valid').skipped == ()


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('ferplus_valid.npz', 'ferplus'),
        ('EmoLabel/list_patition_label.txt', 'rafdb'),
        ('basic/EmoLabel/list_patition_label.txt', 'rafdb'),
        ('validation.csv', 'affectnet7'),
        ('val_set/annotations/1_exp.npy', 'affectnet7'),
        ('Happiness/a.jpg', 'folder'),
        ('val/sad/a.jpg', 'folder'),
        ('3/a.jpg', 'affectnet7'),
        ('val/3/a.jpg', 'affectnet7'),
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
    (tmp_path / 'validation.csv').touch()
    assert guess_dataset(tmp_path, labels.AFFECTNET8) == 'affectnet8'


@pytest.mark.parametrize('name', DATASETS)
def test_every_data_set_has_canonical_labels(name):
    assert set(DATASETS[name].labels) <= set(labels.CANONICAL)


def test_a_long_list_of_unreadable_images_is_cut():
    assert summarize_skipped([], 'list.txt') == []
    lines = summarize_skipped(['a.png'] * (MAX_LISTED_SKIPS + 2), 'list.txt')
    assert lines[0] == '22 images cannot be read and are left out:'
    assert lines[-1] == '  and 2 more, see list.txt'
    assert len(lines) == MAX_LISTED_SKIPS + 2
