"""Notes on a model and data that work together, but not as they are meant to."""

from vaezoo.data import DataModule
from vaezoo.models import HIVAE, LatentVariableModel, MissingIWAE
from vaezoo.nets import Conv1dDecoder, Conv1dEncoder


def describe_doubts(model: LatentVariableModel, data: DataModule) -> list[str]:
    """Return a sentence for each choice that has no effect on these data, or a better alternative.

    Args:
        model: the model.
        data: the data module, which has read its data.
    """
    doubts, nouns = [], f"{data.noun}s"
    if isinstance(model, MissingIWAE) and not data.has_missing:
        doubts.append(
            f"no entry of the {nouns} is missing, so {type(model).__name__} is no more than an IWAE here: use "
            f"model=iwae"
        )
    if data.noun == "image" and any(isinstance(part, Conv1dEncoder | Conv1dDecoder) for part in model.modules()):
        doubts.append(
            "the convolutions of this model go over the last dimension, which is time for sounds, and the images have "
            "two dimensions: model=conv_vae suits them"
        )
    if isinstance(model, HIVAE) and data.noun != "row":
        doubts.append(
            f"{type(model).__name__} is meant for tables with columns of several kinds (data=table), and these are "
            f"{nouns}: model=mog_vae has the same prior"
        )
    known, num_classes = len(data.class_names or ()), getattr(model, "num_classes", 0)
    if 0 < known < num_classes:
        doubts.append(
            f"the {nouns} have {known} classes, and the other {num_classes - known} of model.num_classes={num_classes} "
            f"are never trained: use model.num_classes={known}"
        )
    condition = getattr(data, "condition", None)
    if condition is not None and not model.conditional:
        doubts.append(
            f"{type(model).__name__} is given no condition, so data.condition={condition} only decides what x is: "
            f"model=conditional_prior_vae is given it"
        )
    return [f"note: {doubt}" for doubt in doubts]
