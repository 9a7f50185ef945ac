# SPDX-License-Identifier: Apache-2.0
"""Evaluation: metrics with known values, `evaluate` and `explain` on small data, the report."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_sets import write_ferplus

from dan_ros import labels
from dan_ros.backends import open_backend
from dan_ros.datasets.catalog import open_faces
from dan_ros.datasets.faces import Faces
from dan_ros.detect import open_detector
from dan_ros.errors import DataError
from dan_ros.evaluate import report
from dan_ros.evaluate.evaluator import evaluate, predict_photos
from dan_ros.evaluate.metrics import CALIBRATION_BINS, measure, recall_per_class
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.plots.evaluation import heat_over

ABC = ('a', 'b', 'c')


@pytest.fixture
def no_figures(monkeypatch):
    """Skip the drawing, which takes seconds."""
    monkeypatch.setattr(report, 'encode', lambda figure: b'')


def is_figure(path: Path, min_px: int = 200) -> bool:
    picture = cv2.imread(str(path))
    return picture is not None and min(picture.shape[:2]) >= min_px and picture.std() > 5


# Metrics


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
    # All six have a confidence of 0.8, and four are correct.
    assert scores.calibration_error == pytest.approx(0.8 - 4 / 6)


def test_balanced_accuracy_is_the_mean_over_classes():
    probabilities = np.eye(2)[np.zeros(10, int)]  # always the first class
    scores = measure(probabilities, np.array([0] * 9 + [1]), ('often', 'rare'))
    assert scores.accuracy == pytest.approx(0.9)
    assert scores.balanced_accuracy == pytest.approx(0.5)
    np.testing.assert_allclose(scores.f1, [2 * 9 / 19, 0])


def test_recall_is_the_same_with_and_without_a_confusion_matrix():
    rng = np.random.default_rng(0)
    classes, probabilities = rng.integers(0, 3, 50), rng.dirichlet(np.ones(4), 50)
    scores = measure(probabilities, classes, ('a', 'b', 'c', 'without faces'))
    recall = recall_per_class(probabilities.argmax(axis=1), classes, 4)
    np.testing.assert_array_equal(recall, scores.recall)
    assert np.isnan(recall).tolist() == [False, False, False, True]


def test_calibration_error_of_two_bins_by_hand():
    probabilities = np.array([[0.55, 0.45]] * 4 + [[0.95, 0.05]] * 6)
    truth = np.array([0, 1, 1, 1] + [0] * 6)
    scores = measure(probabilities, truth, ('a', 'b'))
    # 4 faces at 0.55 of which 1/4 is right, 6 at 0.95 of which all are.
    expected = 0.4 * (0.55 - 0.25) + 0.6 * (1 - 0.95)
    assert scores.calibration_error == pytest.approx(expected)
    assert scores.bin_faces.sum() == 10
    assert (scores.bin_faces > 0).sum() == 2


def test_bins_are_open_below_and_closed_above():
    edge = 12 / CALIBRATION_BINS
    scores = measure(np.array([[edge, 1 - edge], [1.0, 0.0]]), np.array([0, 0]), ('a', 'b'))
    assert np.flatnonzero(scores.bin_faces).tolist() == [11, CALIBRATION_BINS - 1]


def test_a_face_without_a_result_is_wrong_and_in_no_column():
    scores = measure(np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([0, 0]), ABC)
    assert scores.confusion.sum() == 1
    assert scores.accuracy == 0.5
    assert scores.recall[0] == 0.5
    assert scores.calibration_error == 0


def test_metrics_of_no_faces_are_zero():
    scores = measure(np.zeros((0, 3)), np.zeros(0, int), ABC)
    assert (scores.accuracy, scores.balanced_accuracy, scores.macro_f1) == (0, 0, 0)


# Data set and model


def make_faces(names: tuple[str, ...], classes: list[int]) -> Faces:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (len(classes), 96, 96, 1), dtype=np.uint8)
    return Faces(
        names, np.eye(len(names))[classes], np.array(classes), lambda i, size: pictures[i], 96
    )


def always(label: str):
    """A predictor that always answers `label`."""
    row = np.zeros(8, np.float32)
    row[labels.CANONICAL.index(label)] = 1
    return lambda indices: np.tile(row, (len(indices), 1))


def test_class_orders_of_data_and_model_are_mapped_by_name():
    faces = make_faces(labels.RAFDB, [0, 3, 6, 6])  # surprise, happy, neutral, neutral
    answers = [always(name) for name in ('surprise', 'fear', 'neutral', 'happy')]
    evaluation = evaluate(
        faces, labels.AFFECTNET7, lambda indices: np.concatenate([answers[i]([0]) for i in indices])
    )
    assert evaluation.scores.labels == labels.AFFECTNET7
    assert evaluation.scores.accuracy == 0.5
    cells = np.argwhere(evaluation.scores.confusion).tolist()
    names = [[labels.AFFECTNET7[i] for i in cell] for cell in cells]
    expected = [['surprise'] * 2, ['happy', 'fear'], ['neutral'] * 2, ['neutral', 'happy']]
    assert sorted(names) == sorted(expected)


def test_a_model_with_few_classes():
    faces = make_faces(labels.FERPLUS, [1, 4, 4])  # happy, anger, anger
    evaluation = evaluate(faces, ('anger', 'happy'), always('anger'))
    assert evaluation.scores.labels == ('happy', 'anger')
    assert evaluation.scores.confusion.tolist() == [[0, 1], [0, 2]]


def test_image_files_are_read_as_rgb(tmp_path):
    (tmp_path / 'happy').mkdir()
    cv2.imwrite(str(tmp_path / 'happy' / 'red.png'), np.full((40, 40, 3), (0, 0, 200), np.uint8))
    batch = open_faces('folder', tmp_path, 'valid').read_rgb(np.array([0]), 32)
    assert batch[0, 0, 0].tolist() == [200, 0, 0]
    assert batch.flags.writeable


def test_faces_of_other_classes_are_left_out_and_counted():
    faces = make_faces(labels.FERPLUS, [0, 7, 7, 1])  # neutral, contempt twice, happy
    evaluation = evaluate(faces, labels.RAFDB, always('happy'))
    assert evaluation.left_out == {'contempt': 2}
    assert evaluation.chosen.tolist() == [0, 3]
    assert evaluation.scores.accuracy == 0.5


def test_no_class_in_common_is_refused():
    with pytest.raises(DataError, match='has only the classes happy'):
        evaluate(make_faces(('sad', 'fear'), [0, 1]), ('happy',), always('happy'))


def test_photos_are_classified_as_in_the_node(portrait, tmp_path):
    for name, picture in (('happy/1.png', portrait), ('sad/2.png', np.zeros_like(portrait))):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), picture)
    faces = open_faces('folder', tmp_path, 'valid')
    backend = open_backend()
    pipeline = ExpressionPipeline(open_detector('yunet'), backend)
    evaluation = evaluate(faces, backend.model.labels, predict_photos(faces, pipeline))
    happy, sad = (faces.classes == labels.CANONICAL.index(name) for name in ('happy', 'sad'))
    assert evaluation.probabilities[happy].argmax() == labels.CANONICAL.index('happy')
    assert not evaluation.probabilities[sad].any()  # nobody is in the black picture
    assert evaluation.scores.accuracy == 0.5


def test_photos_need_image_files(pipeline):
    with pytest.raises(DataError, match='are not in image files'):
        predict_photos(make_faces(labels.FERPLUS, [0]), pipeline)


# The command


class Page(HTMLParser):
    """Counts the figures of a page, and checks that its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.figures, self.open = 0, []

    def handle_starttag(self, tag, attrs):
        if tag == 'img':
            self.figures += dict(attrs)['src'].startswith('data:image/png;base64,iVBOR')
        elif tag != 'meta':
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def own_images(portrait, tmp_path):
    """Class folders: a smile, a damaged image, and noise labeled sad."""
    folder = tmp_path / 'own <images>'
    face = portrait[63:176, 166:279]
    for name in ('happy', 'sad'):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / 'happy' / 'smile.png'), face)
    (folder / 'happy' / 'broken.jpg').write_bytes(b'\xff\xd8 cut short')
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    cv2.imwrite(str(folder / 'sad' / 'noise.png'), noise)
    return folder


