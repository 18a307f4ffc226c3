"""Tests of the data modules: splits, binarization, order of the examples, several processes, broken files."""

import gzip
import inspect
import re
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import DATA, RandomImages, config, needs_mnist

from vaezoo.data import CIFAR10, KMNIST, MNIST, Batches, DataModule, Digits, ImageData, LazyExamples, Split
from vaezoo.data.images import bernoulli
from vaezoo.families import Bernoulli, DiscretizedLogistic


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def test_digits_are_those_of_scikit_learn_and_split():
    """1,257 + 180 + 360 of 1,797 images, no image in two splits, all ten digits in each split."""
    data = ready(Digits(val_size=180, binarize="none"))
    splits = (data.train, data.val, data.test)
    assert [len(s.x) for s in splits] == [1257, 180, 360]
    assert all(sorted(s.y.unique().tolist()) == list(range(10)) for s in splits)
    from sklearn.datasets import load_digits

    whole = load_digits().images.reshape(-1, 64)
    mine = torch.cat([s.x for s in splits]).reshape(-1, 64).float() * 16 / 255
    order = np.lexsort(whole.T), np.lexsort(mine.round().numpy().T)
    assert np.array_equal(whole[order[0]], mine.round().numpy()[order[1]])


def test_split_depends_on_split_seed_only():
    """The seed of the run changes the order of the examples, but neither the split nor the test bits."""
    a, b = (ready(Digits(val_size=180, seed=seed)) for seed in (0, 1))
    c = ready(Digits(val_size=180, split_seed=1))
    assert torch.equal(a.val.x, b.val.x)
    assert torch.equal(a.test.x, b.test.x)
    assert not torch.equal(a.val.y, c.val.y)
    assert not torch.equal(a.train_dataloader().batches.order(0), b.train_dataloader().batches.order(0))


def test_bits_have_the_probability_of_the_pixel():
    """P(bit) = pixel / 255: exact at 0 and 1, and within 5 standard errors in between."""
    pixels = torch.tensor([0, 1, 100, 254, 255], dtype=torch.uint8).repeat(200_000, 1)
    rate = bernoulli(pixels, torch.Generator().manual_seed(0)).float().mean(0)
    p = pixels[0].float() / 255
    assert rate[0] == 0
    assert rate[-1] == 1
    assert ((rate - p).abs() <= 5 * (p * (1 - p) / len(pixels)).sqrt()).all()


@pytest.mark.parametrize("binarize", ["dynamic", "static", "threshold", "none"])
def test_binarization(binarize):
    """``dynamic`` draws new bits in each epoch for training and fixed bits for evaluation; other modes are fixed."""
    data = ready(RandomImages((1, 6, 5), binarize=binarize))
    epoch = 0
    batches = data.train_dataloader().batches
    batches.epoch, batches.shuffle = lambda: epoch, False
    first = torch.cat([b.x for b in batches])
    again = torch.cat([b.x for b in batches])
    epoch = 1
    later = torch.cat([b.x for b in batches])
    assert torch.equal(first, again)
    assert torch.equal(first, later) == (binarize != "dynamic")
    if binarize == "none":
        assert first.max() > 0.5
        assert torch.equal((first * 255).round() / 255, first)
    else:
        assert ((first == 0) | (first == 1)).all()
    if binarize == "threshold":
        assert torch.equal(first, (data.read()[0].x[sorted_train(data)] > 127).float())
    assert data.mean.allclose(first.mean(0), atol=0.15 if binarize == "dynamic" else 1e-6)
    test = data.test_dataloader()
    assert torch.equal(torch.cat([b.x for b in test]), torch.cat([b.x for b in test]))


def sorted_train(data):
    from vaezoo import seeding

    order = torch.randperm(data.num, generator=seeding.generator(0, "split"))
    return order[data.val_size :].sort().values


def test_each_example_occurs_once_per_epoch():
    """The last batch may be smaller; each epoch has another order, which is the same for the same seed."""
    split = Split(torch.arange(103).reshape(-1, 1, 1, 1).to(torch.uint8), torch.arange(103))
    epoch = 0
    batches = Batches(split, 10, seed=3, shuffle=True, epoch=lambda: epoch)
    assert len(batches) == 11
    orders = []
    for turn in range(3):
        epoch = turn
        rows = [b.y for b in batches]
        assert [len(r) for r in rows] == [10] * 10 + [3]
        orders.append(torch.cat(rows))
        assert torch.equal(orders[-1].sort().values, torch.arange(103))
    assert not torch.equal(orders[0], orders[1])
    epoch = 0
    assert torch.equal(torch.cat([b.y for b in batches]), orders[0])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_the_examples(world):
    """In evaluation the batches are those of one process, in turn; in training all have equally many batches."""
    split = Split(torch.zeros(103, 1, 1, 1, dtype=torch.uint8), torch.arange(103))

    def parts(shuffle):
        return [Batches(split, 10, shuffle=shuffle, rank=r, world_size=world) for r in range(world)]

    for rank, part in enumerate(parts(False)):
        whole = list(torch.arange(103).split(10))[rank::world]
        assert [b.y.tolist() for b in part] == [y.tolist() for y in whole]
        assert len(part) == len(whole)
    training = parts(True)
    assert len({len(part) for part in training}) == len({len(part.order(0)) for part in training}) == 1
    assert len(torch.cat([part.order(0) for part in training]).unique()) == 103


