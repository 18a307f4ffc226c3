"""The encoder and the decoder of a model as functions of tensors, with everything around them: what is exported."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaezoo.distributions import JointDistribution, TokenSequenceDistribution
from vaezoo.export.outputs import LIKELIHOOD_MEANINGS, POSTERIOR_MEANINGS, encoder_outputs, likelihood_outputs
from vaezoo.export.preprocessing import Preprocessing
from vaezoo.missing import to_whole
from vaezoo.models import LatentVariableModel

BATCH = "batch"  # name of the first axis of each input and output


class ExportedFunction(nn.Module):
    """A function of a model, from named tensors to named tensors. The first axis of each is the batch.

    Attributes:
        name: name of its files, without suffix.
        meanings: meaning of each output by name; a name such as ``real_std`` or ``std_2`` has the meaning of ``std``.

    Args:
        model: the model, on the CPU and in eval mode.
        preprocessing: from the user's numbers to x and back.
    """

    name: str
    meanings: Mapping[str, str]

    def __init__(self, model: LatentVariableModel, preprocessing: Preprocessing):
        super().__init__()
        self.model, self.preprocessing = model, preprocessing

    @abstractmethod
    def example_inputs(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the inputs of this function by name that belong to examples.

        Args:
            x: examples as the model sees them, (B, *data_shape).
            labels: their labels, (B, ...).
        """

    @abstractmethod
    def reference(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return outputs for examples, computed by the model's own methods. Arguments as in ``example_inputs``."""

    @abstractmethod
    def describe_inputs(self) -> dict[str, str]:
        """Return the meaning of each input by name."""

    def describe(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return names, types, shapes and meanings of inputs and outputs, as plain values.

        Args:
            inputs: inputs by name.
            outputs: the outputs for them.
        """

        def describe_tensor(name: str, value: Tensor, meaning: str) -> dict[str, Any]:
            shape = [BATCH, *value.shape[1:]]
            return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": shape, "meaning": meaning}

        meanings = self.describe_inputs()
        return {
            "function": self.name,
            "inputs": [describe_tensor(name, value, meanings[name]) for name, value in inputs.items()],
            "outputs": [describe_tensor(name, value, self.meaning(name)) for name, value in outputs.items()],
        }

    def meaning(self, name: str) -> str:
        """Return the meaning of an output."""
        if name in self.meanings:
            return self.meanings[name]
        for key in sorted(self.meanings, key=len, reverse=True):
            if name.endswith(f"_{key}"):
                return f"{self.meanings[key]}, of the {name.removesuffix(f'_{key}')} columns"
            if name.startswith(f"{key}_"):
                return f"{self.meanings[key]}, of layer {name.removeprefix(f'{key}_')} given the means of those above"
        return "a parameter of the distribution"

    def label_input(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the labels as an input, if the model needs them."""
        return {"labels": labels} if self.model.conditional else {}

    def label_meaning(self) -> dict[str, str]:
        """Return the meaning of the labels, if the model needs them."""
        if not self.model.conditional:
            return {}
        is_image = hasattr(self.model, "context_shape")
        return {"labels": "condition c" if is_image else "class labels, as their place in `class_names` from 0"}


class Encoder(ExportedFunction):
    """The encoder: from the user's numbers to the code and the parameters of q(z | x)."""

    name = "encoder"
    meanings = POSTERIOR_MEANINGS

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the code and the parameters by name."""
        return encoder_outputs(self.model, self.preprocessing(x), labels)

    def example_inputs(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"x": self.preprocessing.to_user(x)} | self.label_input(labels)

    def reference(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"code": self.model.encode(x, labels)}

    def describe_inputs(self) -> dict[str, str]:
        return {"x": self.preprocessing.meaning} | self.label_meaning()


class Decoder(ExportedFunction):
    """The decoder: from z to the parameters of p(x | z) in the user's units.

    An autoregressive decoder has no mean that is a function of z: a text is made token by token. It is the function
    from z and tokens to the probabilities of each token, given z and the tokens before it. If a text is one of several
    modalities, the outputs of the others are beside it.
    """

    name = "decoder"
    meanings = LIKELIHOOD_MEANINGS

    def forward(self, z: Tensor, tokens: Tensor | None = None, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the mean and the parameters by name.

        Args:
            z: (B, *latent_shape).
            tokens: tokens (B, T) of an autoregressive decoder.
            labels: labels (B,) of a conditional model.
        """
        px = self.model.decode(z, labels)
        if isinstance(px, TokenSequenceDistribution) and tokens is not None:
            return {"log_probs": px.next_logits(px.h, tokens).log_softmax(-1)}
        if tokens is not None and (text := text_part(px)):
            name, part = text
            log_probs = {f"{name}_log_probs": part.next_logits(part.h, tokens).log_softmax(-1)}
            return log_probs | other_means(px) | likelihood_outputs(px, self.preprocessing.units)
        return {"mean": self.preprocessing.mean(self.represent(px))} | likelihood_outputs(px, self.preprocessing.units)

    def represent(self, px: Distribution) -> Tensor:
        """Return the examples that represent p(x | z): its means; the modes of categories."""
        return px.mode if self.preprocessing.kind in ("token", "categorical") else px.mean

    def example_inputs(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        z = self.model.encode(x, labels)
        px = self.model.decode(z[:1], labels[:1])
        tokens = {"tokens": x} if isinstance(px, TokenSequenceDistribution) else {}
        if isinstance(px, JointDistribution) and (text := text_part(px)):
            tokens = {"tokens": to_whole(px.layout.split(x)[text[0]])}
        return {"z": z} | tokens | self.label_input(labels)

    def reference(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        px = self.model.decode(self.model.encode(x, labels), labels)
        if isinstance(px, TokenSequenceDistribution):
            return {}
        return other_means(px) or {"mean": self.preprocessing.mean(self.represent(px))}

    def describe_inputs(self) -> dict[str, str]:
        latent = f"a {self.model.latent_kind} of the latent space: a code, or a sample of the prior"
        tokens = "tokens of a text, as x of the encoder; output t depends on the tokens before t alone"
        return {"z": latent, "tokens": tokens} | self.label_meaning()


def text_part(px: Distribution) -> tuple[str, TokenSequenceDistribution] | None:
    """Return the name and the distribution of the part of p(x | z) that is a text, if there is one."""
    for name, part in px.parts.items() if isinstance(px, JointDistribution) else ():
        if isinstance(part, Independent) and isinstance(part.base_dist, TokenSequenceDistribution):
            return name, part.base_dist
    return None


def other_means(px: Distribution) -> dict[str, Tensor]:
    """Return the means of the parts beside a text, as NAME_mean; empty if there is no text."""
    text = text_part(px)
    if text is None or not isinstance(px, JointDistribution):
        return {}
    return {f"{name}_mean": part.mean for name, part in px.parts.items() if name != text[0]}
