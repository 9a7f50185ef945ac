"""Measuring models: numbers by hand, the commands on small data, the report, bad input."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_datasets import write_ferplus

from dan_ros import labels
from dan_ros.backends import open_backend
from dan_ros.datasets.catalog import Faces, guess_dataset, open_faces
from dan_ros.detect import open_detector
from dan_ros.errors import DataError
from dan_ros.evaluate.evaluator import evaluate, judge_photos, predict_crops
from dan_ros.evaluate.metrics import CALIBRATION_BINS, measure
from dan_ros.evaluate.plots import heat_over
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline

ABC = ('a', 'b', 'c')


def run(*arguments: object, cwd: Path | None = None, **environment: str):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, '-m', 'dan_ros.cli.main', *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def is_picture(path: Path, least: int = 200) -> bool:
    picture = cv2.imread(str(path))
    return picture is not None and min(picture.shape[:2]) >= least and picture.std() > 5


# Numbers


def test_scores_by_hand():
    answers = np.array([0, 0, 1, 1, 1, 0])
    truth = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), answers] = 0.8
    scores = measure(probabilities, truth, ABC)
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.balanced_accuracy == pytest.approx(4 / 6)
    np.testing.assert_allclose(scores.recall, [2 / 3, 2 / 3, np.nan])
    np.testing.assert_allclose(scores.precision, [2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(scores.f1, [2 / 3, 2 / 3, np.nan])
    assert scores.macro_f1 == pytest.approx(2 / 3)
    # All six said 0.8, four were right.
    assert scores.calibration_error == pytest.approx(0.8 - 4 / 6)


def test_balanced_accuracy_weighs_classes_and_not_faces():
    probabilities = np.eye(2)[np.zeros(10, int)]  # always the first class
    scores = measure(probabilities, np.array([0] * 9 + [1]), ('often', 'rare'))
    assert scores.accuracy == pytest.approx(0.9)
    assert scores.balanced_accuracy == pytest.approx(0.5)
    np.testing.assert_allclose(scores.f1, [2 * 9 / 19, 0])


def test_calibration_error_of_two_parts_by_hand():
    probabilities = np.array([[0.55, 0.45]] * 4 + [[0.95, 0.05]] * 6)
    truth = np.array([0, 1, 1, 1] + [0] * 6)
    scores = measure(probabilities, truth, ('a', 'b'))
    # 4 faces at 0.55 of which 1/4 is right, 6 at 0.95 of which all are.
    expected = 0.4 * (0.55 - 0.25) + 0.6 * (1 - 0.95)
    assert scores.calibration_error == pytest.approx(expected)
    assert scores.bin_faces.sum() == 10
    assert (scores.bin_faces > 0).sum() == 2


def test_parts_of_confidence_are_open_below_and_closed_above():
    edge = 12 / CALIBRATION_BINS
    scores = measure(np.array([[edge, 1 - edge], [1.0, 0.0]]), np.array([0, 0]), ('a', 'b'))
    assert np.flatnonzero(scores.bin_faces).tolist() == [11, CALIBRATION_BINS - 1]


def test_a_face_without_an_answer_is_wrong_and_stands_in_no_column():
    scores = measure(np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([0, 0]), ABC)
    assert scores.confusion.sum() == 1
    assert scores.accuracy == 0.5
    assert scores.recall[0] == 0.5
    assert scores.calibration_error == 0


def test_no_faces_at_all_are_no_crash():
    scores = measure(np.zeros((0, 3)), np.zeros(0, int), ABC)
    assert (scores.accuracy, scores.balanced_accuracy, scores.macro_f1) == (0, 0, 0)


# Judging


def a_set(names: tuple[str, ...], classes: list[int]) -> Faces:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (len(classes), 96, 96, 1), dtype=np.uint8)
    return Faces(
        names, np.eye(len(names))[classes], np.array(classes), lambda i, size: pictures[i], 96
    )


def answer(label: str):
    """A judge that always says `label`."""
    row = np.zeros(8, np.float32)
    row[labels.CANONICAL.index(label)] = 1
    return lambda indices: np.tile(row, (len(indices), 1))


def test_class_orders_of_data_and_model_are_mapped_by_name():
    faces = a_set(labels.RAFDB, [0, 3, 6, 6])  # surprise, happy, neutral, neutral
    answers = [answer(name) for name in ('surprise', 'fear', 'neutral', 'happy')]
    evaluation = evaluate(
        faces, labels.AFFECTNET7, lambda indices: np.concatenate([answers[i]([0]) for i in indices])
    )
    assert evaluation.scores.labels == labels.AFFECTNET7
    assert evaluation.scores.accuracy == 0.5
    cells = np.argwhere(evaluation.scores.confusion).tolist()
    names = [[labels.AFFECTNET7[i] for i in cell] for cell in cells]
    expected = [['surprise'] * 2, ['happy', 'fear'], ['neutral'] * 2, ['neutral', 'happy']]
    assert sorted(names) == sorted(expected)


def test_a_model_with_few_classes_in_between():
    faces = a_set(labels.FERPLUS, [1, 4, 4])  # happy, anger, anger
    evaluation = evaluate(faces, ('anger', 'happy'), answer('anger'))
    assert evaluation.scores.labels == ('happy', 'anger')
    assert evaluation.scores.confusion.tolist() == [[0, 1], [0, 2]]


def test_red_pictures_in_files_come_as_red(tmp_path):
    (tmp_path / 'happy').mkdir()
    cv2.imwrite(str(tmp_path / 'happy' / 'red.png'), np.full((40, 40, 3), (0, 0, 200), np.uint8))
    batch = open_faces('folder', tmp_path, 'valid').read_rgb(np.array([0]), 32)
    assert batch[0, 0, 0].tolist() == [200, 0, 0]
    assert batch.flags.writeable


def test_faces_of_a_class_the_model_lacks_are_left_out_and_counted():
    faces = a_set(labels.FERPLUS, [0, 7, 7, 1])  # neutral, contempt twice, happy
    evaluation = evaluate(faces, labels.RAFDB, answer('happy'))
    assert evaluation.left_out == {'contempt': 2}
    assert evaluation.chosen.tolist() == [0, 3]
    assert evaluation.scores.accuracy == 0.5


def test_no_class_in_common_is_refused():
    with pytest.raises(DataError, match='knows only happy'):
        evaluate(a_set(('sad', 'fear'), [0, 1]), ('happy',), answer('happy'))


def test_backends_agree_on_faces():
    faces = a_set(labels.FERPLUS, [0, 1, 2])
    rows = [
        predict_crops(faces, open_backend(name, 'dan_ferplus'))(np.arange(3))
        for name in ('onnxruntime', 'torch')
    ]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)
    np.testing.assert_allclose(rows[0].sum(axis=1), 1, rtol=1e-5)


def test_whole_photos_are_judged_as_the_node_does(portrait, tmp_path):
    for name, picture in (('happy/1.png', portrait), ('sad/2.png', np.zeros_like(portrait))):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), picture)
    faces = open_faces('folder', tmp_path, 'valid')
    backend = open_backend()
    pipeline = ExpressionPipeline(open_detector('yunet'), backend)
    evaluation = evaluate(faces, backend.model.labels, judge_photos(faces, pipeline))
    happy, sad = (faces.classes == labels.CANONICAL.index(name) for name in ('happy', 'sad'))
    assert evaluation.probabilities[happy].argmax() == labels.CANONICAL.index('happy')
    assert not evaluation.probabilities[sad].any()  # nobody is in the black picture
    assert evaluation.scores.accuracy == 0.5


def test_photos_are_asked_for_where_there_are_none(pipeline):
    with pytest.raises(DataError, match='no pictures that a face'):
        judge_photos(a_set(labels.FERPLUS, [0]), pipeline)


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
def test_data_sets_are_told_by_their_files(tmp_path, path, expected):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    assert guess_dataset(tmp_path, labels.AFFECTNET7) == expected


def test_what_can_not_be_told_is_refused(tmp_path):
    with pytest.raises(DataError, match='--dataset'):
        guess_dataset(tmp_path, labels.AFFECTNET8)
    with pytest.raises(DataError, match='there is no data at'):
        guess_dataset(tmp_path / 'missing', labels.AFFECTNET8)


# The command


class Pictures(HTMLParser):
    """Counts the pictures of a page, and checks that its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures, self.open = 0, []

    def handle_starttag(self, tag, attrs):
        if tag == 'img':
            self.pictures += dict(attrs)['src'].startswith('data:image/png;base64,iVBOR')
        elif tag != 'meta':
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def own_pictures(portrait, tmp_path):
    """A folder of one's own: two smiles, one of them damaged, and noise said to be sad."""
    folder = tmp_path / 'own <pictures>'
    face = portrait[63:176, 166:279]
    for name in ('happy', 'sad'):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / 'happy' / 'smile.png'), face)
    (folder / 'happy' / 'broken.jpg').write_bytes(b'\xff\xd8 cut short')
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    cv2.imwrite(str(folder / 'sad' / 'noise.png'), noise)
    return folder