@pytest.mark.parametrize(("world", "sizes"), [(1, [20]), (2, [10, 10]), (3, [6, 6, 6, 2]), (30, [1] * 20)])
def test_few_examples_are_shared_in_smaller_batches(world, sizes):
    """A process without a batch would wait for the others, or the others for it."""
    data = ready(RandomImages((1, 2, 2)))
    data.trainer = SimpleNamespace(global_rank=0, world_size=world, current_epoch=0)
    found = []
    for rank in range(min(world, len(sizes))):
        data.trainer.global_rank = rank
        found += [len(batch.x) for batch in data.val_dataloader()]
    assert sorted(found, reverse=True) == sizes


def test_config_has_the_defaults_of_the_class():
    """The exceptions are ``binarize`` and ``batches_per_step``, which are safe for any model and trainer in Python."""
    parameters = inspect.signature(DataModule.__init__).parameters | inspect.signature(ImageData.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if name != "kwargs"}
    node = config("data", "data=mnist")
    assert node.keys() - {"_target_"} == defaults.keys() - {"self", "seed"}
    same = node.keys() - {"_target_", "shape", "binarize", "batches_per_step"}
    assert {name: node[name] for name in same} == {name: defaults[name] for name in same}


def test_auto_is_resolved_by_the_likelihood():
    """``dynamic`` for a likelihood of bits only, else ``none``; without a likelihood an error, no guess."""
    for supported, expected in ((Bernoulli.supported_data, "dynamic"), (DiscretizedLogistic.supported_data, "none")):
        data = RandomImages((1, 2, 2), binarize="auto")
        with pytest.raises(ValueError, match=r"data.binarize=auto depends on the likelihood: .* dynamic, static"):
            data.setup()
        assert data.resolve_binarize(supported) == data.binarize == expected
    assert RandomImages((1, 2, 2), binarize="static").resolve_binarize({"byte"}) == "static"


def test_training_set_in_its_own_order():
    """A pass over the training set outside of a training: order of the split, one process, bits of epoch 0."""
    data = ready(RandomImages((1, 2, 2)))
    batches = data.batches(data.train, 40, train=True)
    x = torch.cat([batch.x for batch in batches])
    assert torch.equal(torch.cat([batch.y for batch in batches]), data.train.y)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x, torch.cat([batch.x for batch in batches]))