def test_evaluate_json_and_report(run, own_images, tmp_path):
    result = run('evaluate', own_images, 'dan_ferplus', '--json', '--out', tmp_path / 'out')
    assert result.exit_code == 1  # because of the damaged image
    assert result.stderr.endswith('Error: 1 of 3 images not classified; scores.json lists them\n')
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
    assert list(content['skip_reasons']) == content['skipped']
    assert (content['not_judged'], content['not_judged_images']) == (0, [])
    assert content['layout'] == f'class folders in {own_images}'
    assert content['counts'] == {**dict.fromkeys(labels.CANONICAL, 0), 'happy': 1, 'sad': 1}
    assert json.loads((tmp_path / 'out' / 'scores.json').read_text()) == content
    for name in ('confusion.png', 'reliability.png'):
        assert is_figure(tmp_path / 'out' / name)
    text = (tmp_path / 'out' / 'report.html').read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    assert page.figures == (3 if (tmp_path / 'out' / 'mistakes.png').exists() else 2)
    assert '<images>' not in text
    assert f'{content["accuracy"]:.2%}' in text


@pytest.mark.usefixtures('no_figures')
def test_evaluate_ferplus_for_people(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ferplus(tmp_path, 'valid')
    result = run('evaluate', tmp_path, 'dan_ferplus')
    assert result.exit_code == 0, result.stderr
    assert re.search(r'accuracy \d+\.\d\d%, balanced .* 3 faces', result.stdout)
    assert result.stdout.startswith('data set ferplus, split valid: ')
    assert '\n3 faces: neutral 1, happy 1, surprise 1, sad 0, ' in result.stdout
    assert '\nexcluded by the rules of ferplus: only single votes 1, ' in result.stdout
    for label in labels.FERPLUS:
        assert label in result.stdout
    assert (tmp_path / 'evaluation' / 'report.html').is_file()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('missing', 'dan_ferplus'), 'there is no data at missing'),
        (('.', 'missing.onnx'), "there is no model 'missing.onnx'"),
        (('.', 'missing.pth'), 'there is no checkpoint at missing.pth'),
        (('.', 'dan_ferplus'), 'has no folders named neutral'),
        (('.', 'yunet'), 'not a model of this package'),
        (
            ('.', 'dan_ferplus', '--dataset', 'ferplus'),
            'neither ferplus_valid.npz, nor fer2013.csv',
        ),
        (('.', 'dan_ferplus', '--dataset', 'rafdb'), 'no EmoLabel/list_patition_label.txt'),
        (('.', 'dan_ferplus', '--dataset', 'affectnet8'), 'no validation.csv'),
        (('.', 'dan_ferplus', '--dataset', 'fer2013'), 'no fer2013.csv'),
        (('.', 'dan_ferplus', '--dataset', 'sfew'), 'no folder val or test'),
        (('.', 'dan_ferplus', '--dataset', 'folder', '--split', 'train'), 'no folder train'),
        (('.', 'text.npz'), 'there is no model'),
        (('text.npz', 'dan_ferplus'), 'text.npz cannot be read as .npz'),
        (('.', 'text.safetensors'), 'text.safetensors is a text that begins with'),
        (('.', 'x.pth', '--backend', 'onnxruntime'), 'is a checkpoint, which runs only on torch'),
    ],
)
def test_invalid_input_is_one_line_that_names_it(run, tmp_path, arguments, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('text.npz', 'text.safetensors'):
        (tmp_path / name).write_text('neither')
    if 'text.npz' in arguments[1:]:
        (tmp_path / 'text.npz').unlink()
    result = run('evaluate', *arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / 'evaluation').exists()


@pytest.mark.usefixtures('no_figures')
def test_whole_photos_from_the_command_line(run, portrait, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos' / 'happy').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'photos' / 'happy' / '1.png'), portrait)
    result = run('evaluate', 'photos', 'dan_ferplus', '--detect', 'yunet', '--json')
    content = json.loads(result.stdout)
    assert (content['look'], content['accuracy']) == ('photo', 1.0)


@pytest.mark.usefixtures('no_figures')
def test_photos_without_a_face_are_listed(run, portrait, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, picture in (('happy/1.png', portrait), ('sad/2.png', np.zeros_like(portrait))):
        (tmp_path / 'photos' / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'photos' / name), picture)
    result = run('evaluate', 'photos', 'dan_ferplus', '--detect', 'yunet')
    assert result.exit_code == 1
    assert 'accuracy 50.00%' in result.stdout
    assert '1 image without a detected face:\n  photos/sad/2.png\n' in result.stderr
    assert result.stderr.endswith('Error: 1 of 2 images not classified; scores.json lists them\n')
    content = json.loads((tmp_path / 'evaluation' / 'scores.json').read_text())
    assert (content['not_judged'], content['faces']) == (1, 2)
    assert content['not_judged_images'] == ['photos/sad/2.png']


@pytest.mark.usefixtures('no_figures')
@pytest.mark.parametrize('as_json', [False, True])
def test_numbered_folders_need_a_name_and_are_explained(
    run, portrait, tmp_path, monkeypatch, as_json
):
    """A smile is in the folder of happiness of RAF-DB; the other folders are empty."""
    monkeypatch.chdir(tmp_path)
    for number in range(1, 8):
        (tmp_path / 'raf' / 'test' / str(number)).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'raf' / 'test' / '4' / 'a.png'), portrait[63:176, 166:279])
    result = run('evaluate', 'raf', 'dan_ferplus')
    assert (result.exit_code, result.stdout) == (1, '')
    assert '--dataset rafdb (4 is happy) or --dataset affectnet' in result.stderr
    assert not (tmp_path / 'evaluation').exists()
    options = ['--json'] if as_json else []
    result = run('evaluate', 'raf', 'dan_ferplus', '--dataset', 'rafdb', *options)
    assert result.exit_code == 0, result.stderr
    output = result.stderr if as_json else result.stdout
    assert output.startswith(
        'data set rafdb, split valid: class folders in raf/test\n'
        '1 face: surprise 0, fear 0, disgust 0, happy 1, sad 0, anger 0, neutral 0\n'
        'without a face: raf/test/1 (surprise), '
    )
    assert ('data set' in result.stdout) == (not as_json)
    content = json.loads((tmp_path / 'evaluation' / 'scores.json').read_text())
    assert content['accuracy'] == 1
    assert len(content['empty_folders']) == 6