def test_evaluate_json_and_report(own_pictures, tmp_path):
    result = run('evaluate', own_pictures, 'dan_ferplus', '--json', '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content['dataset'] == 'folder'
    assert content['faces'] == 2
    assert content['per_class']['happy'] == {'precision': 1, 'recall': 1, 'f1': 1, 'faces': 1}
    assert content['per_class']['fear'] == {
        'precision': 0, 'recall': None, 'f1': None, 'faces': 0
    }  # fmt: skip
    assert 0 <= content['calibration_error'] <= 1
    assert np.sum(content['confusion_matrix']) == 2
    assert sum(part['faces'] for part in content['reliability']) == 2
    assert len(content['skipped']) == 1
    assert content['skipped'][0].endswith('broken.jpg')
    assert json.loads((tmp_path / 'out' / 'scores.json').read_text()) == content
    for name in ('confusion.png', 'reliability.png'):
        assert is_picture(tmp_path / 'out' / name)
    text = (tmp_path / 'out' / 'report.html').read_text()
    page = Pictures()
    page.feed(text)
    assert not page.open
    assert page.pictures == (3 if (tmp_path / 'out' / 'mistakes.png').exists() else 2)
    assert '<pictures>' not in text
    assert f'{content["accuracy"]:.2%}' in text


def test_evaluate_ferplus_for_people(tmp_path):
    write_ferplus(tmp_path, 'valid')
    result = run('evaluate', tmp_path, 'dan_ferplus', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r'accuracy \d+\.\d\d%, balanced .* 3 faces', result.stdout)
    for label in labels.FERPLUS:
        assert label in result.stdout
    assert (tmp_path / 'evaluation' / 'report.html').is_file()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('missing', 'dan_ferplus'), 'there is no data at missing'),
        (('.', 'missing.onnx'), "there is no model 'missing.onnx'"),
        (('.', 'missing.pth'), 'there is no checkpoint at missing.pth'),
        (('.', 'dan_ferplus'), 'nor folders called neutral'),
        (('.', 'yunet'), 'not a model of this package'),
        (('.', 'dan_ferplus', '--dataset', 'ferplus'), 'there is no ferplus_valid.npz'),
        (('.', 'dan_ferplus', '--dataset', 'rafdb'), 'list_patition_label.txt can not be read'),
        (('.', 'text.npz'), 'there is no model'),
        (('text.npz', 'dan_ferplus'), 'text.npz can not be read as .npz'),
        (('.', 'text.safetensors'), 'text.safetensors is not a safetensors file'),
        (('.', 'x.pth', '--backend', 'onnxruntime'), 'is a checkpoint, which only torch runs'),
    ],
)
def test_bad_input_is_one_line_that_names_it(tmp_path, arguments, words):
    for name in ('text.npz', 'text.safetensors'):
        (tmp_path / name).write_text('neither')
    if 'text.npz' in arguments[1:]:
        (tmp_path / 'text.npz').unlink()
    result = run('evaluate', *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / 'evaluation').exists()


