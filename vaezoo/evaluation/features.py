"""A small network whose features judge samples: trained here, from a seed, and named by its digest."""

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
PROTOCOL = 1  # of network and training together: to be raised with every change that makes other weights
BATCH_SIZE = 128


class FeatureNet(nn.Module):
    """A convolutional classifier whose last layer but one is a picture's 64 features.

    It is fed pixels in [0, 1], grey or colour; what lies outside is clipped, as a screen would. Half of the
    images that it learns from have their pixels drawn as bits, so that it judges binarised images as well as
    grey ones; a decoder's means are fed as they are. Real and generated images must be of one kind: the
    distance between grey and binarised images is not one between data and model.

    Features are taken before their activation, where none is stuck at 0, and each is shifted and scaled to mean 0
    and variance 1 over the first 10,000 images it was trained on, unbinarised: distances between features
    count such standard deviations. Numbers from two networks cannot be compared unless their digests are equal.
    The digest belongs to the weights to the last bit, which another processor or another number of threads changes.

    Args:
        data_shape: (C, H, W), any size; meant for 8x8 and larger.
        classes: number of classes of each factor; one of them for plain labels.
    """

    num_features = 64
    loc: Tensor
    scale: Tensor
    accuracy: Tensor  # (): on the held-out images, the mean over factors; nan before training

    def __init__(self, data_shape: Sequence[int], classes: Sequence[int], channels: Sequence[int] = (16, 32, 64)):
        super().__init__()
        if len(data_shape) != 3:
            raise ValueError(f"sample features need images (C, H, W), got shape {tuple(data_shape)}")
        self.data_shape, self.classes = tuple(data_shape), list(classes)
        planes, height, width = self.data_shape
        blocks: list[nn.Module] = []
        for out_planes in channels:
            # Each image is normalised by itself: its features do not depend on the batch, in training or after it.
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
        """For each factor, the logits of its classes: (N, classes), from images (N, C, H, W)."""
        return self.head(F.relu(self.body(x.clamp(0, 1)))).split(self.classes, dim=1)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The features (N, 64) of images (N, C, H, W) in [0, 1]."""
        if x.shape[1:] != self.data_shape:
            raise ValueError(f"these features are of images {self.data_shape}, got a batch of shape {tuple(x.shape)}")
        return (self.body(x.to(self.loc.dtype).clamp(0, 1)) - self.loc) / self.scale

    @property
    def digest(self) -> str:
        """SHA-256 of all that the network holds, as hexadecimal digits."""
        state = hashlib.sha256()
        for name, value in self.state_dict().items():
            state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            state.update(value.cpu().contiguous().numpy().tobytes())
        return state.hexdigest()

    def describe(self) -> str:
        """One line for a table's foot: what the features are."""
        return (
            f"{self.num_features} features of a classifier trained here "
            f"(accuracy {float(self.accuracy):.4f} on held-out images, SHA-256 {self.digest[:12]})"
        )


def factors(labels: Tensor) -> Tensor:
    """Labels (N,) or factors (N, F), as (N, F)."""
    return labels.reshape(len(labels), -1)


def untrained(train: Split) -> FeatureNet:
    """The network that fits a split's images and labels, with new weights; every factor has a head of its own."""
    classes = [int(largest) + 1 for largest in factors(train.labels).amax(0)]
    if max(classes) < 2:
        raise ValueError("sample features are those of a classifier, but all images have the same label")
    return FeatureNet(train.images.shape[1:], classes)


