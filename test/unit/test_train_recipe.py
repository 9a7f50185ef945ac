# SPDX-License-Identifier: Apache-2.0
"""Recipes, learning rates, averaging of weights, augmentation, pretrained weights."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch import nn  # noqa: E402

from dan_ros.datasets.faces import Faces  # noqa: E402
from dan_ros.errors import ModelError, TrainingError  # noqa: E402
from dan_ros.network.dan import DAN  # noqa: E402
from dan_ros.storage.settings_file import check_settings  # noqa: E402
from dan_ros.train.augment import augmented_faces, mix, plain_faces  # noqa: E402
from dan_ros.train.data_loader import epoch_order  # noqa: E402
from dan_ros.train.ema import ModelEma  # noqa: E402
from dan_ros.train.optimizer import build_optimizer, build_scheduler  # noqa: E402
from dan_ros.train.pretrained import load_pretrained  # noqa: E402
from dan_ros.train.recipe import Augmentation, Recipe, load_recipe  # noqa: E402

RECIPES = Path(__file__).parents[2] / 'recipes'
CPU = torch.device('cpu')
EVERYTHING = Augmentation(
    **{name: 1.0 for name in Augmentation.model_fields if name.endswith('_chance')}
    | {'mixup_chance': 0.5, 'cutmix_chance': 0.5, 'contrast': (0.5, 1.5), 'gamma': (0.5, 2.0)}
)
NOTHING = Augmentation(flip_chance=0.0, affine_chance=0.0, erase_chance=0.0)


def learning_rates(recipe: Recipe, epochs: Iterable[int], steps: int = 1) -> list[float]:
    """Rates of all steps in the epochs, as torch's scheduler sets them."""
    optimizer = build_optimizer(recipe, [nn.Linear(1, 1)])
    rates = []
    for epoch in epochs:
        scheduler = build_scheduler(optimizer, recipe, epoch, steps)
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            scheduler.step()
    return rates


@pytest.mark.parametrize('name', sorted(path.stem for path in RECIPES.glob('*.yaml')))
def test_the_recipes_of_the_package_survive_a_round_trip(name):
    recipe = load_recipe(RECIPES / f'{name}.yaml')
    assert name.startswith(recipe.dataset)
    assert Recipe.model_validate(recipe.model_dump(mode='json')) == recipe


def test_rafdb_is_the_official_training():
    recipe = load_recipe(RECIPES / 'rafdb.yaml')
    assert (recipe.epochs, recipe.input_size, recipe.batch_size) == (40, 224, 256)
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ('sgd', 0.1, 1e-4)
    assert (recipe.affinity_weight, recipe.partition_weight) == (1.0, 1.0)
    assert learning_rates(recipe, [9, 10, 39]) == pytest.approx([0.1, 0.01, 1e-4])


def test_affectnet_is_the_official_training():
    recipe = load_recipe(RECIPES / 'affectnet8.yaml')
    assert (recipe.optimizer, recipe.class_balance, recipe.input_size) == ('adam', 1.0, 224)
    assert learning_rates(recipe, [2]) == pytest.approx([1e-4 * 0.36])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'learning_rat': 1}, "did you mean 'learning_rate'"),
        ({'zzz': 1}, "unknown key 'zzz'; known are dataset"),
        ({'learning_rate': 'fast'}, "learning_rate: must be a valid number, found 'fast'"),
        ({'batch_size': 1.5}, 'batch_size: must be a valid integer, found 1.5'),
        ({'grey': 1}, 'grey: must be a valid boolean, found 1'),
        ({'optimizer': 'lion'}, "optimizer: must be 'sgd', 'adam' or 'adamw', found 'lion'"),
        ({'mean': [0.5]}, 'mean.1: Field required'),
        ({'mean': [0.5, float('nan'), 0.5]}, 'mean.1: must be a finite number'),
        ({'mean': [123.7, 116.3, 103.5]}, 'mean must be three numbers'),
        ({'std': [float('nan')] * 3}, 'std.0: must be a finite number'),
        ({'std': [0, 1, 1]}, 'std must be three numbers'),
        ({'stages': [[1, 16]]}, 'stages.0.1: must be greater than or equal to 32, found 16'),
        ({'stages': [[1, 60000]]}, 'stages.0.1: must be less than or equal to 2048'),
        ({'stages': []}, 'stages: .* at least 1 item'),
        ({'augmentation': {'flip': 1}}, "did you mean 'flip_chance'"),
        ({'augmentation': {'flip_chance': 2}}, 'augmentation.flip_chance: must be less'),
        ({'augmentation': {'scale': [1.2, 0.8]}}, 'augmentation.scale: must be .*low <= high'),
        ({'augmentation': 3}, 'augmentation: must be a valid dictionary'),
        ([1], 'must be a valid dictionary'),
        ({'second_opinion': 0.5}, 'second_opinion needs the data set ferplus, found rafdb'),
        ({'best_by': 'f1'}, "best_by: must be 'accuracy' or 'balanced_accuracy', found 'f1'"),
        ({'warmup_epochs': 99}, 'warmup_epochs must be below the 40 epochs'),
        ({'augmentation': {'mixup_chance': 0.6, 'cutmix_chance': 0.6}}, 'at most 1'),
        (
            {'augmentation': {'jpeg_quality': [30, 101]}},
            'jpeg_quality.1: must be less',
        ),
        ({'dataset': 'ck'}, 'dataset: must be one of ferplus, rafdb'),
        ({'seed': -1}, 'seed: must be greater than or equal to 0'),
        ({'learning_rate': float('inf')}, 'learning_rate: must be a finite number'),
        ({'learning_rate': '1e-3'}, "found '1e-3'; YAML takes it for text: write it like 1.0e-3"),
        ({'average_decay': 1}, 'average_decay: must be less than 1'),
        ({1: 2}, 'Keys should be strings'),
    ],
)
def test_invalid_recipes_are_refused_in_one_line(content, message):
    with pytest.raises(TrainingError, match=message) as error:
        check_settings(Recipe, content, 'my.yaml', TrainingError)
    assert str(error.value).startswith('my.yaml')
    assert '\n' not in str(error.value)