@needs_mnist
def test_mnist_is_the_published_one():
    """59,000 + 1,000 + 10,000 images, the published test labels, and the known log-likelihood of independent pixels."""
    data = ready(MNIST(root=str(DATA), shape=[1, 28, 28]))
    assert [len(s.x) for s in (data.train, data.val, data.test)] == [59000, 1000, 10000]
    assert data.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # Independent-pixel Bernoulli at the training mean: 206.06 nats on grey pixels, as on fair bits of them.
    p = data.mean.clamp(1e-3, 1 - 1e-3)
    x = torch.cat([b.x for b in data.test_dataloader()])
    nats = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3)).mean()
    assert abs(float(nats) - 206.1) < 0.5


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read(tmp_path, monkeypatch, compressed):
    """torchvision's folder layout is read from any root, with or without the compressed files."""
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, num in (("train", 50), ("t10k", 20)):
        images = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, num, dtype=np.uint8)
        content = struct.pack(">IIII", 2051, num, 28, 28) + images.tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(content)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, num) + labels.tobytes())
        if compressed:
            (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(KMNIST, "sizes", (50, 20))
    data = ready(KMNIST(root=str(tmp_path), val_size=10, batch_size=8, binarize="none"))
    assert data.shape == (1, 28, 28)
    assert np.array_equal(data.test.x[:, 0].numpy(), images)


def test_color_images_become_channels_first():
    """torchvision's CIFAR-10 is a numpy array (N, H, W, C) with a list of labels."""
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 30, 3), dtype=np.uint8)
    split = CIFAR10.to_split(SimpleNamespace(data=images, targets=[3, 1, 4, 1, 5]))
    assert split.x.shape == (5, 3, 32, 30)
    assert split.x.is_contiguous()
    assert np.array_equal(split.x[2, 1].numpy(), images[2, :, :, 1])
    assert split.y.tolist() == [3, 1, 4, 1, 5]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "data.batch_size must be >= 1"),
        ({"val_size": 120}, "leaves nothing of 120"),
        ({"binarize": "dynmic"}, "data.binarize=dynmic is not one of auto, dynamic, static, threshold, none"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        ready(RandomImages((1, 4, 4), **settings))


def test_a_small_training_set_is_one_batch(capsys):
    data = RandomImages((1, 4, 4), batch_size=101)
    data.setup("fit")
    assert capsys.readouterr().out == "batch_size=101: the 100 training images are one batch\n"
    whole = ready(RandomImages((1, 4, 4), batch_size=100))
    assert capsys.readouterr().out == ""
    ((batch,), (same,)) = (list(d.train_dataloader()) for d in (data, whole))
    assert torch.equal(batch.x, same.x)
    assert torch.equal(batch.y, same.y)


IMAGES = torch.arange(6 * 16).reshape(6, 1, 4, 4).to(torch.uint8)
LABELS = torch.arange(6)
WITH_NAN = IMAGES / 255
WITH_NAN[4, 0, 1, 2] = torch.nan


class Own(ImageData):
    """A user's own data module: training and test set are its arguments."""

    def __init__(self, train, test=None):
        super().__init__(val_size=1, batch_size=2, binarize="none")
        self.parts = train if test is None else (train, test)

    def read(self):
        return self.parts


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (WITH_NAN, "hold NaN or infinity in row 4: repair or remove that image"),
        (IMAGES.numpy(), "are a ndarray: give a tensor, for example torch.from_numpy"),
        (IMAGES / 255, "are torch.float32 in [0, 0.372549]: multiply by 255 and convert to uint8, (255 * images)"),
        (IMAGES > 50, "are torch.bool in [0, 1]: multiply by 255 and convert to uint8"),
        (IMAGES / 127.5 - 1, "are torch.float32 in [-1, -0.254902]: scale to 0 ... 255 and convert to uint8"),
        (IMAGES.int() * 257, "are torch.int32 in [0, 24415]: scale to 0 ... 255 and convert to uint8"),
        (IMAGES.long(), "are torch.int64 in [0, 95]: convert to uint8, images.round().to(torch.uint8)"),
        (IMAGES[:, 0], "have the shape (6, 4, 4): give (N, C, H, W)"),
        (IMAGES[:0], "holds no images, its shape is (0, 1, 4, 4): give at least one"),
    ],
)
@pytest.mark.parametrize("name", ["training", "test"])
def test_wrong_images_are_refused(images, words, name):
    """The message names the class, the set, the fault and the remedy, and the row of a broken image."""
    wrong, right = Split(images, LABELS[: len(images)]), Split(IMAGES, LABELS)
    data = Own(wrong, right) if name == "training" else Own(right, wrong)
    with pytest.raises(ValueError, match=f"the {name} set of Own.read") as refusal:
        data.setup()
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "set of Own.read() are a NoneType: give a tensor with a row for each image, torch.zeros(6)"),
        (LABELS[:5], "have the shape (5,), but there are 6 images: give one row for each image"),
        (torch.tensor(3), "have the shape (), but there are 6 images"),
        (["cat"] * 6, "are a list of 6: give a tensor"),
        (LABELS.numpy(), "are a ndarray: give a tensor"),
    ],
)
def test_wrong_labels_are_refused(labels, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Own(Split(IMAGES, labels), Split(IMAGES, LABELS)).setup()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (Split(IMAGES, LABELS), "training set of Own.read() is a torch.uint8 tensor of shape (6, 1, 4, 4): return"),
        (IMAGES, "Own.read() returned a torch.uint8 tensor of shape (6, 1, 4, 4): return two Split(images, labels)"),
        ((Split(IMAGES, LABELS),) * 4, "Own.read() returned a tuple of 4: return two"),
        ((Split(IMAGES, LABELS), (IMAGES, LABELS, LABELS)), "the test set of Own.read() is a tuple of 3"),
        ((Split(IMAGES, LABELS), Split(IMAGES[..., 1:], LABELS)), "shape (1, 4, 4) and test images of shape (1, 4, 3)"),
    ],
)
def test_result_of_read_is_checked(parts, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Own(parts).setup()


def test_plain_pairs_are_splits():
    data = Own((IMAGES, LABELS), [IMAGES, LABELS])
    data.setup()
    assert [len(split.x) for split in (data.train, data.val, data.test)] == [5, 1, 6]


def test_lazy_images_are_checked_by_the_first_one():
    """The others are not made for the check."""
    made = []

    def make(index):
        made.extend(index.tolist())
        return IMAGES[index] / 255

    with pytest.raises(ValueError, match=r"are torch.float32 in \[0, 0.05"):
        Own(Split(LazyExamples(make, LABELS), LABELS), Split(IMAGES, LABELS)).setup()
    assert set(made) == {0}


def test_download_without_network(tmp_path, monkeypatch):
    """The message has the flag, the reason and the bundled alternative."""
    from torchvision.datasets import mnist

    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(mnist, "download_and_extract_archive", no_network)
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*no route to host.*data=digits"):
        KMNIST(root=str(tmp_path / "none")).prepare_data()


def test_importing_vaezoo_is_light():
    """`import vaezoo` pulls in neither torch nor Lightning: --help stays quick."""
    import subprocess

    code = "import sys, vaezoo.cli; sys.exit(any(m in sys.modules for m in ('torch', 'lightning', 'wandb')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_are_copied_to_the_gpu_if_they_fit(monkeypatch, capsys):
    """The choice is automatic and printed, and can be set. (Without a GPU the rule is tested, not the copy.)"""
    data, moved = ready(RandomImages((1, 6, 5))), []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: moved.append(device) or self)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)))
    size = data.train.x.nbytes
    for free, wish, expected in [(3 * size, None, 2), (size, None, 0), (size, True, 2), (3 * size, False, 0)]:
        moved.clear()
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        data.on_device = wish
        data.to_training_device(data.train)
        assert len(moved) == expected
        assert ("are on cuda:0" in capsys.readouterr().out) == bool(expected)
    data.trainer.strategy.root_device = torch.device("cpu")
    assert data.to_training_device(data.train) is data.train


