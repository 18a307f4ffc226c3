"""The semi-supervised VAE, M2."""

import math
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from vaezoo.conditional import Conditional, Network
from vaezoo.families import Bernoulli, Family, diagonal_normal
from vaezoo.models.base import LatentVariableModel
from vaezoo.models.inference import inference
from vaezoo.nets import MLP, LabelConditioned
from vaezoo.nets.label_conditioned import check_class_labels
from vaezoo.objectives import SemiSupervised
from vaezoo.priors import StandardNormal
from vaezoo.trace import Latent, Trace
from vaezoo.training.means import accumulation_dtype
from vaezoo.types import NetFactory, Shape


class M2VAE(LatentVariableModel):
    """The semi-supervised VAE, M2: a classifier q(y | x) that learns from few labels and many examples without one.

        p(x, y, z) = p(x | y, z) p(y) p(z),  p(y) = 1 / C,  p(z) = N(0, I)
        q(y, z | x) = q(y | x) q(z | x, y)
        ELBO = U(x) = sum_y q(y | x) L(x, y) + H(q(y | x)),  a bound of log p(x)
        L(x, y) = E_q(z | x, y)[log p(x | y, z)] - ln C - KL(q(z | x, y), p(z)),  a bound of log p(x, y)

    The logged ``elbo`` is U(x) for every example, in every stage, also of those with a label: so it is one quantity,
    which can be compared with the ELBO of a model that has no labels. The loss takes L(x, y) for examples with a label
    (``SemiSupervised``). The sum over y is exact: a pass computes p(x | y, z) for all C classes, and takes C times as
    long as that of a VAE. It must not be replaced by a decoder that is given the probabilities q(y | x): its values can
    be above log p(x).

    A label is an integer 0, ..., C - 1, and -1 if it is missing. Labels of validation and test examples are used for
    ``accuracy`` only: the share of examples with a label whose class has the largest q(y | x).

    The code is z followed by y as C numbers, 1 for the class and 0 for the others; ``encode`` takes the most probable
    class. ``sample(num, context=labels)`` draws from classes.

    Reference: Kingma et al. 2014, Semi-Supervised Learning with Deep Generative Models,
    https://arxiv.org/abs/1406.5298.
    Differs from the paper: the networks are those of the zoo, and there is no prior on their weights.

    >>> model = M2VAE((1, 28, 28), latent_dim=10, num_classes=3, alpha=0.1)
    >>> x, y = torch.zeros(4, 1, 28, 28), torch.tensor([0, -1, 2, -1])
    >>> trace = model(x, y)
    >>> trace.elbo.shape, trace.log_px.shape  # one sample of each class
    (torch.Size([4]), torch.Size([3, 4]))
    >>> model.classify(x).shape, model.sample(3, context=torch.tensor([0, 1, 2])).mean.shape
    (torch.Size([4, 3]), torch.Size([3, 1, 28, 28]))

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D, the number of dimensions of z; >= 1.
        num_classes: C, the number of classes; >= 1.
        alpha: weight of the cross-entropy of the labels; >= 0.
        encoder: makes the networks of q(z | x, y), whose input includes an embedding of y, and of q(y | x);
            ``vaezoo.nets.MLP`` if None.
        decoder: makes the network of p(x | y, z); ``vaezoo.nets.MLP`` if None.
        likelihood: family of p(x | y, z); Bernoulli if None.
        num_samples: samples of z for each example and class; >= 1.
        **kwargs: arguments of ``LatentVariableModel``.

    Raises:
        ValueError: a number is out of range.
    """

    latent_kind = "layers"
    uses_labels = True

    def __init__(
        self,
        data_shape: Shape,
        latent_dim: int,
        num_classes: int,
        alpha: float,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        likelihood: Family | None = None,
        num_samples: int = 1,
        **kwargs,
    ):
        for name, value in {"latent_dim": latent_dim, "num_classes": num_classes, "num_samples": num_samples}.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        super().__init__(data_shape, SemiSupervised(alpha, num_classes), **kwargs)
        self.latent_dim, self.num_classes, self.num_samples = latent_dim, num_classes, num_samples
        self.num_values = num_classes
        self.latent_shape = (latent_dim + num_classes,)
        with_label = partial(LabelConditioned, net=encoder or MLP, num_classes=num_classes)
        self.classifier = Network(self.data_shape, (num_classes,), encoder or MLP)
        self.encoder = Conditional(self.data_shape, (latent_dim,), with_label, diagonal_normal((latent_dim,)))
        self.decoder = Conditional(self.latent_shape, self.data_shape, decoder or MLP, likelihood or Bernoulli())
        self.prior = StandardNormal((latent_dim,))

    @property
    def limits(self) -> dict[str, str]:
        return super().limits | {"kl_per_dim": "a class is no dimension: kl is that of y and that of z together"}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        split = getattr(getattr(self.trainer, "datamodule", None), "train", None)
        if stage == "fit" and split is not None and not bool((split.y >= 0).any()):
            raise ValueError(
                f"a m2_vae learns its {self.num_classes} classes from labels, but no training example has one: give "
                f"some labels, or use a model without labels such as model=mlp_vae"
            )

    def check_labels(self, labels: Tensor) -> None:
        """Raise a ValueError if the labels are not one of the model's classes for each example, or -1."""
        check_class_labels(labels.clamp(min=0), self.num_classes, "a m2_vae", "model.num_classes")

    def posterior(self, x: Tensor) -> Independent:
        """Return q(z | x, y) for each class, batch shape (C, B)."""
        classes = torch.arange(self.num_classes, device=x.device).repeat_interleave(len(x))
        params = self.encoder.params(x.expand(self.num_classes, *x.shape).flatten(0, 1), classes)
        normal = self.encoder.family(*(p.unflatten(0, (self.num_classes, len(x))) for p in params))
        return Independent(normal, 1, validate_args=False)

    def one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """Return classes (*batch,) as C numbers each, (*batch, C), of the type of another tensor."""
        classes = torch.arange(self.num_classes, device=labels.device)
        return (labels.unsqueeze(-1) == classes).to(like)

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        """One pass with as many samples of z for each class.

        Args:
            x: data, (B, *data_shape).
            context: labels, (B,), -1 if missing. They change nothing in the pass: the objective reads them.
            num_samples: K, the samples of all classes together, rounded up to a multiple of C; if None, the model's
                own number for each class. Sample k is of the class k modulo C.
        """
        num = self.num_samples if num_samples is None else math.ceil(num_samples / self.num_classes)
        log_q = self.classifier(x).log_softmax(-1)
        normal = self.posterior(x).base_dist
        loc, scale = (p.expand(num, *p.shape).flatten(0, 1) for p in (normal.loc, normal.scale))  # (K, B, D)
        q = Independent(type(normal)(loc, scale, validate_args=False), 1, validate_args=False)
        z = q.rsample()
        y = self.one_hot(torch.arange(self.num_classes, device=x.device).repeat(num), z)  # (K, C)
        y = y.unsqueeze(1).expand(-1, len(x), -1)
        layers = (
            Latent(
                OneHotCategorical(logits=log_q, validate_args=False),
                OneHotCategorical(logits=torch.zeros_like(log_q), validate_args=False),
                y,
            ),
            Latent(q, self.prior(), z),
        )
        weights = log_q.exp().T.repeat(num, 1) / num  # (K, B)
        return Trace(x, self.decoder(torch.cat([z, y], -1)), layers, context, weights)

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Return q(y | x), (B, C)."""
        return self.classifier(x).softmax(-1)

    @inference
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        labels = self.classifier(x).argmax(-1)
        z = self.encoder.point_estimate(x, labels)
        return torch.cat([z, self.one_hot(labels, z)], -1)

    @inference
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z)

    @inference
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        """Return p(x | y, z) at ``num`` draws of z, and of y if its label is missing or no context is given.

        Args:
            num: number of draws.
            context: labels, (num,), -1 for any class.
        """
        z = self.prior.sample(num)
        drawn = torch.randint(self.num_classes, (num,), device=z.device)
        labels = drawn if context is None else torch.where(context >= 0, context.long(), drawn)
        return self.decode(torch.cat([z, self.one_hot(labels, z)], -1))

    # The accuracy of q(y | x), and the active units of z.

    def latent_statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Return the mean of z and its square, (B, D), and which labels are known and found, (B,)."""
        label, code = trace.latents
        mean = torch.einsum("kb,kbd->bd", trace.weights, code.q.mean)
        mean = mean.to(accumulation_dtype(mean))
        labels = trace.context if trace.context is not None else mean.new_full((len(mean),), -1)
        is_known = labels >= 0
        is_found = is_known & (label.q.mean.argmax(-1) == labels)
        return {"mean0": mean, "square0": mean.square(), "known": is_known.to(mean), "found": is_found.to(mean)}

    def reduce_latent_statistics(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Return ``active_units``, ``accuracy`` and the share of examples with a label, ``labelled``."""
        values = super().reduce_latent_statistics(means)
        if known := float(means.get("known", 0.0)):
            values |= {"accuracy": float(means["found"]) / known, "labelled": known}
        return values

    def stage_values(self, stage: str) -> dict[str, float]:
        """Return the means of a stage; ``accuracy`` has its standard error over the examples with a label."""
        values = super().stage_values(stage)
        num = values.pop("labelled", 0.0) * self.stage_metrics(stage).num
        if num > 1.5:  # one example has no spread
            values["accuracy_error"] = math.sqrt(values["accuracy"] * (1 - values["accuracy"]) / (num - 1))
        return values