def test_a_deeply_nested_recipe_is_refused_in_one_line(tmp_path):
    path = tmp_path / 'deep.yaml'
    path.write_text('[' * 1_000)
    with pytest.raises(TrainingError, match=r'deep\.yaml .*: YAML nesting is too deep') as error:
        load_recipe(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['stages', 'seed', 'dataset', 'augmentation'])
def test_a_value_that_aliases_make_huge_is_cut(name):
    huge = ['x', 'x']
    for _ in range(22):  # expands to 4 million items, as a few lines of YAML can
        huge = [huge, huge]
    with pytest.raises(TrainingError) as error:
        check_settings(Recipe, {name: huge}, 'bomb.yaml', TrainingError)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    'text', ['a: [1', 'a:\tb: c', '\x00', 'seed: 2020-13-01', 'seed: !!int x', 'grey: !!bool x']
)
def test_a_recipe_that_is_not_yaml(tmp_path, text):
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(TrainingError, match='is not valid YAML') as error:
        load_recipe(path)
    assert '\n' not in str(error.value)


def test_a_missing_recipe(tmp_path):
    with pytest.raises(TrainingError, match='cannot be read'):
        load_recipe(tmp_path / 'gone.yaml')


def test_cosine_rises_and_ends_at_zero():
    recipe = Recipe(schedule='cosine', stages=((10, 64),), warmup_epochs=2, learning_rate=1.0)
    assert learning_rates(recipe, [0, 1, 2, 6]) == pytest.approx([0.005, 0.5, 1.0, 0.5])
    rates = learning_rates(recipe, range(10), steps=4)
    assert rates[1:4] == pytest.approx([0.125, 0.25, 0.375])  # rates during the warm-up
    assert rates[-1] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7.75 / 8)))


def test_stages_follow_one_another():
    recipe = Recipe(stages=((2, 64), (1, 96)))
    assert [recipe.size_at(epoch) for epoch in range(3)] == [64, 64, 96]
    assert (recipe.epochs, recipe.input_size) == (3, 96)


