# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints, and `dan-ros convert` and `export`."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from seeded import normalize, relative_difference, seeded_dan, seeded_images

from dan_ros.cli.main import cli
from dan_ros.errors import DanError, ModelError
from dan_ros.labels import AFFECTNET8, FERPLUS
from dan_ros.model.normalization import check_normalization
from dan_ros.model.store import read_model
from dan_ros.network.checkpoint import fuse_checkpoint, load_dan, read_notes


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """A checkpoint as the official training script saves it, with its optimizer's state."""
    dan = seeded_dan(num_head=2)
    optimizer = torch.optim.SGD(dan.parameters(), lr=0.1, momentum=0.9)
    dan.train()
    dan(torch.randn(2, 3, 64, 64))[0].sum().backward()
    optimizer.step()
    path = tmp_path_factory.mktemp('official') / 'affecnet8_epoch5_acc0.6209.pth'
    torch.save(
        {
            'iter': 5,
            'model_state_dict': dan.state_dict(),
            'optimizer_state_dict': optimizer.state_dict(),
        },
        path,
    )
    return dan.eval(), path


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A checkpoint with a single head and without an optimizer."""
    path = tmp_path_factory.mktemp('small') / 'small.pth'
    torch.save(seeded_dan(num_head=1).state_dict(), path)
    return path


def assert_same(dan, other):
    for name, value in dan.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_official_format(official):
    dan, path = official
    assert_same(dan, load_dan(path))


def test_bare_parallel_and_safetensors(tmp_path):
    dan = seeded_dan(num_class=7, num_head=1)
    torch.save({f'module.{k}': v for k, v in dan.state_dict().items()}, tmp_path / 'parallel.pth')
    torch.save(dan.state_dict(), tmp_path / 'bare.pth')
    save_file(dan.state_dict(), tmp_path / 'safe.safetensors')
    for name in ('parallel.pth', 'bare.pth', 'safe.safetensors'):
        assert_same(dan, load_dan(tmp_path / name))


@pytest.mark.filterwarnings('ignore:.*torch.jit')
def test_files_that_are_not_checkpoints_are_refused_by_name(tmp_path):
    dan = seeded_dan(num_head=1)
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    (tmp_path / 'text.safetensors').write_text('not a checkpoint')
    (tmp_path / 'empty.pth').touch()
    torch.save({'features.0.weight': torch.zeros(1)}, tmp_path / 'resnet.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save({'fc.weight': torch.zeros(1000, 512)}, tmp_path / 'classifier.pth')
    torch.save({1: torch.zeros(1)}, tmp_path / 'numbers.pth')
    state = dan.state_dict()
    state['fc.weight'] = torch.zeros(8, 100)
    torch.save(state, tmp_path / 'shape.pth')
    torch.save({f'model.{k}': v for k, v in state.items()}, tmp_path / 'prefixed.pth')
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), tmp_path / 'script.pth')
    words = {'prefixed.pth': "is 'model.features.0.weight'", 'script.pth': r'torch\.jit\.load'}
    for path in [*tmp_path.iterdir(), tmp_path / 'missing.pth']:
        with pytest.raises(ModelError, match=f'{path.name}.*{words.get(path.name, "")}'):
            load_dan(path)


def test_a_pickle_that_runs_code_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / 'sprung'), 'w'))

    torch.save({'model_state_dict': Trap()}, tmp_path / 'trap.pth')
    with pytest.raises(ModelError):
        load_dan(tmp_path / 'trap.pth')
    assert not (tmp_path / 'sprung').exists()


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_convert_round_trip(official, tmp_path):
    dan, path = official
    output = tmp_path / 'new folder' / 'affectnet8.onnx'
    result = run('convert', path, '--labels', 'affectnet8', '-o', output)
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(str(output))
    assert session.get_inputs()[0].shape == ['N', 224, 224, 3]
    images = seeded_images(2, 224)
    (logits,) = session.run(None, {'faces': images})
    with torch.no_grad():
        assert relative_difference(logits, dan(normalize(images))[0]) <= 1e-4


def test_convert_keeps_its_checkpoint(small, tmp_path):
    content = small.read_bytes()
    result = run('convert', small, '--labels', 'affectnet8', '-o', small)
    assert result.exit_code == 2
    assert f'{small} would be a checkpoint: give a name that ends in .onnx' in result.stderr
    unusual = tmp_path / 'weights.ckpt'
    unusual.write_bytes(content)
    result = run('convert', unusual, '--labels', 'affectnet8', '-o', unusual)
    assert result.exit_code == 2
    assert f'it would replace {unusual}' in result.stderr
    assert small.read_bytes() == unusual.read_bytes() == content


def test_convert_refuses_labels_of_another_length(small, tmp_path):
    result = run('convert', small, '--labels', 'rafdb', '-o', tmp_path / 'x.onnx')
    assert isinstance(result.exception, DanError)
    assert '8 classes' in str(result.exception)
    assert not (tmp_path / 'x.onnx').exists()


@pytest.mark.parametrize(
    'option',
    [
        '--std 0 0 0',
        '--std -1 1 1',
        '--std nan nan nan',
        '--std 1 nan 1',
        '--std inf inf inf',
        '--std 58.395 57.12 57.375',
        '--mean nan nan nan',
        '--mean 0 0 nan',
        '--mean 1e30 0 0',
        '--mean 123.675 116.28 103.53',
        '--crop-scale nan',
        '--crop-scale inf',
    ],
)
def test_convert_refuses_an_implausible_normalization(small, tmp_path, option):
    output = tmp_path / 'x.onnx'
    result = run('convert', small, '--labels', 'affectnet8', *option.split(), '-o', output)
    assert isinstance(result.exception, DanError)
    name = option.split()[0].strip('-').partition('-')[0]
    assert f'{name} ' in str(result.exception)
    assert not output.exists()


def test_common_normalizations_are_accepted():
    for mean, std in ((0.485, 0.229), (0.5, 0.5), (0.0, 1.0), (0.0, 1 / 255), (0.48, 1 / 255)):
        check_normalization((mean,) * 3, (std,) * 3)


@pytest.mark.parametrize('name', ['features.0.weight', 'cat_head1.sa.conv1x1.1.running_var'])
def test_a_checkpoint_of_a_training_that_diverged_is_refused(tmp_path, name):
    dan = seeded_dan(num_head=2)
    dan.state_dict()[name].view(-1)[0] = -1 if name.endswith('var') else torch.nan
    torch.save(dan.state_dict(), tmp_path / 'diverged.pth')
    output = tmp_path / 'x.onnx'
    result = run('convert', tmp_path / 'diverged.pth', '--labels', 'affectnet8', '-o', output)
    assert isinstance(result.exception, DanError)
    assert 'diverged.pth: the fused weights' in str(result.exception)
    assert not output.exists()


def test_export_to_full_precision_and_fixed_batch(tmp_path):
    output = tmp_path / 'full.onnx'
    result = run('export', 'dan_ferplus', '-o', output, '--batch', '2')
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(str(output))
    assert session.get_inputs()[0].shape == [2, 96, 96, 3]
    assert np.isfinite(session.run(None, {'faces': seeded_images(2, 96)})[0]).all()


@pytest.mark.parametrize(
    'notes',
    [
        {'labels': None},
        {'labels': 'neutral,happy'},
        {'input_size': '96'},
        {'mean': 'x'},
        {'std': [0.5, 0.5]},
        {'grey': 1},
        'no object',
    ],
)
def test_invalid_notes_are_named(tmp_path, notes):
    path = tmp_path / 'noted.safetensors'
    save_file({'weight': torch.zeros(1)}, path, {'dan_ros': json.dumps(notes)})
    with pytest.raises(ModelError, match=r'noted\.safetensors: its metadata'):
        read_notes(path)


@pytest.mark.parametrize('labels', [('happy',) * 8, ('x',) * 8])
def test_invalid_labels_in_the_notes_are_refused_by_file_name(tmp_path, labels):
    path = tmp_path / 'noted.safetensors'
    save_file(
        seeded_dan(num_head=1).state_dict(), path, {'dan_ros': json.dumps({'labels': labels})}
    )
    with pytest.raises(ModelError, match=r'noted\.safetensors: .*label'):
        fuse_checkpoint(path)


def test_what_a_checkpoint_was_trained_on_goes_into_the_file(tmp_path):
    notes = {'labels': list(FERPLUS), 'source': 'trained on faces'}
    state = seeded_dan(num_head=1).state_dict()
    save_file(state, tmp_path / 'a.safetensors', {'dan_ros': json.dumps(notes)})
    _, info = fuse_checkpoint(tmp_path / 'a.safetensors')
    assert info.source == 'trained on faces'
    assert info.labels == FERPLUS
    with pytest.raises(ModelError, match=r'was trained with the labels neutral, happy, surprise.*'):
        fuse_checkpoint(tmp_path / 'a.safetensors', labels=AFFECTNET8)


@pytest.mark.parametrize('name', ['evaluate', 'explain'])
def test_an_unknown_home_folder_is_named(portrait_file, tmp_path, name):
    model = '~nobody_of_this_name/m.pth'
    arguments = {
        'evaluate': (tmp_path, model, '--dataset', 'folder'),
        'explain': (portrait_file, '--model', model),
    }[name]
    result = run(name, *arguments, '--out', tmp_path / 'out.png')
    assert isinstance(result.exception, DanError), result.exception
    assert 'unknown home folder' in str(result.exception)


def test_explain_refuses_a_model_that_gives_no_numbers(portrait_file, tmp_path):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    (bias,) = (t for t in model.graph.initializer if t.name == 'classifier.bias')
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / 'odd.onnx')
    out = tmp_path / 'out.png'
    result = run('explain', portrait_file, '--model', tmp_path / 'odd.onnx', '--out', out)
    assert isinstance(result.exception, DanError), result.exception
    assert 'odd.onnx gives' in str(result.exception)
    assert not out.exists()


def test_a_pickled_model_says_what_to_do(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'whole.pth')
    with pytest.raises(ModelError, match=r'whole\.pth contains more than tensors.*state_dict'):
        load_dan(tmp_path / 'whole.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'<!DOCTYPE html><html><title>Google Drive - Virus scan warning', 'is a web page, not'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'is a Git LFS pointer.*git lfs pull'),
        (b'{"error": {"code": 403}}', 'is a JSON text'),
        (b'Quota exceeded', "is a text that begins with 'Quota exceeded'"),
        (b'PK\3\4' + bytes(26) + b'affecnet8.pth', 'is a ZIP archive.*unpack it'),
        (b'\x1f\x8b' + bytes(99), 'is a gzip archive.*unpack it'),
        (b'\x08\x08\x12\x07pytorch', 'is an ONNX model, not a checkpoint: .*dan-ros adopt'),
        (b'', 'is an empty file'),
    ],
)
def test_what_is_not_a_checkpoint_is_named(tmp_path, content, words, suffix):
    path = tmp_path / f'dan{suffix}'
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf'dan\{suffix} {words}') as error:
        load_dan(path)
    assert 'code' not in str(error.value).replace('"code"', '')


def test_a_cut_checkpoint_is_to_be_downloaded_again(official, tmp_path):
    path = tmp_path / 'cut.pth'
    for share in (0.01, 0.5, 0.99):
        content = official[1].read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ModelError, match=r'cut\.pth cannot be read.*download it again'):
            load_dan(path)


def test_the_content_decides_how_a_checkpoint_is_read(tmp_path):
    dan = seeded_dan(num_head=1)
    save_file(dan.state_dict(), tmp_path / 'safe.pth', {'dan_ros': '{"input_size": 96}'})
    torch.save(dan.state_dict(), tmp_path / 'pickled.safetensors')
    for name in ('safe.pth', 'pickled.safetensors'):
        assert_same(dan, load_dan(tmp_path / name))
    assert read_notes(tmp_path / 'safe.pth') == {'input_size': 96}
    assert read_notes(tmp_path / 'pickled.safetensors') == {}


def test_half_precision_checkpoints_become_float32(tmp_path):
    dan = seeded_dan(num_head=1)
    torch.save({k: v.half() for k, v in dan.state_dict().items()}, tmp_path / 'half.pth')
    loaded = load_dan(tmp_path / 'half.pth')
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = dan.fc.weight.half().float()
    assert torch.equal(loaded.fc.weight, expected)
