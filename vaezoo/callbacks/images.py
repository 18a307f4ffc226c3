"""Pictures of a model during training: reconstructions, samples and what each latent dimension changes."""

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
    Display,
    Picture,
    check_look,
    draw_samples,
    first_batches,
    manifold,
    measure_latent_axes,
    reconstructions,
    scatter,
    show_samples,
    traversals,
)
from vaezoo.runs.signals import Stopped, stopping_at_once
from vaezoo.seeding import isolated
from vaezoo.training.eval_mode import evaluating
from vaezoo.types import Batch

SPLIT = "validation"  # the set of the pictures


def log_pictures(logger: Any, pictures: dict[str, Picture], caption: str, step: int) -> None:
    """Log pictures to W&B or TensorBoard. Other loggers cannot show them and get none.

    Args:
        logger: a logger of Lightning.
        pictures: the pictures by kind, such as "samples".
        caption: length of the training so far, for W&B.
        step: number of the last optimizer step, from 0, under which the values of this validation are logged, too.
    """
    names = {f"images/{kind}": picture for kind, picture in pictures.items()}
    if isinstance(logger, WandbLogger):
        import wandb

        images = {name: wandb.Image(p, caption=caption) for name, p in names.items()}
        logger.experiment.log({**images, "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        for name, picture in names.items():
            logger.experiment.add_image(name, picture, step, dataformats="HWC")


class Images(pl.Callback):
    """Draws the model while it trains: as PNG files, and in W&B and TensorBoard.

    * ``reconstructions``: validation images and, below, the means of p(x | z) at their codes;
    * ``samples``: means of p(x | z) for z ~ p(z) and draws x ~ p(x | z), with the same noise every time; in columns by
      class, if the model takes classes;
    * ``traversals``: the means of p(x | z) when one dimension of z changes, dimensions of largest KL first;
    * ``manifold``: the plane of a latent with two dimensions, decoded;
    * ``scatter``: the codes of validation images in this plane.

    The heading of each says what is shown, and of what: model, data, seed, steps and epochs.

    Examples that are no images are drawn as the data module says (``pictures.Display``), if at all. Of rows of a table
    there is no manifold.

    Sentences that were drawn are also written as ``samples-0010.txt``.

    Pictures are drawn after the first epoch, after every ``every_n_epochs``-th and after the last one. The random state
    of the training is restored afterwards, so a training with pictures is equal to one without.

    With weight averaging, the average is drawn. If the training ends without a validation, the last pictures are drawn
    at its end: for these, this callback must stand after the one that averages.

    Args:
        folder: folder of the files, created when needed. They are named as ``samples-0010.png`` after 10 epochs, and
            ``samples-0000.035.png`` after a part of one.
        every_n_epochs: epochs from one drawing to the next; >= 1.
        num_images: largest number of images in ``reconstructions`` and ``samples``; >= 2.
        seed: seed of the samples' noise.
        scale: factor of all sizes, fonts included: a whole number, such as 2 for talks and papers.
        theme: "light" or "dark". It changes no pixel of the data.

    Attributes:
        last_drawn_epoch: number of complete epochs at the last drawing; 0 before the first one.
    """

    def __init__(
        self,
        folder: str,
        every_n_epochs: int = 10,
        num_images: int = 32,
        seed: int = 0,
        scale: int = 1,
        theme: str = "light",
    ):
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be >= 1, got {every_n_epochs}")
        if num_images < 2:
            raise ValueError(f"num_images must be >= 2, an input and its reconstruction, got {num_images}")
        self.folder, self.every_n_epochs, self.num_images, self.seed = folder, every_n_epochs, num_images, seed
        self.look = check_look(scale, theme)
        self.last_drawn_epoch = 0
        self.data: pl.LightningDataModule | None = None
        self.draws = torch.empty(0)  # x ~ p(x | z), of the last samples
        self.batch: Batch | None = None  # the validation images that are reconstructed, the same every time

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.data = getattr(trainer, "datamodule", None)
        if stage == "fit" and self.data is None:
            raise ValueError(
                "the callback Images draws a data module's validation images: call trainer.fit(model, datamodule)"
            )

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Within the validation, because at its start and end weight averaging swaps the weights, before or after us.
        first = batch_idx == dataloader_idx == 0
        if not first or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        epoch = trainer.current_epoch + trainer.is_last_batch  # complete epochs: a validation may come within one
        due = self.last_drawn_epoch == 0 or epoch // self.every_n_epochs > self.last_drawn_epoch // self.every_n_epochs
        if epoch > self.last_drawn_epoch and (due or epoch == trainer.max_epochs):
            self.draw(trainer, pl_module, epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > self.last_drawn_epoch:
            self.draw(trainer, pl_module, trainer.current_epoch)

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints: the former name of the class, so that old checkpoints can be resumed."""
        return "Panels"

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.last_drawn_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_drawn_epoch = state_dict["drawn"]

    def draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Draw, write and log all pictures after ``epoch`` epochs, in the first process only.

        If a signal asks to stop, there are no pictures: the training saves its state and stops (``Last``).
        """
        before, self.last_drawn_epoch = self.last_drawn_epoch, epoch
        if not trainer.is_global_zero:
            return
        assert self.data is not None
        model = cast(LatentVariableModel, pl_module)
        caption = describe_training(trainer.global_step, model.epochs)
        number = f"{model.epochs:04d}" if isinstance(model.epochs, int) else f"{model.epochs:08.3f}"
        try:
            with evaluating(model), isolated(model.device, self.seed, "panels"), stopping_at_once():
                pictures = self.pictures(model, self.data.val_dataloader(), caption)
        except Stopped:
            self.last_drawn_epoch = before  # the resumed run draws them
            return
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{kind}-{number}.png")
        if pictures and getattr(self.data, "data_kind", "") == "token":
            data: Any = self.data
            data.save_examples(self.draws.cpu(), folder / f"samples-{number}")
        for logger in trainer.loggers:
            call_or_disable(logger, log_pictures, logger, pictures, caption, trainer.global_step - 1)

    def pictures(self, model: LatentVariableModel, loader: Iterable[Batch], caption: str) -> dict[str, Picture]:
        """Return all pictures that the model allows, by kind.

        Args:
            model: the model, in evaluation mode.
            loader: the validation images.
            caption: length of the training so far; it stands in the pictures.
        """

        def to_model(batch: Batch) -> Batch:
            x = batch.x.to(model.device)
            return Batch(x.type(model.dtype) if x.is_floating_point() else x, batch.y.to(model.device))

        if self.batch is None:
            self.batch = Batch(*map(torch.cat, zip(*first_batches(loader, self.num_images), strict=True)))
        batch, display = to_model(self.batch), Display(self.data, self.look)
        if not display.can_draw(batch.x):
            return {}
        subtitle = describe_model(model, self.data, caption)
        pictures = {"reconstructions": reconstructions(model, batch, self.num_images // 2, subtitle, display, SPLIT)}
        with isolated(model.device, self.seed, "samples"):
            drawn = draw_samples(model, batch, self.num_images, display)
        pictures["samples"] = show_samples(drawn, subtitle, display)
        self.draws = list(drawn.parts.values())[-1]
        if axes := measure_latent_axes(model, batch):
            rows = 10 if display.to_cells is None else 4  # of a table, each step is a line
            pictures["traversals"] = traversals(model, batch, axes, subtitle, rows, display, SPLIT)
            if len(axes.usage) == 2:
                if display.to_cells is None:
                    pictures["manifold"] = manifold(model, batch, axes, subtitle, display=display)
                batches = [to_model(part) for part in first_batches(loader, 5000)]
                codes = torch.cat([model.encode(part.x, part.y).cpu() for part in batches])[:5000]
                labels = torch.cat([part.y.cpu().reshape(len(part.y), -1)[:, 0] for part in batches])[:5000]
                names = display.class_names if batch.y.dim() == 1 else ()
                pictures["scatter"] = scatter(codes, labels, subtitle, display.noun, names, self.look)
        return pictures


def describe_model(model: LatentVariableModel, data: Any, caption: str) -> str:
    """Return the subtitle of pictures: model, data, seed and length of the training.

    Args:
        model: the model. One outside of a run has the name of its class, and no seed.
        data: the data module, or None.
        caption: length of the training.
    """
    config = getattr(model, "config", None) or {}
    name = config.get("name") or type(model).__name__
    where = f" on {type(data).__name__}" if data is not None else ""
    seed = f", seed {config['seed']}" if "seed" in config else ""
    return f"{name}{where}{seed}, {caption}"