def test_adamw_decays_only_matrices():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = build_optimizer(Recipe(optimizer='adamw'), [module])
    decays = {p: group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    assert [decays[p] > 0 for p in module.parameters()] == [True, False, False, False]


def test_average_follows_the_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = ModelEma(model, decay=0.25)
    nn.init.ones_(model.weight)
    expected = 0.0
    for past in (2 / 11, 3 / 12, 0.25, 0.25):  # (1 + n) / (10 + n), at most the decay
        ema.update_parameters(model)
        expected = past * expected + (1 - past)
        assert ema.module.weight.item() == pytest.approx(expected)
    assert ema.steps == 4
    assert not ema.module.training


def test_average_includes_batchnorm_and_copies_its_counter():
    model = nn.BatchNorm1d(1)
    ema = ModelEma(model, decay=0.9)
    model.running_mean.fill_(11.0)
    model.num_batches_tracked.fill_(7)
    ema.update_parameters(model)
    assert ema.module.running_mean.item() == pytest.approx(9.0)  # 11 * (1 - 2 / 11)
    assert ema.module.num_batches_tracked.item() == 7


def images(count: int, side: int, channels: int) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('grey', [False, True])
def test_everything_at_once_gives_finite_faces(channels, grey):
    recipe = Recipe(grey=grey, augmentation=EVERYTHING)
    faces = images(5, 48, channels)
    before = faces.copy()
    x = augmented_faces(faces, 64, recipe, np.random.default_rng(1), CPU)
    assert (x.shape, x.dtype) == ((5, 3, 64, 64), torch.float32)
    assert x.isfinite().all()
    np.testing.assert_array_equal(faces, before)


def test_same_seed_same_faces():
    recipe = Recipe(augmentation=EVERYTHING)
    one, two = (
        augmented_faces(images(4, 48, 1), 64, recipe, np.random.default_rng(3), CPU)
        for _ in range(2)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize('size', [48, 96])
def test_without_changes_a_training_face_is_a_plain_one(size):
    recipe = Recipe(augmentation=NOTHING)
    faces = images(3, 48, 3)
    x = augmented_faces(faces, size, recipe, np.random.default_rng(0), CPU)
    torch.testing.assert_close(x, plain_faces(faces, size, recipe, CPU), atol=1e-4, rtol=1e-4)


def test_plain_faces_are_normalized_as_in_the_paper():
    faces = np.full((1, 32, 32, 3), [255, 0, 51], np.uint8)
    x = plain_faces(faces, 32, Recipe(), CPU)[0, :, 0, 0]
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(x, torch.tensor(expected))


def test_grey_recipes_see_luma():
    faces = np.full((1, 32, 32, 3), [255, 0, 0], np.uint8)
    x = plain_faces(faces, 32, Recipe(grey=True, mean=(0.5,) * 3, std=(0.25,) * 3), CPU)
    torch.testing.assert_close(x[0, :, 0, 0], torch.full((3,), (0.299 - 0.5) / 0.25))


@pytest.mark.parametrize('kind', ['mixup_chance', 'cutmix_chance'])
def test_mixing_mixes_the_targets_equally(kind):
    settings = NOTHING.model_copy(update={kind: 1.0, 'mixup_alpha': 1.0})
    classes = torch.arange(6)
    faces = classes.float()[:, None, None, None].expand(6, 3, 32, 32).contiguous()
    mixed, targets = mix(faces, torch.eye(6), settings, np.random.default_rng(0))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))
    # Each face is filled with its class's number, so its mean is the targets' mean class.
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets @ classes.float())
    assert (targets.max(dim=1).values < 1).any()


def unbalanced_faces() -> Faces:
    classes = np.repeat([0, 1], [900, 100])
    return Faces(('neutral', 'happy'), np.eye(2, dtype=np.float32)[classes], classes, None)


def test_order_takes_each_face_once_and_differs_by_epoch():
    faces, recipe = unbalanced_faces(), Recipe()
    orders = [epoch_order(faces, recipe, epoch) for epoch in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(1000))
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()


def test_balanced_order_draws_every_class_equally_often():
    faces = unbalanced_faces()
    order = epoch_order(faces, Recipe(class_balance=1.0), 0)
    assert 430 < (faces.classes[order] == 1).sum() < 570


def resnet_state(dan: DAN) -> dict:
    names = {'0': 'conv1', '1': 'bn1', '4': 'layer1', '5': 'layer2', '6': 'layer3', '7': 'layer4'}
    state = {'fc.weight': torch.zeros(1000, 512)}
    for name, value in dan.features.state_dict().items():
        stage, _, rest = name.partition('.')
        state[f'{names[stage]}.{rest}'] = value.clone()
    return state


def test_starts_from_a_resnet18_or_another_dan(tmp_path):
    source, target = DAN(num_class=7, num_head=1), DAN(num_class=8, num_head=1)
    path = tmp_path / 'resnet.pth'
    torch.save({'state_dict': resnet_state(source)}, path)
    assert load_pretrained(target, path).startswith('ResNet-18')
    assert torch.equal(target.features[7][1].conv2.weight, source.features[7][1].conv2.weight)
    torch.save({'model_state_dict': source.state_dict()}, path)
    assert 'new classifier' in load_pretrained(target, path)
    assert torch.equal(target.cat_head0.sa.conv1x1[0].weight, source.cat_head0.sa.conv1x1[0].weight)
    torch.save(DAN(num_class=8, num_head=2).state_dict(), path)
    assert re.search(r'without \d+ weights, such as cat_head1', load_pretrained(target, path))
    state = source.state_dict()
    del state['fc.weight'], state['fc.bias']
    torch.save(state, path)
    assert 'new classifier' in load_pretrained(target, path)
    state = resnet_state(source)
    del state['layer2.0.bn1.bias']
    torch.save(state, path)
    with pytest.raises(ModelError, match='lacks 1 weight'):
        load_pretrained(target, path)
    torch.save({'x': torch.zeros(1)}, path)
    with pytest.raises(ModelError, match='neither a DAN nor a ResNet-18'):
        load_pretrained(target, path)
