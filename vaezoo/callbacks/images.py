"""Pictures of a model in training: what it reconstructs, samples and hides in each latent dimension."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from vaezoo.callbacks.progress import describe_training
from vaezoo.loggers import call_or_disable
from vaezoo.models import LatentVariableModel
from vaezoo.pictures import (
    Picture,
    first_batches,
    manifold,
    measure_latent_axes,
    reconstructions,
    samples,
    scatter,
    traversals,
)
from vaezoo.seeding import isolated
from vaezoo.training.eval_mode import evaluating
from vaezoo.types import Batch


def log_pictures(logger: Any, pictures: dict[str, Picture], when: str, step: int) -> None:
    """Log the pictures to a logger that can show them; any other is left alone."""
    names = {f"panels/{kind}": picture for kind, picture in pictures.items()}
    if isinstance(logger, WandbLogger):
        import wandb

        images = {name: wandb.Image(p, caption=when) for name, p in names.items()}
        logger.experiment.log({**images, "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        for name, picture in names.items():
            logger.experiment.add_image(name, picture, step, dataformats="HWC")


class Images(pl.Callback):
    """Draws the model as it trains: PNG files, and images in W&B and TensorBoard.

    * ``reconstructions``: validation images over the means of p(x | z = encode(x));
    * ``samples``: means of p(x | z), z ~ p(z), from the same noise every time;
    * ``traversals``: each dimension of a flat latent to_model alone, those of largest KL first;
    * ``manifold`` and ``scatter``: for a latent of 2 dimensions, its plane decoded, and the codes of
      validation images in it.

    Drawn are the first epoch, every ``every_n_epochs``-th and the last, counted from 1. The random
    stream of the training is left as it was, so that pictures on or off trains the same weights.

    With weight averaging the average is drawn. (Where training stops early its last pictures are
    drawn when it ends: list this callback after the averaging one.)

    Args:
        folder: where the files go, as ``samples-0010.png`` after 10 epochs and ``samples-0000.035.png`` after a
            fraction of one; made when needed.
        every_n_epochs: epochs from one drawing to the next; >= 1.
        num_images: largest number of images in ``reconstructions`` and ``samples``; >= 2.
        seed: names the noise of the samples.
    """

    def __init__(self, folder: str, every_n_epochs: int = 10, num_images: int = 32, seed: int = 0):
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be >= 1, got {every_n_epochs}")
        if num_images < 2:
            raise ValueError(f"num_images must be >= 2, an input and its reconstruction, got {num_images}")
        self.folder, self.every_n_epochs, self.num_images, self.seed = folder, every_n_epochs, num_images, seed
        self.last_drawn_epoch = 0  # the epoch last drawn
        self.data: pl.LightningDataModule | None = None
        self.batch: Batch | None = None  # the fixed validation images

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        shape = getattr(pl_module, "data_shape", ())
        if len(shape) != 3:
            raise ValueError(f"Images draws images (C, H, W), but data_shape is {tuple(shape)}: leave it out")
        self.data = getattr(trainer, "datamodule", None)
        if stage == "fit" and self.data is None:
            raise ValueError("Images draws a data module's validation images: call trainer.fit(model, datamodule)")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Amid the epoch: at its start and end weight averaging swaps its average in and out, before us or after.
        first = batch_idx == dataloader_idx == 0
        if not first or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        epoch = trainer.current_epoch + trainer.is_last_batch  # those completed: validation may come in between
        due = self.last_drawn_epoch == 0 or epoch // self.every_n_epochs > self.last_drawn_epoch // self.every_n_epochs
        if epoch > self.last_drawn_epoch and (due or epoch == trainer.max_epochs):
            self.draw(trainer, pl_module, epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > self.last_drawn_epoch:
            self.draw(trainer, pl_module, trainer.current_epoch)

    @property
    def state_key(self) -> str:
        """The class's old name: checkpoints of earlier versions hold the state under it."""
        return "Panels"

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.last_drawn_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_drawn_epoch = state_dict["drawn"]

    def draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Draw, write and log all pictures of an epoch; nothing but in the first process."""
        self.last_drawn_epoch = epoch
        if not trainer.is_global_zero:
            return
        assert self.data is not None
        model = cast(LatentVariableModel, pl_module)
        when = describe_training(trainer.global_step, model.epochs)
        number = f"{model.epochs:04d}" if isinstance(model.epochs, int) else f"{model.epochs:08.3f}"
        with evaluating(model), isolated(model.device, self.seed, "panels"):
            pictures = self.pictures(model, self.data.val_dataloader(), when)
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{kind}-{number}.png")
        for logger in trainer.loggers:
            call_or_disable(logger, log_pictures, logger, pictures, when, trainer.global_step)

    def pictures(self, model: LatentVariableModel, loader: Iterable[Batch], when: str) -> dict[str, Picture]:
        """Every picture that this model allows, by its kind."""

        def to_model(batch: Batch) -> Batch:
            return Batch(batch.x.to(model.device).type(model.dtype), batch.y.to(model.device))

        if self.batch is None:
            self.batch = Batch(*map(torch.cat, zip(*first_batches(loader, self.num_images), strict=True)))
        batch = to_model(self.batch)
        pictures = {"reconstructions": reconstructions(model, batch, self.num_images // 2, when)}
        with isolated(model.device, self.seed, "samples"):
            pictures["samples"] = samples(model, batch, self.num_images, when)
        if used := measure_latent_axes(model, batch):
            pictures["traversals"] = traversals(model, batch, used, when)
            if len(used.usage) == 2:
                pictures["manifold"] = manifold(model, batch, used, when)
                seen = [to_model(part) for part in first_batches(loader, 5000)]
                codes = torch.cat([model.encode(part.x, part.y).cpu() for part in seen])[:5000]
                labels = torch.cat([part.y.cpu().reshape(len(part.y), -1)[:, 0] for part in seen])[:5000]
                pictures["scatter"] = scatter(codes, labels, when)
        return pictures