def test_an_unwritable_folder_is_reported_before_the_evaluation(run, own_images, tmp_path):
    (tmp_path / 'file').touch()
    result = run('evaluate', own_images, 'dan_ferplus', '--out', tmp_path / 'file' / 'x')
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert 'file' in result.stderr
    assert result.stdout == ''


@pytest.mark.parametrize('name', ['a$\\b$', os.fsdecode(b'a\xff')])
def test_names_with_formulas_or_invalid_utf8_are_shown(run, own_images, tmp_path, name):
    model = tmp_path / f'{name}.onnx'
    model.write_bytes(store.read_model('dan_ferplus').content)
    data = own_images.rename(tmp_path / name)
    (data / 'happy' / 'broken.jpg').unlink()
    result = run('evaluate', data, model, '--out', tmp_path / 'out', '--json')
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content['model'], content['data']) == (str(model), str(data))
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert name.encode(errors='backslashreplace').decode() in page


# explain


def test_explain_draws_one_row_per_face(run, portrait_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run('explain', portrait_file)
    assert result.exit_code == 0, result.stderr
    assert 'happy' in result.stdout
    path = tmp_path / 'portrait_explained.png'
    assert is_figure(path)
    height, width = cv2.imread(str(path)).shape[:2]
    assert width > 4 * height  # the face, four heads, the probabilities


def test_explain_accepts_a_cropped_face(run, portrait, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite(str(tmp_path / 'eye.png'), portrait[90:130, 185:225])
    result = run('explain', 'eye.png')
    assert result.exit_code == 1
    assert 'no face is found' in result.stderr
    assert '--whole' in result.stderr
    assert run('explain', 'eye.png', '--whole').exit_code == 0


def test_explain_needs_float_weights_and_a_known_image_format(
    run, portrait_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = run('explain', portrait_file, '--model', 'dan_ferplus_int8')
    assert 'an fp32 or fp16 model' in result.stderr
    for name in ('results', 'x.foo'):
        result = run('explain', portrait_file, '--out', name)
        assert result.exit_code == 1
        assert 'unknown image format' in result.stderr
    assert not [p for p in tmp_path.iterdir() if p != portrait_file]


def test_explain_keeps_its_image(run, portrait_file):
    content = portrait_file.read_bytes()
    result = run('explain', portrait_file, '--out', portrait_file)
    assert result.exit_code == 1
    assert 'is the image itself' in result.stderr
    assert portrait_file.read_bytes() == content


def test_explain_names_a_missing_image(run, tmp_path):
    result = run('explain', tmp_path / 'missing.png')
    assert result.exit_code == 1
    assert result.stderr.endswith('missing.png: there is no such file\n')


def test_attention_maps_weight_the_pooling_of_the_heads(portrait):
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
