"""Recipes, learning rates, averaging of weights, augmentation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch import nn  # noqa: E402

from dan_ros.datasets.faces import Faces  # noqa: E402
from dan_ros.errors import ModelError, TrainingError  # noqa: E402
from dan_ros.network.dan import DAN  # noqa: E402
from dan_ros.train.augment import augmented_faces, mix, plain_faces  # noqa: E402
from dan_ros.train.data_loader import epoch_order  # noqa: E402
from dan_ros.train.ema import ModelEma, measure_batchnorm  # noqa: E402
from dan_ros.train.optimizer import build_optimizer, learning_rate  # noqa: E402
from dan_ros.train.pretrained import load_start  # noqa: E402
from dan_ros.train.recipe import Augmentation, Recipe, load_recipe, recipe_from_dict, recipe_to_dict

RECIPES = Path(__file__).parents[2] / 'recipes'
CPU = torch.device('cpu')
EVERYTHING = Augmentation(
    **{f.name: 1.0 for f in dataclasses.fields(Augmentation) if f.name.endswith('_chance')}
    | {'mixup_chance': 0.5, 'cutmix_chance': 0.5, 'contrast': (0.5, 1.5), 'gamma': (0.5, 2.0)}
)
NOTHING = Augmentation(flip_chance=0.0, affine_chance=0.0, erase_chance=0.0)


@pytest.mark.parametrize('name', ['rafdb', 'affectnet7', 'affectnet8', 'sfew', 'ferplus'])
def test_our_recipes_load_and_survive_a_round_trip(name):
    recipe = load_recipe(RECIPES / f'{name}.yaml')
    assert recipe.dataset == name
    assert recipe_from_dict(recipe_to_dict(recipe), 'again') == recipe


def test_rafdb_is_the_official_training():
    recipe = load_recipe(RECIPES / 'rafdb.yaml')
    assert (recipe.epochs, recipe.input_size, recipe.batch_size) == (40, 224, 256)
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ('sgd', 0.1, 1e-4)
    assert (recipe.affinity_weight, recipe.partition_weight) == (1.0, 1.0)
    assert learning_rate(recipe, 9.99) == 0.1
    assert learning_rate(recipe, 10) == pytest.approx(0.01)
    assert learning_rate(recipe, 39) == pytest.approx(1e-4)


def test_affectnet_is_the_official_training():
    recipe = load_recipe(RECIPES / 'affectnet8.yaml')
    assert (recipe.optimizer, recipe.class_balance, recipe.input_size) == ('adam', 1.0, 224)
    assert learning_rate(recipe, 2.5) == pytest.approx(1e-4 * 0.36)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'learning_rat': 1}, "did you mean 'learning_rate'"),
        ({'zzz': 1}, "has no 'zzz'; it has dataset"),
        ({'learning_rate': 'fast'}, "of type float, not 'fast'"),
        ({'batch_size': 1.5}, 'of type int, not 1.5'),
        ({'grey': 1}, 'of type bool'),
        ({'optimizer': 'lion'}, 'not one of sgd, adam, adamw'),
        ({'mean': [0.5]}, 'has to have 3 entries, not 1'),
        ({'mean': [0.5, float('nan'), 0.5]}, 'mean has to be'),
        ({'mean': [123.7, 116.3, 103.5]}, 'mean has to be'),
        ({'std': [float('nan')] * 3}, 'std has to be'),
        ({'std': [0, 1, 1]}, 'std has to be'),
        ({'stages': [[1, 16]]}, '>= 32 px'),
        ({'stages': [[1, 60000]]}, '<= 2048 px'),
        ({'stages': []}, 'stages is empty'),
        ({'augmentation': {'flip': 1}}, "did you mean 'flip_chance'"),
        ({'augmentation': {'flip_chance': 2}}, 'outside'),
        ({'augmentation': {'scale': [1.2, 0.8]}}, 'no range'),
        ({'augmentation': 3}, 'expected names and values'),
        ([1], 'expected names and values'),
        ({'warmup_epochs': 99}, 'below the epochs'),
    ],
)
def test_bad_recipes_are_one_clear_line(content, message):
    with pytest.raises(TrainingError, match=message) as error:
        recipe_from_dict(content, 'my.yaml')
    assert str(error.value).startswith('my.yaml')
    assert '\n' not in str(error.value)


def test_recipe_of_very_many_brackets_is_one_line(tmp_path):
    path = tmp_path / 'deep.yaml'
    path.write_text('[' * 20_000)
    with pytest.raises(TrainingError, match=r'deep\.yaml is no recipe') as error:
        load_recipe(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['stages', 'seed', 'dataset', 'augmentation'])
def test_a_value_that_aliases_made_huge_is_quoted_in_short(name):
    huge = ['x', 'x']
    for _ in range(22):  # 4 million parts, as a few lines of YAML make them
        huge = [huge, huge]
    with pytest.raises(TrainingError) as error:
        recipe_from_dict({name: huge}, 'bomb.yaml')
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    'text', ['a: [1', 'a:\tb: c', '\x00', 'seed: 2020-13-01', 'seed: !!int x', 'grey: !!bool x']
)
def test_recipe_that_is_no_yaml(tmp_path, text):
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(TrainingError, match='is no YAML') as error:
        load_recipe(path)
    assert '\n' not in str(error.value)


def test_recipe_that_is_not_there(tmp_path):
    with pytest.raises(TrainingError, match='no recipe can be read'):
        load_recipe(tmp_path / 'gone.yaml')


def test_cosine_rises_and_ends_at_zero():
    recipe = recipe_from_dict(
        {'schedule': 'cosine', 'stages': [[10, 64]], 'warmup_epochs': 2, 'learning_rate': 1.0}, ''
    )
    assert learning_rate(recipe, 1) == pytest.approx(0.5)
    assert learning_rate(recipe, 2) == pytest.approx(1.0)
    assert learning_rate(recipe, 6) == pytest.approx(0.5)
    assert learning_rate(recipe, 10) == pytest.approx(0.0)
    assert 0 < learning_rate(recipe, 0) < 0.01


def test_stages_follow_one_another():
    recipe = recipe_from_dict({'stages': [[2, 64], [1, 96]]}, '')
    assert [recipe.size_at(epoch) for epoch in range(3)] == [64, 64, 96]
    assert (recipe.epochs, recipe.input_size) == (3, 96)


def test_adamw_decays_matrices_alone():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = build_optimizer(recipe_from_dict({'optimizer': 'adamw'}, ''), [module])
    decays = {p: group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    assert [decays[p] > 0 for p in module.parameters()] == [True, False, False, False]


def test_average_follows_the_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = ModelEma(model, decay=0.9)
    nn.init.ones_(model.weight)
    average.update(model)  # the first steps reach back less: decay 2 / 11
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11)
    for _ in range(500):
        average.update(model)
    assert average.model.weight.item() == pytest.approx(1.0)


def test_batchnorm_is_measured_as_the_mean_over_batches():
    norm = nn.BatchNorm2d(1, momentum=0.1)
    norm.running_mean.fill_(77)
    batches = [torch.full((2, 1, 2, 2), value) for value in (1.0, 2.0, 6.0)]
    measure_batchnorm(norm, iter(batches), torch.autocast('cpu', enabled=False))
    assert norm.running_mean.item() == pytest.approx(3.0)
    assert norm.momentum == 0.1
    assert not norm.training


def pictures(count: int, side: int, channels: int) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('grey', [False, True])
def test_everything_at_once_gives_finite_faces(channels, grey):
    recipe = Recipe(grey=grey, augmentation=EVERYTHING)
    faces = pictures(5, 48, channels)
    before = faces.copy()
    x = augmented_faces(faces, 64, recipe, np.random.default_rng(1), CPU)
    assert (x.shape, x.dtype) == ((5, 3, 64, 64), torch.float32)
    assert x.isfinite().all()
    np.testing.assert_array_equal(faces, before)


def test_same_seed_same_faces():
    recipe = Recipe(augmentation=EVERYTHING)
    one, two = (
        augmented_faces(pictures(4, 48, 1), 64, recipe, np.random.default_rng(3), CPU)
        for _ in range(2)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize('size', [48, 96])
def test_without_changes_a_training_face_is_a_plain_one(size):
    recipe = Recipe(augmentation=NOTHING)
    faces = pictures(3, 48, 3)
    x = augmented_faces(faces, size, recipe, np.random.default_rng(0), CPU)
    torch.testing.assert_close(x, plain_faces(faces, size, recipe, CPU), atol=1e-4, rtol=1e-4)


def test_plain_faces_are_normalised_as_the_paper_has_it():
    faces = np.full((1, 32, 32, 3), [255, 0, 51], np.uint8)
    x = plain_faces(faces, 32, Recipe(), CPU)[0, :, 0, 0]
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(x, torch.tensor(expected))


def test_grey_recipes_see_luma():
    faces = np.full((1, 32, 32, 3), [255, 0, 0], np.uint8)
    x = plain_faces(faces, 32, Recipe(grey=True, mean=(0.5,) * 3, std=(0.25,) * 3), CPU)
    torch.testing.assert_close(x[0, :, 0, 0], torch.full((3,), (0.299 - 0.5) / 0.25))


@pytest.mark.parametrize('kind', ['mixup_chance', 'cutmix_chance'])
def test_mixing_mixes_targets_alike(kind):
    settings = dataclasses.replace(NOTHING, **{kind: 1.0}, mixup_alpha=1.0)
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
    assert load_start(target, path).startswith('ResNet-18')
    assert torch.equal(target.features[7][1].conv2.weight, source.features[7][1].conv2.weight)
    torch.save({'model_state_dict': source.state_dict()}, path)
    assert 'fresh classifier' in load_start(target, path)
    assert torch.equal(target.cat_head0.sa.conv1x1[0].weight, source.cat_head0.sa.conv1x1[0].weight)
    state = resnet_state(source)
    del state['layer2.0.bn1.bias']
    torch.save(state, path)
    with pytest.raises(ModelError, match='lacks 1 weights'):
        load_start(target, path)
    torch.save({'x': torch.zeros(1)}, path)
    with pytest.raises(ModelError, match='neither a DAN nor a ResNet-18'):
        load_start(target, path)
