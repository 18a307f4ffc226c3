"""An autoregressive family of sequences of tokens."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.distributions import TokenSequenceDistribution
from vaezoo.families.base import Family
from vaezoo.missing import fill_missing, is_observed
from vaezoo.nets.mlp import activation_function, init_glorot
from vaezoo.types import Shape


class CausalConv(nn.Conv1d):
    """A convolution over time whose output at t depends on inputs up to t.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel: size of the kernel.
        dilation: distance of the inputs of one output.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1):
        super().__init__(in_channels, out_channels, kernel, dilation=dilation)
        self.before = (kernel - 1) * dilation

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (self.before, 0)))


class TokenSequence(Family):
    """An autoregressive decoder of sequences of T tokens, P(x) = prod_t P(x_t | x_1, ..., x_{t-1}, h).

    The decoder network makes the vector h from z; this family holds the network that predicts the next token from h and
    the tokens before: an embedding, causal convolutions with dilations 1, 2, 4, ... and residual connections, and a
    softmax. It scores a sequence with teacher forcing, without its padding, -1. Training starts near the frequencies of
    the tokens. The point estimate is the sequence of greedy decoding. Raw output: h, (hidden,).

    An autoregressive decoder that sees many tokens can ignore z; its memory is ``receptive_field`` tokens. Word dropout
    weakens it: in training, each token that the network sees is replaced by ``unknown_token`` with this probability.
    The tokens that are scored stay as they are, and in evaluation nothing is replaced. With few sentences, ``dropout``
    and ``tied`` keep the network from learning them by heart.

    References: Bowman et al. 2016, Generating Sentences from a Continuous Space, https://arxiv.org/abs/1511.06349,
    section 3.1; Yang et al. 2017, Improved Variational Autoencoders for Text Modeling using Dilated Convolutions,
    https://arxiv.org/abs/1702.08139; Press & Wolf 2017, Using the Output Embedding to Improve Language Models,
    https://arxiv.org/abs/1608.05859. Differs from Bowman et al.: convolutions in place of an LSTM.

    >>> family = TokenSequence(num_tokens=10, length=6)
    >>> family.raw_shape((6,))
    (128,)
    >>> family(torch.zeros(4, 128)).log_prob(torch.tensor([3, 5, 1, 9, -1, -1])).shape
    torch.Size([4])

    Args:
        num_tokens: V, the size of the vocabulary.
        length: T, the number of tokens of x, with padding.
        hidden: size of h and number of channels of the convolutions.
        embedding: size of the vector of each token.
        num_layers: number of convolutions.
        kernel: size of the kernel of each convolution; >= 2.
        end_token: the token that ends a sequence; what follows is padding. None: there is none.
        word_dropout: probability with which a token before the predicted one is replaced in training; in [0, 1].
        unknown_token: the token that replaces it: ``<unk>``, which is token 0 of every vocabulary.
        dropout: probability with which an input of a convolution or of the softmax is 0 in training; in [0, 1).
        tied: whether the vectors of the tokens are the rows of the softmax, times the square root of their size;
            ``embedding`` must then be ``hidden``.
        activation: name of a function in ``torch.nn.functional``.
    """

    supported_data = frozenset({"token"})
    supports_missing = True

    def __init__(
        self,
        num_tokens: int,
        length: int,
        hidden: int = 128,
        embedding: int = 64,
        num_layers: int = 4,
        kernel: int = 3,
        end_token: int | None = None,
        word_dropout: float = 0.0,
        unknown_token: int = 0,
        dropout: float = 0.0,
        tied: bool = False,
        activation: str = "relu",
    ):
        super().__init__()
        smallest = {"num_tokens": 2, "length": 1, "hidden": 1, "embedding": 1, "num_layers": 1, "kernel": 2}
        for (name, least), value in zip(
            smallest.items(), (num_tokens, length, hidden, embedding, num_layers, kernel), strict=True
        ):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if end_token is not None and not 0 <= end_token < num_tokens:
            raise ValueError(f"end_token must be one of the tokens 0 ... {num_tokens - 1}, got {end_token}")
        if not 0 <= unknown_token < num_tokens:
            raise ValueError(f"unknown_token must be one of the tokens 0 ... {num_tokens - 1}, got {unknown_token}")
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"word_dropout must be a probability in [0, 1], got {word_dropout}")
        self.num_tokens, self.length, self.hidden, self.end_token = num_tokens, length, hidden, end_token
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a probability in [0, 1), got {dropout}")
        if tied and embedding != hidden:
            raise ValueError(f"tied needs vectors of one size, got embedding={embedding} and hidden={hidden}")
        self.word_dropout, self.unknown_token, self.tied = word_dropout, unknown_token, tied
        # The last vector is for the start of a sequence; tied, it is the only one.
        self.embedding = nn.Embedding(1 if tied else num_tokens + 1, embedding)
        self.convs: Iterable[CausalConv] = nn.ModuleList(  # type: ignore[assignment]
            CausalConv(embedding if i == 0 else hidden, hidden, kernel, 2**i) for i in range(num_layers)
        )
        self.contexts = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(num_layers))
        self.out = nn.Linear(hidden, num_tokens)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation_function(activation)
        self.receptive_field = 1 + (kernel - 1) * (2**num_layers - 1)
        init_glorot(self)

    @property
    def limits(self) -> dict[str, str]:
        return {"impute": "what follows the end of a sequence is padding, and no token within it can be missing"}

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        if tuple(shape) != (self.length,):
            raise ValueError(
                f"TokenSequence has length={self.length}, but x has the shape {tuple(shape)}: use one length for the "
                f"data and the likelihood"
            )
        return (self.hidden,)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return (raw,)

    def next_logits(self, h: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of each token from h and the tokens before it, (*batch, T, V), in float32 at least.

        In training, the tokens before it are subject to word dropout.

        Args:
            h: (*batch, hidden).
            tokens: (*batch, T); the batch dimensions broadcast against those of h.
        """
        start = torch.full_like(tokens[..., :1], self.num_tokens)
        before = fill_missing(tokens[..., :-1])
        if self.training and self.word_dropout > 0:
            is_dropped = torch.rand(before.shape, device=before.device) < self.word_dropout
            before = before.masked_fill(is_dropped, self.unknown_token)
        return self.logits_after(h, torch.cat([start, before], -1))

    def stepper(self, h: Tensor) -> Callable[[Tensor | None], Tensor]:
        """Return a function that makes sequences: from the last token it returns the logits of the next one.

        It is called with None for the first token, then with each token (*batch,), and returns the logits (*batch, V),
        in float32 at least. What the convolutions have seen is kept, so a token takes the time of one position.

        Args:
            h: (*batch, hidden).
        """
        h = h.to(self.out.weight.dtype)
        contexts = [context(h) for context in self.contexts]
        seen: list[list[Tensor]] = [[] for _ in self.convs]  # inputs of each convolution, (*batch, channels) each

        def step(token: Tensor | None) -> Tensor:
            start = torch.full(h.shape[:-1], self.num_tokens, device=h.device)
            steps = self.dropout(self.embed(start if token is None else fill_missing(token)))
            for i, (conv, context) in enumerate(zip(self.convs, contexts, strict=True)):
                seen[i] = [*seen[i][-conv.before :], steps]
                window = seen[i][:: -conv.dilation[0]][::-1]  # what the kernel sees: before the start there are zeros
                window = [torch.zeros_like(steps)] * (conv.kernel_size[0] - len(window)) + window
                inputs = torch.stack(window, -1)
                inputs = inputs.reshape(-1, *inputs.shape[-2:])  # (number of sequences, channels, kernel)
                out = F.conv1d(inputs, conv.weight, conv.bias).view(*steps.shape[:-1], -1)
                out = self.dropout(self.activation(out + context))
                steps = out if i == 0 else steps + out
            logits = self.out(steps)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

        return step

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the vectors of tokens (*batch, T), (*batch, T, embedding)."""
        if not self.tied:
            return self.embedding(tokens)
        scaled = math.sqrt(self.hidden) * self.out.weight
        return F.embedding(tokens, torch.cat([scaled, self.embedding.weight]))

    def logits_after(self, h: Tensor, before: Tensor) -> Tensor:
        """Return the logits of the token after each one in ``before``, (*batch, T, V).

        Args:
            h: (*batch, hidden).
            before: tokens, and ``num_tokens`` for the start, (*batch, T).
        """
        h = h.to(self.out.weight.dtype)
        steps = self.dropout(self.embed(before)).transpose(-1, -2)  # (*batch, embedding, T)
        for i, (conv, context) in enumerate(zip(self.convs, self.contexts, strict=True)):
            out = conv(steps.flatten(0, -3)).unflatten(0, steps.shape[:-2]) if steps.dim() > 2 else conv(steps)
            out = self.dropout(self.activation(out + context(h).unsqueeze(-1)))
            steps = out if i == 0 else steps + out
        logits = self.out(steps.transpose(-1, -2))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def forward(self, *params: Tensor) -> TokenSequenceDistribution:
        (h,) = params
        return TokenSequenceDistribution(self.next_logits, self.stepper, h, self.length, self.end_token)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        """Return h = 0: the mean of tokens says nothing."""
        return (mean.new_zeros(self.hidden),)

    @torch.no_grad()
    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return h = 0, and set the bias of the softmax to the logarithms of the frequencies of the tokens in x.

        The logits also depend on the tokens before, so no h alone gives these frequencies. Half a token is added to
        each count (Krichevsky & Trofimov 1981, https://doi.org/10.1109/TIT.1981.1056331): other examples may have
        tokens that these do not have.
        """
        counts = torch.bincount(x[is_observed(x)].long(), minlength=self.num_tokens).double() + 0.5
        self.out.bias.copy_((counts / counts.sum()).log())
        return self.params_for_mean(mean)

    def check(self, x: Tensor) -> None:
        super().check(fill_missing(x))
        if not (x < self.num_tokens).all():
            raise ValueError(
                f"TokenSequence takes the tokens 0 ... {self.num_tokens - 1}, got {x.max()}: use "
                f"num_tokens={x.max() + 1}, or correct the data"
            )
        padding = ~is_observed(x)
        if self.end_token is not None:
            ended = (x == self.end_token).cumsum(-1)[..., :-1] > 0
            if not padding[..., 1:][ended].all():
                raise ValueError(f"a token follows the end token {self.end_token}: fill the rest of x with -1")
        if (padding[..., :-1] & ~padding[..., 1:]).any():
            raise ValueError("a token follows the padding, -1: padding is allowed at the end of a sequence only")