def test_whole_photos_from_the_command_line(portrait, tmp_path):
    (tmp_path / 'photos' / 'happy').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'photos' / 'happy' / '1.png'), portrait)
    result = run('evaluate', 'photos', 'dan_ferplus', '--detect', 'yunet', '--json', cwd=tmp_path)
    content = json.loads(result.stdout)
    assert (content['look'], content['accuracy']) == ('photo', 1.0)


def test_a_folder_that_can_not_be_written_is_said_before_the_work(own_pictures, tmp_path):
    (tmp_path / 'file').touch()
    result = run('evaluate', own_pictures, 'dan_ferplus', '--out', tmp_path / 'file' / 'x')
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert 'file' in result.stderr
    assert result.stdout == ''


@pytest.mark.parametrize('name', ['a$\\b$', os.fsdecode(b'a\xff')])
def test_a_name_with_formulas_or_that_is_no_text_is_a_name(own_pictures, tmp_path, name):
    model = tmp_path / f'{name}.onnx'
    model.write_bytes(store.read_model('dan_ferplus').content)
    data = own_pictures.rename(tmp_path / name)
    result = run('evaluate', data, model, '--out', tmp_path / 'out', '--json')
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content['model'], content['data']) == (str(model), str(data))
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert name.encode(errors='backslashreplace').decode() in page


