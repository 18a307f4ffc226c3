"""The variational recurrent neural network and the deep Kalman filter: a latent for each frame of a sequence."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaezoo.conditional import Conditional, FrameConditional, Network
from vaezoo.distributions import FrameSequenceDistribution
from vaezoo.families import Family, Masked
from vaezoo.families import Normal as NormalFamily
from vaezoo.missing import precedes_end
from vaezoo.models.base import LatentVariableModel
from vaezoo.models.inference import inference
from vaezoo.nets import MLP
from vaezoo.objectives import ELBO, Objective
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


class Path(NamedTuple):
    """The latents of sequences, frame by frame.

    Args:
        z: the latents, (K, B, T, D_z).
        q: q(z_t | z_<t, x) of all frames, batch shape (K, B).
        p: p(z_t | z_<t, x_<t) of all frames, batch shape (K, B).
        h: the states that the frames depend on, (K, B, T, H).
    """

    z: Tensor
    q: Distribution
    p: Distribution
    h: Tensor


class VRNN(LatentVariableModel):
    """The variational recurrent neural network: each frame of a sequence has a latent, and a recurrent state the past.

        h_1 = 0,  h_t = GRU(h_{t-1}, [z_{t-1}, phi(x_{t-1})])
        p(z_t | z_<t, x_<t) = N(mu(h_t), diag sigma(h_t)^2),  p(x_t | z_<=t, x_<t) = family(net([z_t, h_t]))
        q(z_t | z_<t, x) = N(mu([h_t, b_t]), diag sigma([h_t, b_t])^2),  b_t = GRU(b_{t+1}, phi(x_t))
        ELBO = sum_t E_q[log p(x_t | z_<=t, x_<t) - KL(q(z_t | z_<t, x), p(z_t | z_<t, x_<t))]

    The KL of each frame has a closed form, given the samples before it. ``autoregressive=False`` is the deep Kalman
    filter, a Markov chain of latents in which frames depend on their own latent alone:

        h_t = z_{t-1},  p(z_t | z_{t-1}) = N(mu(h_t), diag sigma(h_t)^2),  p(x_t | z_t) = family(net(z_t))

    Sequences shorter than T end with frames of NaN. The model sees none of them: log p is not summed over them, and
    their KL is 0. The ELBO is a bound on log p(x) given the length. Entries that are missing elsewhere are left out of
    log p too, and need an encoder that knows them, such as ``vaezoo.nets.MaskedInput``, which the command line chooses.

    z is a sequence (T, D_z). ``decode(z)`` and ``sample`` make sequences of T frames, one after the other. Draws of
    ``sample(num)`` are made by ``.sample()``, since each latent depends on the frames before it.

    References: Chung et al. 2015, A Recurrent Latent Variable Model for Sequential Data,
    https://arxiv.org/abs/1506.02216; Krishnan et al. 2015, Deep Kalman Filters, https://arxiv.org/abs/1511.05121.
    Differs from the papers: in Chung et al. q sees x_<=t only, which is ``smoothing=False``, but the exact posterior
    depends on the frames that follow too (Krishnan et al. 2017, Structured Inference Networks for Nonlinear State Space
    Models, https://arxiv.org/abs/1609.09869). There is no network phi for z.

    >>> model = VRNN((7, 3), latent_dim=2, hidden=16, autoregressive=True, smoothing=True)
    >>> x = torch.zeros(5, 7, 3)
    >>> x[0, 4:] = torch.nan  # the first sequence has 4 frames
    >>> trace = model(x)
    >>> trace.latent.z.shape, trace.latent.kl_per_dim[0].sum(1) > 0
    (torch.Size([1, 5, 7, 2]), tensor([ True,  True,  True,  True, False, False, False]))
    >>> model.sample(3).sample().shape
    torch.Size([3, 7, 3])

    Args:
        data_shape: shape of one sequence, (T, D): the largest number of frames, and the numbers of a frame.
        latent_dim: D_z, the number of latent dimensions of a frame; >= 1.
        hidden: size of the states and of phi(x), and width of the networks of q and p(z_t | ...); >= 1.
        autoregressive: whether latents and frames depend on the frames before them; false: the deep Kalman filter.
        smoothing: whether q sees the frames that follow; false: b_t = phi(x_t).
        encoder: makes the network phi, from a frame (D,) to (hidden,); ``vaezoo.nets.MLP`` if None.
        decoder: makes the network of p(x_t | ...); ``vaezoo.nets.MLP`` if None.
        likelihood: family of a frame; a normal with mean and scale from the network if None.
        objective: computes the loss; the negative ELBO if None.
        num_samples: K, the number of posterior samples per sequence; >= 1.
        **kwargs: arguments of ``LatentVariableModel``.

    Raises:
        ValueError: an example is not a sequence of vectors, or a number is out of range.
    """

    latent_kind = "map"

    def __init__(
        self,
        data_shape: Shape,
        latent_dim: int,
        hidden: int,
        autoregressive: bool,
        smoothing: bool,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        likelihood: Family | None = None,
        objective: Objective | None = None,
        num_samples: int = 1,
        **kwargs,
    ):
        if len(data_shape) != 2:
            raise ValueError(
                f"{type(self).__name__} takes sequences of vectors, of shape (T, D), but the examples have the shape "
                f"{tuple(data_shape)}: use data=sequences, or a model of images such as model=conv_vae"
            )
        for name, value in {"latent_dim": latent_dim, "hidden": hidden, "num_samples": num_samples}.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value}")
        super().__init__(data_shape, objective or ELBO(), **kwargs)
        self.length, dim = self.data_shape
        self.latent_shape = (self.length, latent_dim)
        self.autoregressive, self.smoothing, self.num_samples = autoregressive, smoothing, num_samples
        self.state_size = hidden if autoregressive else latent_dim
        mlp = partial(MLP, hidden=[hidden], activation="tanh")
        family = likelihood or NormalFamily()
        self.encoder = Network((dim,), (hidden,), encoder or MLP)
        self.backward_cell = nn.GRUCell(hidden, hidden) if smoothing else None
        self.cell = nn.GRUCell(latent_dim + hidden, hidden) if autoregressive else None
        self.transition = Conditional((self.state_size,), (latent_dim,), mlp, NormalFamily())
        self.posterior = Conditional((self.state_size + hidden,), (latent_dim,), mlp, NormalFamily())
        self.decoder = FrameConditional(
            (latent_dim + hidden * autoregressive,),
            (dim,),
            decoder or MLP,
            family if family.supports_missing else Masked(family),
        )

    @property
    def limits(self) -> dict[str, str]:
        limits = super().limits | {"active_units": "z is a sequence: see kl_dim, the KL of a dimension in all frames"}
        reason = "a frame depends on the frames before it, so p(missing given z) needs them: use model=deep_kalman"
        return limits | ({"impute": reason} if self.autoregressive else {})

    # The parts of a step.

    def summarize(self, features: Tensor, present: Tensor) -> Tensor:
        """Return b_t of all frames, (B, T, H): what q(z_t | ...) sees of x_t and the frames that follow.

        Args:
            features: phi(x), (B, T, H).
            present: which frames are not after the end, (B, T). The state starts at 0 before the last of them.
        """
        if self.backward_cell is None:
            return features
        b = torch.zeros_like(features[:, 0])
        states = []
        for t in reversed(range(self.length)):
            b = torch.where(present[:, t, None], self.backward_cell(features[:, t], b), b)
            states.append(b)
        return torch.stack(states[::-1], 1)

    def next_state(self, h: Tensor, z: Tensor, features: Tensor) -> Tensor:
        """Return h_{t+1}, (*batch, H), from h_t, z_t and phi(x_t), (*batch, ...) each."""
        if self.cell is None:
            return z
        inputs = torch.cat([z, features.to(z)], -1)
        state: Tensor = self.cell(inputs.flatten(0, -2), h.flatten(0, -2))
        return state.to(h.dtype).reshape(h.shape)

    def frame(self, z: Tensor, h: Tensor) -> Distribution:
        """Return p(x_t | z_<=t, x_<t), batch shape (*batch,), from z_t and h_t."""
        return self.decoder(torch.cat([z, h], -1) if self.autoregressive else z)

    def frames(self, z: Tensor, h: Tensor) -> Distribution:
        """Return p(x | ...) of all frames, batch shape (*batch,), from z and h, (*batch, T, ...)."""
        return Independent(self.frame(z, h), 1, validate_args=False)

    # Passes over a sequence.

    def infer(self, x: Tensor, num_samples: int, choose: Callable[[Normal], Tensor]) -> Path:
        """Return the latents of sequences.

        Args:
            x: sequences, (B, T, D).
            num_samples: K.
            choose: a function from q(z_t | ...) to z_t, such as a draw or the mean.
        """
        present = precedes_end(x)
        features = self.encoder(torch.where(present.unsqueeze(-1), x, 0))
        summary = self.summarize(features, present)
        h = summary.new_zeros(num_samples, x.shape[0], self.state_size)  # len(x) would fix the batch of an export
        steps = []
        for t in range(self.length):
            p = self.transition(h).base_dist
            b = summary[:, t].expand(num_samples, -1, -1)
            q = self.posterior(torch.cat([h, b], -1)).base_dist
            is_present = present[:, t, None]
            loc, scale = torch.where(is_present, q.loc, p.loc), torch.where(is_present, q.scale, p.scale)
            z = choose(Normal(loc, scale, validate_args=False))
            steps.append((z, loc, scale, p.loc, p.scale, h))
            h = self.next_state(h, z, features[:, t].expand(num_samples, -1, -1))
        z, loc, scale, p_loc, p_scale, states = (torch.stack(parts, -2) for parts in zip(*steps, strict=True))
        return Path(z, self.chain(loc, scale), self.chain(p_loc, p_scale), states)

    @staticmethod
    def chain(loc: Tensor, scale: Tensor) -> Distribution:
        """Return the distribution of z with these parameters of all frames, (K, B, T, D_z)."""
        return Independent(Normal(loc, scale, validate_args=False), 2, validate_args=False)

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        self.check_shape(x)
        path = self.infer(x, self.num_samples if num_samples is None else num_samples, lambda q: q.rsample())
        return Trace(x, self.frames(path.z, path.h), (Latent(path.q, path.p, path.z),), context)

    def check_shape(self, x: Tensor) -> None:
        """Raise a ValueError if x is not (B, T, D)."""
        if x.dim() != 3 or x.shape[1:] != self.data_shape:
            raise ValueError(f"expected a batch of shape (*batch, {str(self.data_shape)[1:]}, got {tuple(x.shape)}")

    @inference
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_shape(x)
        return self.infer(x, 1, lambda q: q.mean).z[0]

    def posterior_means(self, trace: Trace) -> list[Tensor]:
        """Return the codes; the mean of q(z_t | ...) is noisy, since it depends on samples of the frames before."""
        return [self.encode(trace.x)]

    def latent_statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Return the KL of each latent dimension, summed over the frames, (B, D_z)."""
        kl = trace.latent.kl_per_dim
        assert kl is not None
        return {"kl_dim0": kl.sum(1)}

    # Sequences from latents.

    def generate(
        self, choose: Callable[[Distribution], Tensor], batch_shape: Sequence[int], z: Tensor | None = None
    ) -> Tensor:
        """Make sequences frame by frame, (*batch, T, D).

        Args:
            choose: a function from p(x_t | ...) to x_t, such as a draw or the mean.
            batch_shape: (*batch,).
            z: latents, (*batch, T, D_z); None: each is drawn from p(z_t | z_<t, x_<t).
        """
        h = self.decoder.offset.new_zeros(*batch_shape, self.state_size)
        frames = []
        for t in range(self.length):
            z_t = self.transition(h).sample() if z is None else z[..., t, :].expand(*batch_shape, -1)
            x_t = choose(self.frame(z_t, h))
            frames.append(x_t)
            h = self.next_state(h, z_t, self.encoder(x_t))
        return torch.stack(frames, -2)

    def predict(self, x: Tensor, z: Tensor) -> Distribution:
        """Return p(x | z) of all frames, each given the frames of x before it.

        Args:
            x: sequences, a shape that broadcasts against (*batch, T, D).
            z: latents, (*batch, T, D_z).
        """
        features = self.encoder(torch.where(precedes_end(x).unsqueeze(-1), x, 0))
        batch = torch.broadcast_shapes(features.shape[:-1], z.shape[:-1])  # x may have more axes, of samples
        features, z = features.expand(*batch, -1), z.expand(*batch, -1)
        h = z.new_zeros(*z.shape[:-2], self.state_size)
        states = []
        for t in range(self.length):
            states.append(h)
            h = self.next_state(h, z[..., t, :], features[..., t, :])
        return self.frames(z, torch.stack(states, -2))

    def joint(self, num: int) -> Distribution:
        """Return the distribution of sequences, p(x), with batch shape (num,); its density has no formula."""

        def predict(x: Tensor) -> Distribution:
            raise NotImplementedError("log p(x) has no formula: use log_marginal")

        return FrameSequenceDistribution(predict, self.generate, (num,), self.data_shape)

    @inference
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        if not self.autoregressive:
            return self.frames(z, z)
        predict, generate = partial(self.predict, z=z), partial(self.generate, z=z)
        return FrameSequenceDistribution(predict, generate, z.shape[:-2], self.data_shape)

    @inference
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        if self.autoregressive:
            return self.joint(num)
        h = self.decoder.offset.new_zeros(num, self.state_size)
        steps = []
        for _ in range(self.length):
            h = self.transition(h).sample()
            steps.append(h)
        return self.decode(torch.stack(steps, -2))
