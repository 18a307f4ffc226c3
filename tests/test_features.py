"""The feature network: its accuracy, its determinism and its cache."""

import pytest
import torch
from conftest import DATA, RandomImages, needs_mnist

from vaezoo.data import MNIST, Digits, LazyExamples, Split, Sprites
from vaezoo.data.images import bernoulli
from vaezoo.evaluation.features import FeatureNet, features_for, train_features, with_labels

FEW = 2560  # images seen: 20 steps


@pytest.fixture(scope="module")
def digits():
    return Digits().read()


@pytest.fixture(scope="module")
def net(digits):
    return train_features(*digits, num_images=40_000)


def test_the_network_classifies_grey_and_binarized_digits(digits, net):
    """More than 97 % of held-out digits, as ``accuracy`` says, and more than 85 % if they are binarized."""
    test = digits[1]
    x = test.x / 255
    accuracy = (net.logits(x)[0].argmax(1) == test.y).double().mean()
    assert float(net.accuracy) == pytest.approx(float(accuracy), abs=1e-7)
    assert accuracy > 0.97
    bits = bernoulli(test.x, torch.Generator().manual_seed(0)).float()
    assert (net.logits(bits)[0].argmax(1) == test.y).double().mean() > 0.85


def test_features_are_standardized_and_independent_of_the_batch(digits, net):
    """Mean 0 and variance 1 over the training images; values outside [0, 1] are clipped."""
    x = digits[0].x / 255
    features = net(x)
    assert features.shape == (len(x), 64)
    assert features.mean(0).abs().max() < 1e-4
    assert (features.std(0) - 1).abs().max() < 1e-4
    assert torch.allclose(torch.cat([net(part) for part in x.split(7)]), features, atol=1e-4)
    assert torch.equal(net(x[:9] * 3 - 1), net((x[:9] * 3 - 1).clamp(0, 1)))
    assert not features.requires_grad


def test_training_is_a_function_of_its_seed(digits):
    """The digest depends on the seed alone, not on the global random state, which stays, nor on no_grad."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = train_features(*digits, num_images=FEW)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with torch.no_grad():
        assert train_features(*digits, num_images=FEW).digest == a.digest
    assert train_features(*digits, seed=1, num_images=FEW).digest != a.digest
    assert a.digest[:12] in a.describe()
    a.head.bias[0] += 1e-6
    assert a.digest[:12] != train_features(*digits, num_images=FEW).digest[:12]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 64, 64)])
def test_any_size(shape):
    net = FeatureNet(shape, [10])
    assert net(torch.rand(2, *shape)).shape == (2, 64)
    with pytest.raises(ValueError, match="sample features need images"):
        net(torch.rand(2, 1, 5, 5))


def test_each_factor_has_a_head():
    """On rendered images with factors as labels, each factor is learned well above chance."""
    data = Sprites()
    train, test = data.read()
    assert isinstance(train.x, LazyExamples)
    few = [split.select(torch.arange(500)) for split in (train, test)]
    net = train_features(*few, num_images=3_000)
    assert net.classes == list(data.factor_sizes)
    hits = [z.argmax(1) == y for z, y in zip(net.logits(few[0].x[:] / 255), few[0].y.T, strict=True)]
    chance = sum(1 / size for size in net.classes) / len(net.classes)
    assert torch.stack(hits).double().mean() > 1.3 * chance
    assert float(net.accuracy) > chance


def test_cache(tmp_path, monkeypatch):
    """The network is trained once, and again if the file is damaged or the images or the seed change."""
    trained = []

    def counted(*args):
        trained.append(args)
        return train_features(*args)

    monkeypatch.setattr("vaezoo.evaluation.features.train_features", counted)
    data = RandomImages((1, 8, 8))
    first = features_for(data, tmp_path / "nets", num_images=FEW)
    (path,) = (tmp_path / "nets").iterdir()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = features_for(RandomImages((1, 8, 8), binarize="threshold"), tmp_path / "nets", num_images=FEW)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(trained) == 1
    assert again.digest == first.digest
    assert again.accuracy == first.accuracy
    sound = path.read_bytes()
    broken = bytearray(sound)
    weights = sound.index(first.body[0].weight.numpy().tobytes())
    broken[weights] ^= 1
    for i, damage in enumerate((b"", sound[: len(sound) // 2], b"no archive", bytes(broken))):
        path.write_bytes(damage)
        assert features_for(data, tmp_path / "nets", num_images=FEW).digest == first.digest
        assert len(trained) == 2 + i
        assert path.read_bytes() != damage
    features_for(data, tmp_path / "nets", seed=1, num_images=FEW)
    features_for(RandomImages((1, 8, 8), num=121), tmp_path / "nets", num_images=FEW)
    assert len(trained) == 7
    assert len(list((tmp_path / "nets").iterdir())) == 3


def test_invalid_arguments_are_refused():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    split = Split(images, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="all images have the same label"):
        train_features(split, split)
    with pytest.raises(ValueError, match="num_images must be >= 1, got 0"):
        train_features(split, split, num_images=0)
    with pytest.raises(ValueError, match=r"need images \(C, H, W\), got shape \(5,\)"):
        FeatureNet((5,), [2])


@needs_mnist
def test_the_network_learns_mnist_quickly():
    """After 20,000 of the 180,000 training images, more than 96 % of a tenth of the test set."""
    train, test = MNIST(root=str(DATA)).read()
    net = train_features(train, test.select(torch.arange(0, 10_000, 10)), num_images=20_000)
    assert float(net.accuracy) > 0.96


def test_missing_labels_are_left_out(digits):
    """Images without a label (-1) do not change the network; without any label there is none."""
    train, test = (split.select(torch.arange(200)) for split in digits[:2])
    unlabelled = Split(torch.cat([train.x, train.x[:50]]), torch.cat([train.y, torch.full((50,), -1)]))
    kept = with_labels(unlabelled)
    assert torch.equal(kept.x, train.x)
    assert torch.equal(kept.y, train.y)
    assert with_labels(train) is train
    with pytest.raises(ValueError, match="need a classifier"):
        train_features(with_labels(Split(train.x, torch.full((200,), -1))), test)
