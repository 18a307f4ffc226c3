"""A small network whose features are used to compare images: trained from a seed and identified by its SHA-256."""

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from itertools import chain, count, islice
from math import ceil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.data import Batches, ImageData, Split
from vaezoo.nets.conv import downsampled_sizes

CPU = torch.device("cpu")
VERSION = 1  # of network and training: raise it with every change that leads to other weights
BATCH_SIZE = 128


class FeatureNet(nn.Module):
    """Compute 64 features of images: the last hidden layer of a convolutional classifier.

    Images have pixels in [0, 1], grey or colour; values outside are clipped. Half of the training images are binarized
    at random, so the network fits both binarized and grey images. Real and generated images must be of the same kind:
    the distance between grey and binarized images says nothing about a model.

    Features are taken before their activation, where none is stuck at 0. Each is standardized to mean 0 and variance 1
    over the first 10,000 training images without binarization, so distances are in these standard deviations. Numbers
    from two networks can be compared only if their digests are equal. The digest covers every bit of the weights, which
    another processor or another number of threads changes.

    Args:
        data_shape: shape of an image (C, H, W), any size; meant for 8x8 and larger.
        classes: number of classes of each factor; a single number for plain labels.
        channels: channels of each convolution.
    """

    num_features = 64
    loc: Tensor
    scale: Tensor
    accuracy: Tensor  # (): mean over factors on held-out images; NaN before training

    def __init__(self, data_shape: Sequence[int], classes: Sequence[int], channels: Sequence[int] = (16, 32, 64)):
        super().__init__()
        if len(data_shape) != 3:
            raise ValueError(f"sample features need images (C, H, W), got shape {tuple(data_shape)}")
        self.data_shape, self.classes = tuple(data_shape), list(classes)
        planes, height, width = self.data_shape
        blocks: list[nn.Module] = []
        for out_planes in channels:
            # GroupNorm normalizes each image by itself, so its features do not depend on the batch.
            blocks += [nn.Conv2d(planes, out_planes, 3, padding=1), nn.GroupNorm(4, out_planes), nn.ReLU()]
            blocks += [nn.MaxPool2d(2, ceil_mode=True)]
            planes = out_planes
        height, width = downsampled_sizes(height, width, len(channels))[-1]
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(planes * height * width, self.num_features))
        self.head = nn.Linear(self.num_features, sum(classes))
        self.register_buffer("loc", torch.zeros(self.num_features))
        self.register_buffer("scale", torch.ones(self.num_features))
        self.register_buffer("accuracy", torch.tensor(torch.nan))

    def logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """The logits of each factor's classes, (N, classes), from images (N, C, H, W)."""
        return self.head(F.relu(self.body(x.clamp(0, 1)))).split(self.classes, dim=1)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The features (N, 64) of images (N, C, H, W) in [0, 1]."""
        if x.shape[1:] != self.data_shape:
            raise ValueError(f"sample features need images {self.data_shape}, got a batch of shape {tuple(x.shape)}")
        return (self.body(x.to(self.loc.dtype).clamp(0, 1)) - self.loc) / self.scale

    @property
    def digest(self) -> str:
        """SHA-256 of all parameters and buffers, in hexadecimal digits."""
        state = hashlib.sha256()
        for name, value in self.state_dict().items():
            state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            state.update(value.cpu().contiguous().numpy().tobytes())
        return state.hexdigest()

    def describe(self) -> str:
        """Describe the features in one line, for the note below a table."""
        return (
            f"{self.num_features} features of a classifier trained here "
            f"(accuracy {float(self.accuracy):.4f} on held-out images, SHA-256 {self.digest[:12]})"
        )


def as_factors(labels: Tensor) -> Tensor:
    """Labels (N,) or factors (N, F), as factors (N, F)."""
    return labels.reshape(len(labels), -1)


def new_feature_net(train: Split) -> FeatureNet:
    """An untrained network for a split's images and labels, with one head for each factor."""
    classes = [int(largest) + 1 for largest in as_factors(train.y).amax(0)] if len(train.y) else [0]
    if max(classes) < 2:
        raise ValueError("sample features need a classifier, but all images have the same label")
    return FeatureNet(train.x.shape[1:], classes)


