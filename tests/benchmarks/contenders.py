"""Training loops to measure vaezoo against: ``python contenders.py NAME[+TRICK ...] [WORD ...]``.

The words are those of vaezoo's command line and say all of model, data, precision and threads. A
contender trains for ever and prints ``step,images_per_second`` every ``trainer.log_every_n_steps`` steps.

``loop`` is the limit written by hand: images in memory as uint8, shuffled and gathered, a fused Adam,
nothing logged. Its tricks: ``compile`` (forward and loss), ``graph`` (forward, backward and Adam as one
compiled graph), ``adam`` (the fused kernel without the optimizer's Python), ``channels_last``, ``mmap`` and
``trim`` (glibc keeps freed memory instead of handing it back to the kernel), ``bf16`` (autocast), ``ddp`` (two
processes).

``template`` is what most projects begin with: ToTensor in a DataLoader, a LightningModule that logs three
values at each step into the progress bar, and Adam as it comes. ``pythae`` is that library's trainer.
"""

import contextlib
import ctypes
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from vaezoo.config_folder import config_folder
from vaezoo.data import ImageData
from vaezoo.runs.setup import build_run

HELD = 20_000  # images of a set that is made by the batch


class Plain(nn.Module):
    """A VAE's loss with a normal posterior and a Bernoulli likelihood, from its two networks."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO of bits x (B, C, H, W), in nats per image."""
        loc, raw = self.encoder(x).float().chunk(2, 1)
        log_scale = F.softplus(raw + 7) - 7
        scale = log_scale.exp()
        z = loc + scale * torch.randn_like(loc)
        distortion = F.binary_cross_entropy_with_logits(self.decoder(z).float(), x, reduction="sum")
        rate = 0.5 * (loc.square() + scale.square() - 2 * log_scale - 1).sum()
        return (distortion + rate) / len(x)


def compose_config(words: list[str]) -> dict:
    """The config of vaezoo's command line, without what a run alone has."""
    with initialize_config_dir(config_folder(), version_base="1.3"):
        cfg = compose("config", words)
    training = ("model", "data", "optimizer", "scheduler", "trainer")
    keys = (*training, "seed", "allow_packages", "on_nan", "compile", "threads")
    config = {key: OmegaConf.to_container(cfg, resolve=False)[key] for key in keys}
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True)


class Workload:
    """What the words name: a fresh model's networks, the training images, and the numbers of a training.

    Attributes:
        encoder, decoder: the networks.
        images: uint8 0 and 1, (N, C, H, W).
        size: of a batch.
        lr: Adam's learning rate.
        every: steps from one row to the next.

    Args:
        words: of vaezoo's command line.
    """

    def __init__(self, words: list[str]):
        self.config, self.model, data = build_run(compose_config(words))
        self.encoder, self.decoder = self.model.encoder.net, self.model.decoder.net
        self.images = images_of(data)
        self.size, self.lr = self.config["data"]["batch_size"], self.config["optimizer"]["lr"]
        self.every = self.config["trainer"]["log_every_n_steps"]


class Rows:
    """Prints ``step,images_per_second`` every so many steps, on what stdout is at first.

    Args:
        work: what is trained.
        world: number of processes; the first one prints.
    """

    def __init__(self, work: Workload, world: int = 1):
        self.work, self.images, self.out = work, work.every * work.size * world, sys.stdout
        self.first, self.clock = os.environ.get("RANK", "0") == "0", time.perf_counter()

    def step(self, number: int) -> None:
        """To be called after each step, which are numbered from 1."""
        if number % self.work.every == 0:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if self.first:
                rate = self.images / (time.perf_counter() - self.clock)
                print(f"{number},{rate:.1f}", file=self.out, flush=True)
            self.clock = time.perf_counter()


def images_of(data: ImageData) -> Tensor:
    """The training images as bits, made in another process: what malloc learns on the way would stay in this one."""
    with tempfile.TemporaryDirectory() as folder:
        maker = multiprocessing.get_context("spawn").Process(target=save_images, args=(data, f"{folder}/images.pt"))
        maker.start()
        maker.join()
        return torch.load(f"{folder}/images.pt")


def save_images(data: ImageData, path: str) -> None:
    """The training images of a data module, as bits."""
    data.prepare_data()
    data.setup()
    images = data.train.x
    held = images if isinstance(images, Tensor) else images[:HELD]
    torch.save((held > 0).to(torch.uint8), path)


def keep_memory(tricks: set[str]) -> None:
    """Let glibc serve large blocks from the heap (``mmap``) and never shrink it (``trim``)."""
    libc = ctypes.CDLL("libc.so.6") if tricks & {"mmap", "trim"} else None
    if "mmap" in tricks:
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    if "trim" in tricks:
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD


def fork() -> None:
    """Become two processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ["RANK"] = "0" if os.fork() else "1"


def batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Shuffled batches for ever, as floats."""
    flat = images.flatten(1)
    while True:
        order = torch.randperm(len(flat), device=flat.device)
        for index in order[: len(flat) // size * size].split(size):
            yield flat.index_select(0, index).unflatten(1, images.shape[1:]).float()


def eager_step(loss: nn.Module, params: list[Tensor], lr: float, direct: bool) -> Callable[[Tensor], Tensor]:
    """Forward, backward and a fused Adam; ``direct`` calls its kernel."""
    optimizer = torch.optim.Adam(params, lr=lr, fused=True)
    first, second = ([torch.zeros_like(p) for p in params] for _ in range(2))
    steps = [torch.zeros(()) for _ in params]

    def step(x: Tensor) -> Tensor:
        value = loss(x)
        value.backward()
        if direct:
            with torch.no_grad():
                torch._foreach_add_(steps, 1)
                kernel = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
                grads = [p.grad for p in params]
                torch._fused_adam_(
                    params, grads, first, second, [], steps, lr=lr, amsgrad=False, maximize=False, **kernel
                )
        else:
            optimizer.step()
        optimizer.zero_grad()
        return value

    return step


def graph_step(loss: nn.Module, params: list[Tensor], lr: float, autocast) -> Callable[[Tensor], Tensor]:
    """Forward, backward and Adam in one compiled graph."""
    names = [name for name, _ in loss.named_parameters()]
    first, second = ([torch.zeros_like(p) for p in params] for _ in range(2))
    count = torch.zeros((), device=params[0].device)

    def whole(x: Tensor) -> Tensor:
        def value_of(values):
            with autocast():
                return torch.func.functional_call(loss, dict(zip(names, values, strict=True)), (x,))

        grads, value = torch.func.grad_and_value(value_of)(tuple(p.detach() for p in params))
        with torch.no_grad():
            count.add_(1)
            unbias1, unbias2 = 1 - 0.9**count, 1 - 0.999**count
            for p, g, m, v in zip(params, grads, first, second, strict=True):
                m.lerp_(g, 0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                p.sub_(lr / unbias1 * m / ((v / unbias2).sqrt() + 1e-8))
        return value

    return torch.compile(whole)


def loop(tricks: set[str], words: list[str], steps: int | None = None) -> list[float]:
    """Train by hand; for ever, or for some steps, whose losses are returned."""
    keep_memory(tricks)
    work = Workload(words)
    on_gpu = torch.cuda.is_available() and work.config["trainer"]["accelerator"] != "cpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    plain: nn.Module = Plain(work.encoder, work.decoder).to(device)
    images = work.images.to(device)
    if "channels_last" in tricks:
        plain = plain.to(memory_format=torch.channels_last)
    params, world = list(plain.parameters()), 1
    if "ddp" in tricks:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        world = torch.distributed.get_world_size()
        torch.manual_seed(torch.distributed.get_rank())
        plain = nn.parallel.DistributedDataParallel(plain)

    def autocast():
        return torch.autocast(device.type, torch.bfloat16) if "bf16" in tricks else contextlib.nullcontext()

    if "compile" in tricks:
        plain = torch.compile(plain)

    def loss(x: Tensor) -> Tensor:
        with autocast():
            return plain(x)

    step = (
        graph_step(plain, params, work.lr, autocast)
        if "graph" in tricks
        else eager_step(loss, params, work.lr, "adam" in tricks)
    )
    source = batches(images, work.size)
    if steps is not None:
        return [float(step(x).detach()) for x in islice(source, steps)]
    rows = Rows(work, world)
    for number, x in enumerate(source, 1):
        step(x)
        rows.step(number)
    return []


def template(words: list[str]) -> None:
    """Train with Lightning as it is usually done."""
    import lightning.pytorch as pl
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import ToTensor

    work = Workload(words)
    images = work.images

    class Images(Dataset):
        """What torchvision's MNIST does for each example."""

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return ToTensor()(Image.fromarray(images[i, 0].numpy() * 255)), 0

    class Template(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.plain = Plain(work.encoder, work.decoder)

        def training_step(self, batch, batch_idx: int) -> Tensor:
            x, _ = batch
            loss = self.plain(x)
            self.log("train/loss", loss, prog_bar=True)
            self.log("train/elbo", -loss, prog_bar=True)
            self.log("train/bits", loss / 0.6931, prog_bar=True)
            return loss

        def on_train_batch_end(self, *_) -> None:
            rows.step(self.global_step)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=work.lr)

    rows, sys.stdout = Rows(work), sys.stderr  # the bar is of the terminal, the rows are of the measurement
    settings = {key: work.config["trainer"][key] for key in ("accelerator", "log_every_n_steps")}
    trainer = pl.Trainer(max_epochs=-1, enable_model_summary=False, default_root_dir="lightning", **settings)
    trainer.fit(Template(), DataLoader(Images(), batch_size=work.size, shuffle=True, drop_last=True))


def pythae(words: list[str]) -> None:
    """Train with pythae (https://github.com/clementchadebec/benchmark_VAE), where it is installed."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    work = Workload(words)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = work.encoder

        def forward(self, x: Tensor) -> ModelOutput:
            loc, log_variance = self.net(x).chunk(2, 1)
            return ModelOutput(embedding=loc, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = work.decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    class Counted(VAE):
        steps = 0

        def forward(self, inputs, **kwargs):
            if self.steps:
                rows.step(self.steps)
            self.steps += 1
            return super().forward(inputs, **kwargs)

    rows, sys.stdout = Rows(work), sys.stderr
    shape, latent_dim = tuple(work.images.shape[1:]), work.config["model"]["latent_dim"]
    settings = VAEConfig(input_dim=shape, latent_dim=latent_dim, reconstruction_loss="bce")
    training = BaseTrainerConfig(
        output_dir="pythae", num_epochs=10_000, learning_rate=work.lr, no_cuda=True,
        per_device_train_batch_size=work.size, optimizer_cls="Adam",
    )  # fmt: skip
    data = BaseDataset(work.images.float(), torch.zeros(len(work.images)))
    BaseTrainer(Counted(settings, Encoder(), Decoder()), data, training_config=training).train()


def main() -> None:
    """Run one contender."""
    name, *words = sys.argv[1:]
    base, *tricks = name.split("+")
    print("step,images_per_second", flush=True)
    if "ddp" in tricks:
        fork()
    if base == "template":
        template(words)
    elif base == "pythae":
        pythae(words)
    else:
        loop(set(tricks), words)


if __name__ == "__main__":
    main()