# explain


def test_explain_draws_a_row_a_face(portrait_file, tmp_path):
    result = run('explain', portrait_file, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert 'happy' in result.stdout
    path = tmp_path / 'portrait_explained.png'
    assert is_picture(path)
    height, width = cv2.imread(str(path)).shape[:2]
    assert width > 4 * height  # the face, four heads, the probabilities


def test_explain_takes_a_face_as_it_is(portrait, tmp_path):
    cv2.imwrite(str(tmp_path / 'eye.png'), portrait[90:130, 185:225])
    result = run('explain', 'eye.png', cwd=tmp_path)
    assert result.returncode == 1
    assert 'no face is found' in result.stderr
    assert '--whole' in result.stderr
    assert run('explain', 'eye.png', '--whole', cwd=tmp_path).returncode == 0


def test_explain_wants_float_weights_and_a_picture_to_write(portrait_file, tmp_path):
    result = run('explain', portrait_file, '--model', 'dan_ferplus_int8', cwd=tmp_path)
    assert 'fp32 or fp16' in result.stderr
    for name in ('results', 'x.foo'):
        result = run('explain', portrait_file, '--out', name, cwd=tmp_path)
        assert result.returncode == 1
        assert 'give the name of a picture' in result.stderr
    assert not [p for p in tmp_path.iterdir() if p != portrait_file]


def test_explain_says_what_it_can_not_read(tmp_path):
    result = run('explain', tmp_path / 'missing.png')
    assert result.returncode == 1
    assert result.stderr.endswith('missing.png: there is no such file\n')


def test_attention_maps_are_what_the_heads_pool_with(portrait):
    torch = pytest.importorskip('torch')
    from dan_ros.backends.torch import TorchBackend

    backend = TorchBackend.read(store.read_model('dan_ferplus'))
    faces = cv2.resize(portrait[63:176, 166:279, ::-1], (96, 96))[None]
    maps = backend.attend(faces)
    assert maps.shape == (1, 4, 3, 3)
    assert (maps >= 0).all()
    features = backend.network.features(torch.from_numpy(faces))  # [1, 512, 3, 3]
    pooled = (features[:, None] * torch.from_numpy(maps)[:, :, None]).mean(dim=(3, 4))
    with torch.inference_mode():
        expected = backend.network._attend_in_space(features)  # [K, 1, 512]
    torch.testing.assert_close(pooled[0], expected[:, 0], rtol=1e-4, atol=1e-2)


def test_heat_is_red_where_the_map_is_high():
    heat = np.zeros((3, 3))
    heat[0, 2] = 5
    picture = heat_over(np.full((90, 90, 3), 128, np.uint8), heat)
    red, _, blue = picture[5, 85].astype(int)
    assert red > blue
    red, _, blue = picture[85, 5].astype(int)
    assert blue > red
    assert heat_over(np.zeros((9, 9, 3), np.uint8), np.ones((3, 3))).shape == (9, 9, 3)