def idx_files(raw, sizes=(5, 3)):
    """A small data set in MNIST's format."""
    raw.mkdir(parents=True)
    for part, num in zip(("train", "t10k"), sizes, strict=True):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, num, 28, 28) + bytes(784 * num))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, num) + bytes([9] * num))


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-7], "its 3,929 bytes cannot be read"),
        ("train-images-idx3-ubyte", lambda b: b + b"0", "its 3,937 bytes cannot be read"),
        ("train-images-idx3-ubyte", lambda b: b"", "its 0 bytes cannot be read"),
        ("t10k-images-idx3-ubyte", lambda b: b"\0\0\7\3" + b[4:], "its 2,368 bytes cannot be read"),
        ("t10k-images-idx3-ubyte", lambda b: b"\0\0\x0d\3" + b[4:], "bytes cannot be read"),
        ("t10k-images-idx3-ubyte", lambda b: struct.pack(">IIII", 2051, 3, 14, 56) + b[16:],
         r"it holds \(3, 14, 56\) values and should hold \(3, 28, 28\)"),
        ("train-labels-idx1-ubyte", lambda b: struct.pack(">II", 2049, 4) + b[8:-1], r"holds \(4,\) values"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\xc8", "a label is 200 and should be one of 0 to 9"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0a", "a label is 10 and"),
    ],
)  # fmt: skip
def test_broken_idx_file_is_named(tmp_path, monkeypatch, name, spoil, words):
    """Files that are truncated, too long, of another kind or with wrong labels; the intact file is read."""
    monkeypatch.setattr(MNIST, "sizes", (5, 3))
    file = tmp_path / "MNIST" / "raw" / name
    idx_files(file.parent)
    data = MNIST(root=str(tmp_path))
    data.prepare_data()
    assert [split.x.shape[0] for split in data.read()] == [5, 3]
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"{file} is not MNIST's file, .*{words}.*: delete it, and it is downloaded"):
        data.read()


def test_broken_cifar_file_is_named(tmp_path):
    for name in CIFAR10.files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="cifar-10-batches-py/data_batch_1 is not CIFAR10's file, its checksum is ano"):
        CIFAR10(root=str(tmp_path)).read()


def test_download_is_complete_or_leaves_nothing(tmp_path, monkeypatch):
    """Existing files stay unchanged; without a network no folder is created."""
    from torchvision.datasets import mnist

    monkeypatch.setattr(KMNIST, "sizes", (5, 3))
    data = KMNIST(root=str(tmp_path / "a" / "root"))

    def fails_late(url, download_root, filename, md5):
        Path(download_root, filename).write_bytes(b"a part")
        raise OSError("no route to host")

    monkeypatch.setattr(mnist, "download_and_extract_archive", fails_late)
    with pytest.raises(FileNotFoundError, match="no route to host"):
        data.prepare_data()
    assert list(tmp_path.iterdir()) == []

    idx_files(tmp_path / "source")

    def works(url, download_root, filename, md5):
        name = filename.removesuffix(".gz")
        Path(download_root, name).write_bytes((tmp_path / "source" / name).read_bytes())

    monkeypatch.setattr(mnist, "download_and_extract_archive", works)
    raw = tmp_path / "a" / "root" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 3) + b"\1\2\3")
    data.prepare_data()
    assert len(list(raw.iterdir())) == 4
    assert data.read()[1].y.tolist() == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "a" / "root").iterdir()) == ["KMNIST"]
