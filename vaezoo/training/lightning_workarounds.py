"""Work-arounds of Lightning, each for a behaviour of version 2.6.6.

``tests/test_lightning_workarounds.py`` shows each behaviour in plain Lightning. If one of its tests fails with a newer
version, the behaviour has changed and the work-around may be removed.

Other behaviours are handled by a public hook, in the place that needs it:

- Lightning puts its own signal handlers before ours: ``callbacks.checkpoints.Last.on_train_start`` installs ours again.
- Lightning clears the gradients before a validation: ``TrainingLoop.on_validation_model_zero_grad`` keeps those that
  are being accumulated.
- Lightning refuses to clip the gradients of a fused optimizer: ``TrainingLoop.configure_gradient_clipping``.
- ``WeightAveraging`` swaps the weights at the start and the end of a validation: ``callbacks.images.Images`` draws in
  between.
- Lightning prints routine messages and warnings: ``runs.setup`` silences them.
"""

from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, TensorBoardLogger


def unset_accumulation_and_clipping(trainer: pl.Trainer) -> dict[str, Any]:
    """Set the trainer's options of gradient accumulation and clipping to "off", and return what they were.

    Lightning refuses a model with manual optimization if one of these options is set. ``TrainingLoop`` implements both
    options itself; so they are off while Lightning validates the trainer, and ``restore_options`` sets them again.
    """
    saved = {name: getattr(trainer, name) for name in ("accumulate_grad_batches", "gradient_clip_val")}
    restore_options(trainer, {"accumulate_grad_batches": 1, "gradient_clip_val": None})
    return saved


def restore_options(trainer: pl.Trainer, options: dict[str, Any]) -> None:
    """Set options of the trainer."""
    for name, value in options.items():
        setattr(trainer, name, value)


def hide_loggers(trainer: pl.Trainer) -> list[Logger]:
    """Take the loggers from a trainer and return them; to be called at the end of a validation or test epoch.

    ``Trainer.test`` returns only values that Lightning logs itself. It would log them a second time, after our own row,
    with the number of its own steps, in each of which we make several optimizer steps.
    """
    loggers = trainer.loggers
    trainer.loggers = []
    return loggers


def complete_interrupted_epochs(trainer: pl.Trainer) -> None:
    """Let a resumed training complete an epoch that was interrupted after its last step.

    If no step is left to do (``max_steps`` was reached, or the training was stopped early, within an epoch), Lightning
    returns from ``fit`` at once. If the run was killed after this last step, nothing would do the end of the epoch: its
    means, the exchange of averaged weights, the count of epochs.
    """
    loop = trainer.fit_loop
    loop.run = partial(run_and_complete_epoch, loop)  # type: ignore[method-assign]


def run_and_complete_epoch(loop: Any) -> None:
    """``FitLoop.run``, followed by the end of the epoch if the epoch was interrupted and is not completed by it."""
    processed = loop.epoch_progress.current.processed
    interrupted = loop.epoch_progress.current.started > processed
    type(loop).run(loop)
    if interrupted and loop.epoch_progress.current.processed == processed:
        loop.on_run_start()
        loop.on_advance_end()
        loop.on_run_end()


def is_validation_next(trainer: pl.Trainer) -> bool:
    """Return whether a validation follows the present training step; to be called in ``on_train_batch_end``.

    A training that is resumed from a checkpoint of this moment does not run this validation. So ``Last`` does not save
    here, but when the validation starts. Lightning has no public function for the question.
    """
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]


def repeat_validation(checkpoint: dict[str, Any]) -> None:
    """Change a checkpoint that is written during a validation so that a resumed training runs this validation.

    Otherwise Lightning takes the validation for done, and the resumed training has no value for it.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for counts in progress.values():
        if isinstance(counts, dict):
            counts.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False


def last_training_step(trainer: pl.Trainer) -> int:
    """Return the index in its epoch of the last training step that was completed; -1 before the first one.

    Lightning restores it from a checkpoint, but the trainer has no public attribute for it: ``global_step`` counts the
    steps of all epochs.
    """
    return trainer.fit_loop.batch_idx


def hide_events_from(logger: TensorBoardLogger, step: int) -> None:
    """Let TensorBoard ignore the events at or after a step that earlier event files in the folder hold.

    To be called before anything is logged. Lightning takes ``purge_step`` only when the logger is made, and then it is
    not known yet at which step the training resumes.
    """
    logger._kwargs["purge_step"] = step
