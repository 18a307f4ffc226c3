"""An autoregressive distribution of sequences of tokens, which holds the network that predicts the next token."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from vaezoo.missing import fill_missing, is_observed


class TokenSequenceDistribution(Distribution):
    """The distribution of sequences x of T tokens, P(x) = prod_t P(x_t | x_1, ..., x_{t-1}, h).

    ``log_prob`` computes all factors in one pass, from the given tokens (teacher forcing), and leaves out the padding,
    -1. A sample is drawn token by token.

    Args:
        next_logits: a function of h (*batch, H) and tokens (*batch, T) that returns the logits of each token from those
            before it, (*batch, T, V). The shapes broadcast.
        stepper: a function of h that returns a function to make sequences: from the last token (*batch,), or None at
            the start, it returns the logits of the next one, (*batch, V).
        h: vectors that the tokens depend on, (*batch, H).
        length: T.
        end_token: the token that ends a sequence; the rest of a sample is padding. None: there is none.
    """

    def __init__(
        self,
        next_logits: Callable[[Tensor, Tensor], Tensor],
        stepper: Callable[[Tensor], Callable[[Tensor | None], Tensor]],
        h: Tensor,
        length: int,
        end_token: int | None = None,
    ):
        self.next_logits, self.stepper = next_logits, stepper
        self.h, self.length, self.end_token = h, length, end_token
        super().__init__(h.shape[:-1], torch.Size([length]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        h = self.h.expand(*batch_shape, self.h.shape[-1])
        return TokenSequenceDistribution(self.next_logits, self.stepper, h, self.length, self.end_token)

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = self.next_logits(self.h, value).log_softmax(-1)
        index = fill_missing(value).unsqueeze(-1).expand(*log_p.shape[:-1], 1)
        return torch.where(is_observed(value), log_p.gather(-1, index).squeeze(-1), 0).sum(-1)

    @torch.no_grad()
    def generate(self, choose: Callable[[Tensor], Tensor], sample_shape: Sequence[int] = ()) -> Tensor:
        """Make sequences token by token, (*sample, *batch, T), int64, with -1 after the end token.

        Args:
            choose: a function from logits (..., V) to tokens (...).
            sample_shape: number of sequences for each h.
        """
        shape = (*sample_shape, *self.batch_shape)
        h = self.h.expand(*shape, self.h.shape[-1])
        tokens = torch.full((*shape, self.length), -1, device=h.device)
        running = torch.ones(shape, dtype=torch.bool, device=h.device)
        step = self.stepper(h)
        token = None
        for t in range(self.length):
            if not running.any():
                break
            token = choose(step(token))
            tokens[..., t] = torch.where(running, token, -1)
            if self.end_token is not None:
                running = running & (token != self.end_token)
        return tokens

    @property
    def mean(self) -> Tensor:
        """The sequence that represents the distribution: at each step the most probable token (greedy decoding)."""
        return self.generate(lambda logits: logits.argmax(-1))

    @property
    def mode(self) -> Tensor:
        """An approximation of the most probable sequence: that of greedy decoding."""
        return self.mean

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.generate(lambda logits: Categorical(logits=logits, validate_args=False).sample(), sample_shape)