@torch.enable_grad()
def train_features(train: Split, test: Split, seed: int = 0, num_images: int = 180_000) -> FeatureNet:
    """Train a ``FeatureNet``, on the CPU: about a minute for MNIST on one core.

    AdamW with a rate that rises to 5e-3 and falls to 0; loss: the cross-entropy, summed over factors. The result is
    a function of the arguments; the caller's random streams are left as they were.

    Args:
        train: images as bytes (N, C, H, W), and their labels (N,) or factors (N, F), counted from 0.
        test: held-out images and labels, for ``accuracy``.
        seed: names the first weights, the order of the images and their bits.
        num_images: seen in training, repeats included; three epochs of MNIST.
    """
    if num_images < 1:
        raise ValueError(f"num_images must be >= 1, got {num_images}")
    num_steps = ceil(num_images / BATCH_SIZE)
    split = partial(Batches, max_value=255, batch_size=BATCH_SIZE)
    epochs = (split(train, seed=seed, shuffle=True, epoch=partial(int, number)) for number in count())
    batches = islice(chain.from_iterable(epochs), num_steps)
    with seeding.isolated(CPU, seed, "features"):
        net = untrained(train).to(memory_format=torch.channels_last)
        optimizer = AdamW(net.parameters(), lr=5e-3)
        schedule = OneCycleLR(optimizer, max_lr=5e-3, total_steps=num_steps)
        for x, y in tqdm(batches, "feature network", num_steps, leave=False, disable=None, delay=3):
            as_bits = torch.rand(len(x), 1, 1, 1) < 0.5
            x = torch.where(as_bits, torch.rand_like(x) < x, x)
            heads = zip(net.logits(x), factors(y).unbind(1), strict=True)
            loss = torch.stack([F.cross_entropy(logits, label) for logits, label in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.to(memory_format=torch.contiguous_format).requires_grad_(False)
    features = torch.cat([net(x) for x, _ in islice(split(train, batch_size=1000), 10)]).double()
    net.loc.copy_(features.mean(0))
    net.scale.copy_(features.std(0))
    hits = [torch.stack([z.argmax(1) for z in net.logits(x)], 1) == factors(y) for x, y in split(test, batch_size=1000)]
    net.accuracy.copy_(torch.cat(hits).double().mean())
    return net


def features_for(data: ImageData, folder: str | Path, seed: int = 0, num_images: int = 180_000) -> FeatureNet:
    """The network for a data set: from ``folder`` if it was trained before, else trained, and kept there.

    It learns from the whole training set as it was read: bytes, whatever the run's binarisation or validation split,
    so that all runs on a data set are judged by one network. The file is found by the images themselves (up to 10,000
    of each split), the seed and this training's version; a file that cannot be read is trained anew.

    Args:
        data: prepared; ``read`` is called.
        folder: of the trained networks; made where it is missing.
        seed, num_images: as ``train_features``.
    """
    train, test = data.read()
    path = Path(folder, f"{type(data).__name__}-{fingerprint(train, test, PROTOCOL, seed, num_images)[:16]}.pt")
    if (kept := load(path, train, seed)) is not None:
        return kept
    net = train_features(train, test, seed, num_images)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # whoever trains at the same time has another
    torch.save({"state": net.state_dict(), "digest": net.digest}, fresh)
    fresh.replace(path)
    return net


def fingerprint(train: Split, test: Split, *keys: int) -> str:
    """SHA-256 of numbers and of two splits: their sizes, labels and up to 10,000 images of each, evenly spaced."""
    state = hashlib.sha256(repr(keys).encode())
    for images, labels in (train, test):
        some = torch.arange(0, len(labels), ceil(len(labels) / 10_000))
        for part in (labels, images.index_select(0, some)):
            state.update(f"{len(labels)} {part.dtype} {tuple(part.shape)}".encode())
            state.update(part.contiguous().numpy().tobytes())
    return state.hexdigest()


def load(path: Path, train: Split, seed: int) -> FeatureNet | None:
    """The network in a file; None where there is no file, or one that is not what was written."""
    with seeding.isolated(CPU, seed, "features"):
        net = untrained(train).requires_grad_(False)
    try:
        saved = torch.load(path, map_location=CPU, weights_only=True)
        net.load_state_dict(saved["state"])
        return net if net.digest == saved["digest"] else None
    except Exception:  # a damaged file raises whatever its bytes lead to, and all of it means the same
        return None
