"""Work-arounds of Lightning."""

from typing import Any


def finish_interrupted_epoch(loop: Any) -> None:
    """The fit loop's ``run``, which does nothing where there is no step left to take: of an epoch that was cut short by
    ``max_steps``, or an early stop, and by a kill after its last step, the end is made up for.
    """
    before = loop.epoch_progress.current.processed
    cut_short = loop.epoch_progress.current.started > before
    type(loop).run(loop)
    if cut_short and loop.epoch_progress.current.processed == before:
        loop.on_run_start()
        loop.on_advance_end()
        loop.on_run_end()


def last_training_step(trainer: Any) -> int:
    """Return the number of the last step of the epoch that was completed, -1 before the first.

    Lightning 2.6.6 restores it from a checkpoint, but has no public attribute of the trainer for it.
    """
    return trainer.fit_loop.batch_idx