@torch.enable_grad()
def train_features(train: Split, test: Split, seed: int = 0, num_images: int = 180_000) -> FeatureNet:
    """Train a ``FeatureNet`` on the CPU: about a minute for MNIST on one core.

    The optimizer is AdamW with a learning rate that rises to 5e-3 and falls to 0. The loss is the cross-entropy, summed
    over factors. The result depends on the arguments alone; the caller's random states are not changed.

    Args:
        train: images as bytes (N, C, H, W) with labels (N,) or factors (N, F), counted from 0.
        test: held-out images and labels, for ``accuracy``.
        seed: seed of the first weights, the order of the images and their binarization.
        num_images: number of images seen in training, with repetitions; the default is three epochs of MNIST.

    Raises:
        ValueError: ``num_images`` is not positive, or all images have the same label.
    """
    if num_images < 1:
        raise ValueError(f"num_images must be >= 1, got {num_images}")
    num_steps = ceil(num_images / BATCH_SIZE)
    split = partial(Batches, to_model=lambda x, draw: x.float().div_(255), batch_size=BATCH_SIZE)
    epochs = (split(train, seed=seed, shuffle=True, epoch=partial(int, number)) for number in count())
    batches = islice(chain.from_iterable(epochs), num_steps)
    with seeding.isolated(CPU, seed, "features"):
        net = new_feature_net(train).to(memory_format=torch.channels_last)
        optimizer = AdamW(net.parameters(), lr=5e-3)
        schedule = OneCycleLR(optimizer, max_lr=5e-3, total_steps=num_steps)
        for x, y in tqdm(batches, "feature network", num_steps, leave=False, disable=None, delay=3):
            as_bits = torch.rand(len(x), 1, 1, 1) < 0.5
            x = torch.where(as_bits, torch.rand_like(x) < x, x)
            heads = zip(net.logits(x), as_factors(y).unbind(1), strict=True)
            loss = torch.stack([F.cross_entropy(logits, label) for logits, label in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.to(memory_format=torch.contiguous_format).requires_grad_(False)
    features = torch.cat([net(x) for x, _ in islice(split(train, batch_size=1000), 10)]).double()
    net.loc.copy_(features.mean(0))
    net.scale.copy_(features.std(0))
    hits = [
        torch.stack([z.argmax(1) for z in net.logits(x)], 1) == as_factors(y) for x, y in split(test, batch_size=1000)
    ]
    net.accuracy.copy_(torch.cat(hits).double().mean())
    return net


def with_labels(split: Split) -> Split:
    """Return the examples of a split whose labels are not missing (-1)."""
    known = (as_factors(split.y) >= 0).all(1)
    return split if known.all() else split.select(known.nonzero()[:, 0])


def features_for(data: ImageData, folder: str | Path, seed: int = 0, num_images: int = 180_000) -> FeatureNet:
    """Load the network for a data set from ``folder``; train and save it if it is not there.

    It is trained on the whole training set as it was read: bytes, whatever the run's binarization or validation split,
    so all runs on a data set share one network. Its file name is a fingerprint of the images (up to 10,000 of each
    split), the seed and ``VERSION``. A file that cannot be read is replaced.

    Args:
        data: prepared data; ``read`` is called.
        folder: folder of the trained networks; created if missing.
        seed: as in ``train_features``.
        num_images: as in ``train_features``.
    """
    train, *_, test = map(with_labels, data.read())
    path = Path(folder, f"{type(data).__name__}-{fingerprint(train, test, VERSION, seed, num_images)[:16]}.pt")
    if (saved := load_feature_net(path, train, seed)) is not None:
        return saved
    net = train_features(train, test, seed, num_images)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # another process may train at the same time
    torch.save({"state": net.state_dict(), "digest": net.digest}, temporary)
    temporary.replace(path)
    return net


def fingerprint(train: Split, test: Split, *keys: int) -> str:
    """SHA-256 of numbers and two splits: their sizes, and labels and images of up to 10,000 evenly spaced examples."""
    state = hashlib.sha256(repr(keys).encode())
    for images, labels in (train, test):
        some = torch.arange(0, len(labels), ceil(len(labels) / 10_000))
        for part in (labels, images.index_select(0, some)):
            state.update(f"{len(labels)} {part.dtype} {tuple(part.shape)}".encode())
            state.update(part.contiguous().numpy().tobytes())
    return state.hexdigest()


def load_feature_net(path: Path, train: Split, seed: int) -> FeatureNet | None:
    """Load a network; None if there is no file, or it is damaged."""
    with seeding.isolated(CPU, seed, "features"):
        net = new_feature_net(train).requires_grad_(False)
    try:
        saved = torch.load(path, map_location=CPU, weights_only=True)
        net.load_state_dict(saved["state"])
        return net if net.digest == saved["digest"] else None
    except Exception:  # a damaged file may raise any error
        return None
