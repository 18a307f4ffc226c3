"""Change formulas of the package on purpose, one at a time, and count how many of the changes the tests notice.

    python tests/campaign/mutations.py --named-only     the test files named for each, then the oracles: about an hour
    python tests/campaign/mutations.py --jobs 2         all test files for those that survive: some 10 minutes more each
    python tests/campaign/mutations.py --only 3,17      these two; --start 20 begins with the 20th
    python tests/campaign/mutations.py --check          only check that every mutation fits the source: a second

Each mutation is a mistake that a competent programmer could make: a missing factor, a wrong sign, n in place of
n - 1, the training set in place of the test set. They were chosen from the source and the papers, without reading the
tests, so that the share of noticed ones is an honest estimate. The script copies the project into a temporary folder
and runs the tests there: first without a change (everything must pass), then with one mutation after another. It
prints a line for each mutation, then the figures, and exits with 1 if a mutation survives that is not marked as
harmless, with 2 if it cannot be run at all. Times are for one core. Run it on a quiet machine: a test that fails
because the machine is busy counts as one that has noticed.

If the source of a mutation has changed, the script says so and does not start: update the entry, keep the mistake.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import runpy
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
COPIED = (
    "vaezoo", "conf", "docs", "tests", ".github", "run.py", "README.md", "pyproject.toml", "mkdocs.yml", "LICENSE",
    "CHANGELOG.md", "CITATION.cff",
)  # fmt: skip
# What the tests import beside vaezoo. It is loaded once: each run of pytest is a fork of this process.
LOADED = (
    "torch", "torch._dynamo", "torchvision.datasets", "lightning.pytorch", "torchmetrics", "hydra", "omegaconf",
    "matplotlib.pyplot", "scipy.stats", "sklearn.ensemble", "sklearn.linear_model", "sklearn.svm", "sklearn.cluster",
    "sklearn.datasets", "sklearn.metrics", "sklearn.mixture", "sklearn.neighbors", "rich.table", "rich.live", "tqdm",
)  # fmt: skip


CONFIRM = """on a busy machine: the unchanged copy is not tested as a whole before; each test that notices a mutation
is run on it right after, and does not count if it fails there"""


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Args:
        file: below ``vaezoo/``.
        old: a piece of its source, which occurs once.
        new: what replaces it.
        what: the mistake, in one line.
        tests: names of the test files to try first, ``trace`` for ``tests/test_trace.py``, separated by spaces.
        harmless: why no test can notice it; empty if one should.
    """

    file: str
    old: str
    new: str
    what: str
    tests: str
    harmless: str = ""

    def text(self) -> str:
        """The changed source of the file.

        Raises:
            ValueError: ``old`` does not occur exactly once, or the changed file is no Python.
        """
        source = (REPO / "vaezoo" / self.file).read_text()
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"vaezoo/{self.file}: {self.old!r} occurs {count} times, it must occur once")
        changed = source.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"vaezoo/{self.file}: with {self.new!r} it is no Python: {error}") from error
        return changed


MUTATIONS = (
    # Jobs side by side, the page of a run, pictures, the header
    Mutation(
        "runs/jobs.py",
        "for process in tuple(self.running):",
        "for process in tuple(self.running)[:1]:",
        "a signal to stop reaches one of several jobs",
        "warm",
    ),
    Mutation(
        "runs/shares.py",
        "limit // threads) if jobs",
        "limit) if jobs",
        "jobs side by side have more threads than cores",
        "warm",
    ),
    Mutation(
        "runs/warm.py",
        "    renew_wandb_folder()\n    if",
        "    if",
        "the first job to end deletes the pictures of the others",
        "warm",
    ),
    Mutation(
        "pictures/model.py",
        "(places - code[:, None]).abs().argmin(1)",
        "(places - axes.center[:, None]).abs().argmin(1)",
        "the traversal marks the middle, not the example's code",
        "picture_contents",
    ),
    Mutation(
        "run_page/page.py",
        "(int(row[places[\"step\"]]) + 1) / per_epoch",
        "int(row[places[\"step\"]]) / per_epoch",
        "learning curves begin a step too early",
        "run_page",
    ),
    Mutation(
        "callbacks/progress.py",
        "(limit - done) / (done - start)",
        "(limit - done) / done",
        "the time left is that of a training that began at this epoch",
        "terminal",
    ),
    Mutation(
        "training/machine.py",
        "slowdown < 1.2",
        "slowdown > 1.2",
        "the note on bf16 comes where bf16 is fast",
        "notes",
    ),
    Mutation(
        "metrics/collapse.py",
        "kl is not None and kl < LEAST_INFORMATION",
        "kl is not None and kl <= 0",
        "a collapse with a small KL is not reported",
        "terminal latent_metrics",
    ),
    # Few labels, and conditions that are images
    Mutation(
        "objectives/semi_supervised.py",
        "(bounds + log_prior)",
        "bounds",
        "ln C is left out of the bound of an example with a label",
        "m2_vae",
    ),
    Mutation(
        "objectives/semi_supervised.py",
        "observed.sum().clamp(min=1)",
        "len(observed)",
        "the cross-entropy is divided by the number of all examples",
        "m2_vae",
    ),
    Mutation(
        "models/m2_vae.py",
        "self.decoder(torch.cat([z, y], -1))",
        "self.decoder(torch.cat([z, log_q.exp().expand_as(y)], -1))",
        "the decoder is given q(y | x) in place of a sum over y",
        "m2_vae",
    ),
    Mutation(
        "inference/importance_sampling.py",
        "return log_w.logsumexp(1) - math.log(num_values), elbo.sum(1)",
        "return log_w.logsumexp(1), elbo.sum(1)",
        "the prior of an enumerated latent is left out of log p(x)",
        "m2_vae",
    ),
    Mutation(
        "data/conditions.py",
        "Split(x[:, :, half:].contiguous(), x[:, :, :half]",
        "Split(x, x[:, :, :half]",
        "the condition is also a part of x",
        "conditional_prior_vae",
    ),
    Mutation(
        "models/conditional_prior_vae.py",
        "prior=prior or partial(ContextNormal, context_shape=context_shape, net=net)",
        "prior=prior",
        "the prior does not depend on the condition",
        "conditional_prior_vae",
    ),
    # Several modalities
    Mutation(
        "families/experts.py",
        "total = 1 + weights.sum(-2)",
        "total = members.shape[-1] + weights.sum(-2)",
        "a product of experts has the prior once for each modality",
        "modalities",
    ),
    Mutation(
        "distributions/experts.py",
        "return log_p - self.num_present.to(log_p.dtype).log()",
        "return log_p",
        "the density of a mixture posterior is a sum, not a mean",
        "modalities",
    ),
    Mutation(
        "objectives/modalities.py",
        "(kl_divergence(one, single).sum(-1) * q.observed)",
        "kl_divergence(one, single).sum(-1)",
        "missing modalities are charged for in the loss",
        "modalities",
    ),
    # Results by example
    Mutation(
        "inference/imputation.py",
        "weights = log_w.to(accumulation_dtype(log_w)).softmax(0)",
        "weights = (0 * log_w).to(accumulation_dtype(log_w)).softmax(0)",
        "missing entries are filled in without importance weights",
        "imputation",
    ),
    Mutation(
        "inference/imputation.py",
        "torch.multinomial(weights,",
        "torch.multinomial(torch.ones_like(weights),",
        "the draws of missing entries ignore the weights",
        "imputation",
    ),
    Mutation(
        "metrics/conformal.py",
        "(1 + len(ordered) - below).double()",
        "(len(ordered) - below).double()",
        "a p-value without the example itself can be 0",
        "score",
    ),
    Mutation(
        "metrics/conformal.py",
        "torch.searchsorted(ordered, score)",
        "torch.searchsorted(ordered, score, right=True)",
        "equal scores do not count in a p-value",
        "score",
    ),
    Mutation(
        "tasks/score.py",
        'held_out = "val" if run.chosen == "test" else "test"',
        'held_out = "train" if run.chosen == "test" else "test"',
        "p-values come from the training examples",
        "score",
    ),
    Mutation(
        "data/own.py",
        "y = match_classes(split.y, names, known)",
        "y = split.y",
        "the classes of new data keep their own numbers",
        "new_data",
    ),
    # The bound
    Mutation(
        "trace.py",
        "kl_divergence(self.q.base_dist, self.p.base_dist)",
        "kl_divergence(self.p.base_dist, self.q.base_dist)",
        "KL(p, q) in place of KL(q, p)",
        "trace",
    ),
    Mutation(
        "trace.py",
        "return kl.mean(0) if per_sample else kl",
        "return kl.sum(0) if per_sample else kl",
        "the KL of a lower layer is summed over the posterior samples, not averaged",
        "trace ladder",
    ),
    Mutation(
        "trace.py",
        "return self.log_q - self.log_p",
        "return self.log_p - self.log_q",
        "the sampled KL has the wrong sign",
        "trace priors",
    ),
    Mutation(
        "trace.py",
        "self.expectation(self.log_px) - self.kl.sum(1)",
        "self.expectation(self.log_px) - self.kl.mean(1)",
        "the rate is the mean over layers, not their sum",
        "trace ladder",
    ),
    Mutation(
        "trace.py",
        "log_ratio = log_ratio + latent.log_p - latent.log_q",
        "log_ratio = self.log_px + latent.log_p - latent.log_q",
        "importance weights hold the last layer's densities alone",
        "trace ladder",
    ),
    # A network and its family
    Mutation(
        "conditional.py",
        "context.expand(*batch, *context.shape[1:]).flatten(0, len(batch) - 1)",
        "context.repeat_interleave(prod(batch[:-1]), 0)",
        "with several samples the labels are repeated in the wrong order",
        "trace cvae",
    ),
    Mutation(
        "conditional.py",
        "self.raw_outputs(inputs, context) + self.offset",
        "self.raw_outputs(inputs, context) - self.offset",
        "training starts from minus the mean's parameters",
        "trace families",
    ),
    Mutation(
        "conditional.py",
        "outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))",
        "outputs = outputs.contiguous()",
        "under autocast, densities are computed in bf16",
        "trace families training",
    ),
    # Families
    Mutation(
        "families/base.py",
        "((x == 0) | (x == 1)).all()",
        "((x == 0) | (x == 1)).any()",
        "grey images pass as bits if one pixel is black",
        "exact_rules families importance_sampling",
    ),
    Mutation(
        "families/bernoulli.py",
        "(torch.logit(mean, eps=1e-3),)",
        "(mean.clamp(1e-3, 1 - 1e-3),)",
        "training starts from the mean pixel in place of its logit",
        "families training",
    ),
    Mutation(
        "distributions/continuous_bernoulli.py",
        "torch.log(s / torch.tanh(s / 2))",
        "torch.log(s / torch.tanh(s))",
        "continuous Bernoulli: the normalizer lacks a factor 1/2 in tanh",
        "families",
    ),
    Mutation(
        "distributions/continuous_bernoulli.py",
        "series = 0.5 + logits / 12",
        "series = 0.5 + logits / 6",
        "continuous Bernoulli: a wrong coefficient in the mean's series around 0",
        "families",
    ),
    Mutation(
        "distributions/discretized_logistic.py",
        "width = torch.where(lowest | highest, torch.inf",
        "width = torch.where(lowest, torch.inf",
        "discretized logistic: the highest level does not get the upper tail",
        "families",
    ),
    Mutation(
        "distributions/discretized_logistic.py",
        "top = self.num_levels - 1\n",
        "top = self.num_levels\n",
        "discretized logistic: samples are k / 256, not k / 255",
        "families",
    ),
    Mutation(
        "families/discrete.py",
        "for i in (0, n, 2 * n))",
        "for i in (0, 2 * n, n))",
        "mixture of logistics: locations and log scales are swapped",
        "families",
    ),
    Mutation(
        "distributions/levels.py",
        "levels = torch.linspace(0, 1, self.top + 1,",
        "levels = torch.linspace(0, self.top / (self.top + 1), self.top + 1,",
        "categorical: the mean is taken over the levels k / 256",
        "families",
    ),
    Mutation(
        "families/normal.py",
        "scale = soft_floor(log_scale, self.min_log_scale).exp()",
        "scale = (soft_floor(log_scale, self.min_log_scale) / 2).exp()",
        "normal: the second plane is a log variance, its floor stays that of a log scale",
        "families posteriors trace",
    ),
    Mutation(
        "families/normal.py",
        "torch.full_like(loc, self.scale)",
        "torch.full_like(loc, self.scale**2)",
        "normal of fixed scale: the variance in place of the standard deviation",
        "families",
    ),
    Mutation(
        "families/normal.py",
        "return TorchLaplace(loc, self.scale.expand_as(loc)",
        "return TorchLaplace(loc, (self.scale / math.sqrt(2)).expand_as(loc)",
        "Laplace: the scale is a standard deviation",
        "families",
    ),
    Mutation(
        "distributions/optimal_scale_normal.py",
        "- scale.log() - math.log(2 * math.pi) / 2",
        "- scale.log() - math.log(math.pi) / 2",
        "normal of the best scale: the constant lacks a factor 2",
        "families",
    ),
    Mutation(
        "families/normal.py",
        "self.fit_scale if self.training else None",
        "self.fit_scale",
        "normal of the best scale: it is fitted to test batches too",
        "families training",
    ),
    Mutation(
        "families/normal.py",
        ".clamp(min=self.momentum)",
        ".clamp(max=self.momentum)",
        "normal of the best scale: the weight of a new batch falls to 0 and does not stay at momentum",
        "families",
    ),
    # Missing entries, and families of other data than images
    Mutation(
        "distributions/wrapped.py",
        "self.base.log_prob(fill_missing(value, self.fill_value))",
        "self.base.log_prob(value)",
        "missing entries are left out after the density, so gradients are NaN",
        "missing",
    ),
    Mutation(
        "distributions/wrapped.py",
        "self.base.log_prob(value) - self.log_scale",
        "self.base.log_prob(value) + self.log_scale",
        "another unit moves log p by plus ln of the scale",
        "missing layout",
    ),
    Mutation(
        "distributions/counts.py",
        "torch.lgamma(theta) - torch.lgamma(x + 1)",
        "torch.lgamma(theta)",
        "negative binomial without x!",
        "counts_and_categories oracles_samplers",
    ),
    Mutation(
        "distributions/counts.py",
        "- log_rate.exp() - torch.lgamma(x + 1)",
        "- log_rate.exp()",
        "Poisson without x!",
        "counts_and_categories oracles_samplers",
    ),
    Mutation(
        "distributions/coupled_mixture.py",
        "* (x - 0.5)",
        "* x",
        "coupled mixture: channels are not centred",
        "coupled_mixture",
    ),
    Mutation(
        "distributions/coupled_mixture.py",
        "c * (c - 1) // 2 + d",
        "c * (c - 1) // 2",
        "coupled mixture: blue depends on green by the coefficient of red",
        "coupled_mixture",
    ),
    Mutation(
        "distributions/log_normal.py",
        "- math.log(2 * math.pi) / 2 - y",
        "- math.log(2 * math.pi) / 2",
        "log-normal: the density of ln x, not of x",
        "counts_and_categories oracles_samplers",
    ),
    Mutation(
        "distributions/token_sequence.py",
        "torch.where(running, token, -1)",
        "token",
        "sentences go on after their end",
        "token_sequence",
    ),
    Mutation(
        "families/categories.py",
        "below[..., 1:] + above[..., :-1]",
        "below[..., 1:] + above[..., 1:]",
        "ordinal: both edges of a level are its upper one",
        "counts_and_categories",
    ),
    Mutation(
        "families/categories.py",
        "torch.tensor([*chain(*columns)]).argsort()",
        "torch.tensor([*chain(*columns)])",
        "columns of categories come back in the order of their groups",
        "counts_and_categories",
    ),
    Mutation(
        "families/discrete.py",
        "coefficients.tanh()",
        "coefficients",
        "coupled mixture: coefficients are not bounded",
        "coupled_mixture",
    ),
    Mutation(
        "families/token_sequence.py",
        "torch.bincount(x[is_observed(x)].long()",
        "torch.bincount(x.clamp(min=0).flatten().long()",
        "the frequencies of the tokens count the padding as <unk>",
        "token_sequence",
    ),
    Mutation(
        "families/token_sequence.py",
        "if self.training and self.word_dropout > 0:",
        "if self.word_dropout > 0:",
        "word dropout in evaluation",
        "text_vae",
    ),
    Mutation(
        "families/token_sequence.py",
        "math.sqrt(self.hidden) * self.out.weight",
        "self.out.weight",
        "tied vectors of tokens are not scaled",
        "text_vae",
    ),
    Mutation(
        "objectives/elbo.py",
        "partial(linear_rise, steps=warmup_steps)",
        "partial(linear_rise, steps=warmup_steps + 1)",
        "the weight of the KL term is one step late",
        "text_vae",
    ),
    Mutation(
        "data/audio.py",
        "(x.cpu().double() * self.scale + self.loc[:, None])",
        "(x.cpu().double() * self.scale)",
        "energies of sounds without the mean of their band",
        "audio",
    ),
    Mutation(
        "data/audio.py",
        '"family": likelihood, "scale": self.scale}',
        '"family": likelihood, "scale": 1.0}',
        "log p of the standardized energies is called that of the energies",
        "audio",
    ),
    Mutation(
        "data/text.py",
        "y = torch.tensor([numbers[name] for name in text.classes]",
        "y = torch.tensor([numbers[name] for name in sorted(text.classes)]",
        "the classes of sentences are in another order than the sentences",
        "text",
    ),
    Mutation(
        "models/text_cvae.py",
        "label_in_encoder=False",
        "label_in_encoder=True",
        "an encoder of tokens that is given the class",
        "text_vae",
    ),
    Mutation(
        "families/token_sequence.py",
        "seen[i] = [*seen[i][-conv.before :], steps]",
        "seen[i] = [*seen[i][-conv.before + 1 :], steps]",
        "the convolutions forget the first token that they see",
        "token_sequence",
    ),
    Mutation(
        "training/evaluation_loop.py",
        "is_observed(batch.x).sum(1).float()",
        "(is_observed(batch.x) | True).sum(1).float()",
        "the perplexity counts the padding",
        "text_vae",
    ),
    Mutation(
        "families/token_sequence.py",
        "self.before = (kernel - 1) * dilation",
        "self.before = (kernel - 1) * dilation // 2",
        "convolutions over tokens see later ones",
        "token_sequence",
    ),
    Mutation(
        "nets/masked_input.py",
        "observed.to(floats.dtype)",
        "floats.where(observed, 0)",
        "the network is given the data in place of the mask",
        "missing",
    ),
    Mutation(
        "priors/vamp.py",
        "x.nanmean(0)",
        "x.mean(0)",
        "pseudo-inputs of data with missing entries are NaN or grey",
        "missing",
    ),
    # Posteriors and priors
    Mutation(
        "distributions/triangular_normal.py",
        "(self.scale_tril * eps.unsqueeze(-2)).sum(-1)",
        "(self.scale_tril * eps.unsqueeze(-1)).sum(-2)",
        "samples of the full covariance use L' in place of L",
        "oracles_samplers posteriors",
    ),
    Mutation(
        "distributions/triangular_normal.py",
        "second_moment = tril.square().sum(-1)",
        "second_moment = tril.square().sum(-2)",
        "KL of the full covariance: sums over the columns of L, not its rows",
        "posteriors",
    ),
    Mutation(
        "priors/mixture.py",
        "nn.Parameter(spread * torch.randn",
        "nn.Parameter(spread**2 * torch.randn",
        "mixture prior: the means start with the square of the spread",
        "priors",
    ),
    Mutation(
        "priors/vamp.py",
        "components = posterior(self.pseudo_inputs)",
        "components = posterior(self.pixels)",
        "VampPrior: the encoder sees logits in place of pixels",
        "priors",
    ),
    Mutation(
        "priors/vamp.py",
        "examples = torch.logit(examples, eps=self.margin)",
        "examples = examples.clamp(self.margin, 1 - self.margin)",
        "VampPrior: starts from pixels in place of their logits",
        "priors",
    ),
    # Flows
    Mutation(
        "distributions/flow.py",
        "self.base.log_prob(u) - log_det",
        "self.base.log_prob(u) + log_det",
        "flow: the log density of a sample adds the log determinant",
        "flows",
    ),
    Mutation(
        "distributions/flow.py",
        "if self.last_sample is not None and value is self.last_sample[0]:",
        "if self.last_sample is not None and value.shape == self.last_sample[0].shape:",
        "flow: the density kept for the last sample is given for any other point of its shape",
        "exact_rules flows priors",
    ),
    Mutation(
        "distributions/flow.py",
        "for layer in reversed(self.layers):",
        "for layer in self.layers:",
        "flow: layers are inverted in the order in which they were applied",
        "flows priors",
    ),
    Mutation(
        "distributions/flow.py",
        "(w.square().sum(-1, keepdim=True) + 1e-12)",
        "(w.square().sum(-1, keepdim=True).sqrt() + 1e-12)",
        "planar flow: u is moved by w / |w| in place of w / |w|^2",
        "flows",
    ),
    Mutation(
        "nets/made.py",
        "sees = b[:, None] > a if i == len(hidden) else b[:, None] >= a",
        "sees = b[:, None] >= a",
        "MADE: an output sees its own dimension",
        "flows",
    ),
    Mutation(
        "families/flow.py",
        "reverse=t % 2 == 1",
        "reverse=False",
        "IAF: the order of the dimensions is never reversed",
        "flows",
    ),
    Mutation(
        "distributions/flow.py",
        "torch.sigmoid(s) * z + torch.sigmoid(-s) * m, F.logsigmoid(s).sum(-1)",
        "torch.sigmoid(s) * z + torch.sigmoid(-s) * m, torch.sigmoid(s).sum(-1).log()",
        "IAF: the log of a sum in place of the sum of logs",
        "flows",
    ),
    Mutation(
        "priors/flow.py",
        "keep_first=t % 2 == 0",
        "keep_first=True",
        "coupling prior: the first half is never moved",
        "flows priors",
    ),
    Mutation(
        "priors/flow.py",
        "(moved - t) * torch.exp(-s)), s.sum(-1)",
        "(moved - t) * torch.exp(-s)), -s.sum(-1)",
        "coupling: the inverse gives minus the log determinant",
        "flows priors",
    ),
    # The sphere
    Mutation(
        "distributions/bessel.py",
        "ratio = kappa.square() * rho / (4 * order_above * (order_above + 1))",
        "ratio = kappa.square() * rho / (4 * order_above * order_above)",
        "Bessel recurrence: v^2 in place of v (v + 1)",
        "posteriors",
    ),
    Mutation(
        "distributions/von_mises_fisher.py",
        "power = 2 / (m - 1) if m > 1 else math.inf",
        "power = 2 / m",
        "von Mises-Fisher: a wrong exponent in the proposals of the angle",
        "posteriors",
    ),
    Mutation(
        "distributions/von_mises_fisher.py",
        ".pow(self.dim - 2)",
        ".pow(self.dim - 1)",
        "von Mises-Fisher: a power off by one in the gradient for kappa",
        "posteriors",
    ),
    Mutation(
        "distributions/von_mises_fisher.py",
        "turned = tangent - (tangent * mu).sum(-1, keepdim=True) * mu",
        "turned = tangent",
        "von Mises-Fisher: the tangent does not turn with mu, whose gradient is wrong",
        "posteriors",
    ),
    Mutation(
        "distributions/von_mises_fisher.py",
        "q.kappa * ratio - log_norm",
        "q.kappa * ratio - log_norm - log_area(q.dim)",
        "von Mises-Fisher: the KL counts the area of the sphere, which cancels",
        "posteriors",
    ),
    # Quantisation
    Mutation(
        "distributions/vector_quantized.py",
        "self.num * math.log(len(self.codebook))",
        "self.num * math.log2(len(self.codebook))",
        "VQ: the rate is in bits",
        "vq",
    ),
    Mutation(
        "nets/codebook.py",
        "self.codebook.square().sum(1) - 2 * vectors.detach()",
        "self.codebook.square().sum(1) - vectors.detach()",
        "VQ: the distance to a code lacks the factor 2 of the product",
        "vq",
    ),
    Mutation(
        "nets/codebook.py",
        "self.sums.lerp_(sums, 1 - decay)",
        "self.sums.lerp_(sums, decay)",
        "VQ: decay and 1 - decay are swapped in the running sum",
        "vq",
    ),
    Mutation(
        "nets/codebook.py",
        "self.nearest(vectors), decay=0.0)",
        "self.nearest(vectors), decay=self.decay)",
        "VQ: the k-means of the start moves codes by 1 % only",
        "vq",
    ),
    Mutation(
        "nets/codebook.py",
        "inputs + (embeddings - inputs).detach()",
        "embeddings",
        "VQ: no gradient passes to the encoder through the codes",
        "vq",
    ),
    # Objectives
    Mutation(
        "objectives/elbo.py",
        "self.kl_term(trace) - trace.mean_log_px",
        "self.kl_term(trace) - trace.log_px.sum(0).mean()",
        "the loss sums the reconstruction over the posterior samples",
        "trace bounds",
    ),
    Mutation(
        "objectives/base.py",
        'torch.maximum(latent.kl_per_dim.mean(0), self.get_buffer("free_bits")).sum()',
        'torch.maximum(latent.kl_per_dim, self.get_buffer("free_bits")).flatten(1).sum(1).mean()',
        "free bits are granted to each example, not to the batch's mean",
        "trace contract",
    ),
    Mutation(
        "objectives/base.py",
        'torch.maximum(trace.kl.mean(0), self.get_buffer("free_bits")).sum()',
        'torch.maximum(trace.kl.mean(0).sum(), self.get_buffer("free_bits"))',
        "free bits per layer are granted once for all layers",
        "ladder trace",
    ),
    Mutation(
        "objectives/capacity.py",
        '(self.kl_term(trace) - self.get_buffer("capacity")).abs()',
        '(self.kl_term(trace) - self.get_buffer("capacity")).clamp(min=0)',
        "capacity: a rate below it costs nothing",
        "oracles_weights trace bounds",
    ),
    Mutation(
        "objectives/base.py",
        "min(1.0, step / steps)",
        "min(1.0, (step + 1) / steps)",
        "capacity: the schedule is one step ahead",
        "oracles_weights trace callbacks",
    ),
    Mutation(
        "objectives/vq.py",
        "(q.inputs - q.embeddings.detach())",
        "(q.inputs - q.embeddings)",
        "VQ: the commitment loss has no gradient, since the codes pass it straight through",
        "vq",
    ),
    Mutation(
        "objectives/vq.py",
        ".square().flatten(1).sum(1).mean()",
        ".square().flatten(1).mean(1).mean()",
        "VQ: the commitment is the mean over dimensions, not their sum",
        "vq",
    ),
    Mutation(
        "objectives/adversarial.py",
        "torch.rand_like(z).argsort(0)",
        "torch.rand_like(z[:, :1]).argsort(0).expand_as(z)",
        "FactorVAE: all dimensions get the same permutation",
        "critic",
    ),
    Mutation(
        "objectives/adversarial.py",
        "        z = z.detach()\n",
        "",
        "FactorVAE: the critic's loss trains the encoder",
        "critic",
    ),
    Mutation(
        "objectives/aggregate.py",
        "(num_train - 1) / (num_train * (batch - 1))",
        "(num_train - 1) / (num_train * batch)",
        "TC-VAE: stratified weights divide by B in place of B - 1",
        "aggregate",
    ),
    Mutation(
        "objectives/aggregate.py",
        "1 / (num_train * batch)).log()",
        "1 / batch).log()",
        "TC-VAE: weighted sampling forgets the size of the training set",
        "aggregate",
    ),
    Mutation(
        "objectives/aggregate.py",
        "(pairs.sum(3) + log_weight).logsumexp(2)",
        "(pairs.sum(3) + log_weight).logsumexp(1)",
        "TC-VAE: q(z) sums over the samples in place of the examples",
        "aggregate",
    ),
    Mutation(
        "objectives/aggregate.py",
        "(beta - 1) * tc",
        "beta * tc",
        "TC-VAE: the total correlation is counted once more than beta says",
        "aggregate",
    ),
    Mutation(
        "objectives/aggregate.py",
        "torch.diag(q.variance.flatten(1).mean(0))",
        "torch.diag(q.stddev.flatten(1).mean(0))",
        "DIP-VAE II: standard deviations in place of variances",
        "aggregate",
    ),
    Mutation(
        "objectives/discrepancy.py",
        "samples**2 * batch * (batch - 1)",
        "samples**2 * batch * batch",
        "MMD: N in place of N - 1 in the number of pairs",
        "aggregate",
    ),
    Mutation(
        "objectives/discrepancy.py",
        "(2 * x.shape[1] * s for s in",
        "(x.shape[1] * s for s in",
        "inverse multiquadratic kernel: C lacks the factor 2",
        "aggregate",
    ),
    Mutation(
        "objectives/discrepancy.py",
        "device=z.device), dim=0)",
        "device=z.device), dim=1)",
        "sliced Wasserstein: directions are normalized over the wrong axis",
        "aggregate",
    ),
    Mutation(
        "objectives/discrepancy.py",
        "(alpha + lambda_mmd - 1) * discrepancy",
        "(lambda_mmd - alpha) * discrepancy",
        "InfoVAE: the weight of the MMD is lambda - alpha",
        "aggregate",
    ),
    Mutation(
        "objectives/importance.py",
        "(log_w.logsumexp(1) - math.log(num_samples)).mean(0)",
        "(log_w.logsumexp(1) - math.log(num_groups * num_samples)).mean(0)",
        "MIWAE: each group is divided by the number of all samples",
        "bounds",
    ),
    Mutation(
        "objectives/importance.py",
        "return bound, a, a * v if",
        "return bound, a, a * a if",
        "MIWAE with DReG: the squared weight is divided by M twice",
        "bounds",
    ),
    Mutation(
        "objectives/importance.py",
        "a = beta * uniform + (1 - beta) * v\n",
        "a = (1 - beta) * uniform + beta * v\n",
        "CIWAE: beta and 1 - beta are swapped in the gradient, not in the value",
        "bounds",
    ),
    Mutation(
        "objectives/importance.py",
        "        b = v / num_groups\n",
        "        b = v / v.shape[1]\n",
        "PIWAE: the encoder's weights are divided by K in place of M",
        "bounds",
    ),
    Mutation(
        "objectives/importance.py",
        "q.base_dist.loc.detach()",
        "q.base_dist.loc",
        "sticking the landing: the mean of q keeps its score term",
        "bounds",
    ),
    # Models
    Mutation(
        "models/ladder_vae.py",
        "torch.sigmoid(2 * (b.scale.log() - a.scale.log()))",
        "torch.sigmoid(b.scale.log() - a.scale.log())",
        "ladder: densities are merged by 1 / sigma, not by 1 / sigma^2",
        "ladder",
    ),
    Mutation(
        "models/ladder_vae.py",
        "z = down(z, context).sample()",
        "z = down(z, context).mean",
        "ladder: lower layers are not drawn, their means are taken",
        "ladder",
    ),
    Mutation(
        "models/vq_vae.py",
        "torch.special.entr(use).sum().exp()",
        "torch.special.entr(use).sum().exp2()",
        "VQ: the perplexity is 2 to the power of an entropy in nats",
        "vq",
    ),
    Mutation(
        "models/cvae.py",
        "encoder=encoder, decoder=decoder, **kwargs",
        "encoder=encoder, decoder=decoder.keywords['net'], **kwargs",
        "CVAE: the decoder does not see the label",
        "cvae",
    ),
    Mutation(
        "models/vae.py",
        "return self.encoder.point_estimate(x, context)",
        "return self.encoder(x, context).sample()",
        "the code of an image is a draw in place of the mean",
        "trace contract linear_gaussian",
    ),
    Mutation(
        "training/evaluation_loop.py",
        "(square - mean.square() > 0.01)",
        "((square - mean.square()).clamp(min=0).sqrt() > 0.01)",
        "active units: the standard deviation is compared with the bound of the variance",
        "oracles_errors oracles_values oracles_shapes training linear_gaussian trace",
    ),
    Mutation(
        "training/evaluation_loop.py",
        "(prod(self.data_shape) * math.log(2))",
        "(prod(self.data_shape[1:]) * math.log(2))",
        "bits per dimension: the channels are forgotten",
        "oracles_errors training trace families",
    ),
    Mutation(
        "training/evaluation_loop.py",
        "max(variance, 0.0) / (metrics.num - 1)",
        "max(variance, 0.0) / metrics.num",
        "the standard error of the ELBO divides by N in place of N - 1",
        "oracles_errors training linear_gaussian",
    ),
    Mutation(
        "models/base.py",
        'getattr(data, "num_train", None)',
        'getattr(data, "val_size", None)',
        "objectives are told the size of the validation set as that of the training set",
        "aggregate training",
    ),
    Mutation(
        "training/loop.py",
        'self.seed_noise("train", self.current_epoch, index, self.global_rank)',
        'self.seed_noise("train", index, self.global_rank)',
        "every epoch trains with the same noise",
        "training loop",
    ),
    Mutation(
        "training/evaluation_loop.py",
        'self.seed_noise("val", self.global_batch_index(batch_idx), dataloader_idx)',
        'self.seed_noise("val", self.current_epoch, self.global_batch_index(batch_idx), dataloader_idx)',
        "the noise of validation changes from epoch to epoch",
        "exact_rules training loop",
    ),
    Mutation(
        "training/evaluation_loop.py",
        "self.objective.restore_weights()",
        "self.objective.apply_schedules(self.trainer.global_step)",
        "the test has the weights of the schedule's last step",
        "callbacks training",
    ),
    # The loop
    Mutation(
        "training/loop.py",
        "self.manual_backward(loss / accumulate if accumulate > 1 else loss)",
        "self.manual_backward(loss)",
        "accumulated gradients are summed, not averaged",
        "loop training",
    ),
    Mutation(
        "training/loop.py",
        "if self.num_accumulated >= accumulate or",
        "if self.num_accumulated > accumulate or",
        "one batch more than asked for is accumulated",
        "loop training",
    ),
    Mutation(
        "training/loop.py",
        "self.train_means.update(self.last_metrics, len(batch.x))",
        "self.train_means.update(self.last_metrics, 1)",
        "the training means are means of batch means",
        "training loop",
    ),
    Mutation(
        "training/loop.py",
        'clip(group["params"], gradient_clip_val)',
        "clip(list(self.parameters()), gradient_clip_val)",
        "model and critic are clipped together, not each by itself",
        "critic loop",
    ),
    Mutation(
        "training/loop.py",
        "        if counts:  # in the means\n",
        "        if self.num_accumulated >= 0:\n",
        "on_nan=skip: a broken batch enters the epoch's means",
        "exact_rules loop training",
    ),
    Mutation(
        "training/loop.py",
        "-(-self.count_batches() // trainer.accumulate_grad_batches)",
        "self.count_batches()",
        "the learning-rate schedule counts batches in place of optimizer steps",
        "loop callbacks",
    ),
    # Schedules and callbacks
    Mutation(
        "training/schedulers.py",
        "return (step + 1) / warmup_steps",
        "return step / warmup_steps",
        "warm-up: the first step has the learning rate 0",
        "callbacks training",
    ),
    Mutation(
        "training/schedulers.py",
        "(step - warmup_steps) / max(1, total_steps - warmup_steps)",
        "step / max(1, total_steps)",
        "cosine: it starts before the warm-up is over",
        "callbacks training",
    ),
    Mutation(
        "training/loop.py",
        'self.monitored if schedule.mode == "max" else "loss"',
        '"loss"',
        "ReduceLROnPlateau with mode=max follows the loss",
        "lightning_habits",
    ),
    Mutation(
        "training/loop.py",
        'else self.scheduler_interval or "epoch"',
        'else "step"',
        "a schedule of torch counts optimizer steps in place of epochs",
        "lightning_habits",
    ),
    Mutation(
        "training/loop.py",
        "else len(loader.dataset)",
        "else len(loader)",
        "the size of the training set is the number of batches",
        "lightning_habits",
    ),
    Mutation(
        "training/schedulers.py",
        "end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))",
        "start + (end - start) * min(1.0, done)",
        "one cycle: straight lines in place of halves of a cosine",
        "lightning_habits",
    ),
    Mutation(
        "models/inference.py",
        'kinds == {"byte"}:\n        return x.to(model.dtype).div_(255)',
        'kinds == {"byte"}:\n        return x.to(model.dtype).div_(256)',
        "bytes are divided by another number than in the training",
        "lightning_habits",
    ),
    Mutation(
        "data/base.py",
        "batches.epoch = itertools.count().__next__",
        "batches.epoch = int",
        "a loop of one's own gets the same order in each epoch",
        "lightning_habits",
    ),
    Mutation(
        "callbacks/anneal.py",
        "(self.period * self.ratio)",
        "self.period",
        "cyclical annealing: the ratio is ignored",
        "callbacks",
    ),
    Mutation(
        "callbacks/anneal.py",
        "self.start + (1 - self.start) * min(1.0, step / self.steps)",
        "max(self.start, min(1.0, step / self.steps))",
        "linear warm-up: the start is a floor, the slope does not begin at it",
        "callbacks",
    ),
    Mutation(
        "callbacks/geco.py",
        "torch.lerp(excess, before, self.momentum)",
        "torch.lerp(before, excess, self.momentum)",
        "GECO: momentum and 1 - momentum are swapped",
        "oracles_weights geco",
    ),
    Mutation(
        "callbacks/geco.py",
        'self.log_beta, self.mean_excess = state_dict["log_beta"], state_dict["excess"]',
        'self.log_beta, self.mean_excess = state_dict["log_beta"], None',
        "GECO: a resumed run forgets the running mean",
        "geco resume",
    ),
    Mutation(
        "callbacks/ema.py",
        "super().__init__(decay=decay,",
        "super().__init__(decay=1 - decay,",
        "EMA: the share of the average is that of the new weights",
        "oracles_weights callbacks",
    ),
    Mutation(
        "callbacks/early_stopping.py",
        'checkpoint["callbacks"][self.state_key] = self.state_before_validation',
        'checkpoint["callbacks"][self.state_key] = self.state_dict()',
        "early stopping: a validation that is run again after a kill counts twice",
        "callbacks resume",
    ),
    Mutation(
        "callbacks/checkpoints.py",
        'sign = 1 if self.mode == "max" else -1',
        "sign = 1",
        "the best checkpoint: mode=min is ignored",
        "loop callbacks checkpoint",
    ),
    Mutation(
        "callbacks/checkpoints.py",
        'self.score = state_dict["score"]',
        "self.score = None",
        "the best checkpoint: a resumed run forgets the best score and replaces it by a worse one",
        "callbacks resume",
    ),
    Mutation(
        "callbacks/monitor.py",
        "on_validation_end(self, trainer: Any, pl_module: Any) -> None:\n        self.start_time = time.perf_counter()",
        "on_validation_end(self, trainer: Any, pl_module: Any) -> None:\n        self.add_elapsed_time()",
        "images per second: the time of validations counts as training",
        "exact_rules callbacks loop",
    ),
    Mutation(
        "callbacks/monitor.py",
        "examples / max(seconds, 1e-9)",
        "self.examples / max(seconds, 1e-9)",
        "images per second: all images so far by the time of the last few",
        "oracles_weights exact_rules callbacks loop",
    ),
    # Tables with holes, and counts
    Mutation(
        "distributions/counts_given_total.py",
        "log_ways = torch.lgamma(total[..., 0] + 1) - torch.lgamma(x + 1).sum(-1)",
        "log_ways = torch.lgamma(total[..., 0] + 1)",
        "the multinomial coefficient lacks the factorials of the counts",
        "counts_given_total",
    ),
    Mutation(
        "distributions/counts_given_total.py",
        "base = NegativeBinomialDistribution(total.log() + self.log_shares, self.log_dispersion)",
        "log_mean = ((total.log() + self.log_shares).exp() + 1e-8).log()\n"
        "        base = NegativeBinomialDistribution(log_mean, self.log_dispersion)",
        "a small number is added to the mean of a gene",
        "counts_given_total",
    ),
    Mutation(
        "distributions/counts.py",
        "return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits), log_p), log_p)",
        "return torch.where(value == 0, F.logsigmoid(self.logits), log_p)",
        "a zero of the base distribution has no probability",
        "counts_given_total",
    ),
    Mutation(
        "distributions/wrapped.py",
        "self.slope * torch.where(observed, filled, self.drawn)",
        "self.slope * filled",
        "the model of the mask is given the fill value of missing entries",
        "not_miwae",
    ),
    Mutation(
        "inference/imputation.py",
        "return inner.drawn, inner.drawn",
        "return inner.drawn, inner.mean",
        "entries that are missing because of their values are filled in by the decoder's mean",
        "not_miwae",
    ),
    Mutation(
        "priors/dirichlet_normal.py",
        "(1 - 1 / shape[0])",
        "(1 - 2 / shape[0])",
        "the variance of the topics' prior lacks a term",
        "counts_given_total",
    ),
    Mutation(
        "nets/masked_input.py",
        'getattr(getattr(net, "func", net), "takes_missing", False)',
        'getattr(net, "takes_missing", False)',
        "a network for missing entries is wrapped twice",
        "missing_iwae",
    ),
    # Weighted samples
    Mutation(
        "trace.py",
        "log_w + (len(log_w) * self.weights).log()",
        "log_w + self.weights.log()",
        "weighted samples: the bound of K samples lacks log K",
        "trace",
    ),
    Mutation(
        "trace.py",
        "(self.weights * values).sum(0)",
        "(self.weights * values).mean(0)",
        "weighted samples: the expectation is divided by K",
        "trace",
    ),
    # Data
    Mutation(
        "data/splits.py",
        "place = mix_bits(digests.astype(np.uint64) ^ key)",
        "place = mix_bits(np.arange(len(digests), dtype=np.uint64) ^ key)",
        "the split by content follows the order of the examples",
        "splits",
    ),
    Mutation(
        "data/splits.py",
        "val_end = max(test_end + 1, int((number < test_size + val_size).sum()))",
        "val_end = max(test_end + 1, int((number < val_size).sum()))",
        "the split by content has too few validation examples",
        "splits",
    ),
    Mutation(
        "data/base.py",
        "return (total / count.clamp(min=1)).float()",
        "return (total / len(self.training_split.x)).float()",
        "the mean of the data counts missing entries as 0",
        "splits",
    ),
    Mutation(
        "data/table_files.py",
        '(first, second) if order == "dayfirst" else (second, first)',
        '(second, first) if order == "dayfirst" else (first, second)',
        "dates: day and month change places",
        "columns table",
    ),
    Mutation(
        "runs/setup.py",
        '"real" in family.supported_data and not isinstance(family, WrappedFamily)',
        "False",
        "a named likelihood scores the standardized columns of a table",
        "table",
    ),
    Mutation(
        "data/statistics.py",
        'np.isin(digests["test"], digests["train"])',
        'np.isin(digests["train"], digests["test"])',
        "task=check counts training examples in the test set",
        "check",
    ),
    Mutation(
        "data/images.py",
        ".random_(0, 255, generator=generator)",
        ".random_(0, 256, generator=generator)",
        "binarization: the probability is pixel / 256",
        "data",
    ),
    Mutation(
        "data/images.py",
        "(split.x > 127)",
        "(split.x >= 127)",
        "threshold: 127 is white",
        "oracles_protocols exact_rules data",
    ),
    Mutation(
        "data/base.py",
        'seeding.generator(self.split_seed, "split")',
        'seeding.generator(self.seed, "split")',
        "the validation split follows the run's seed",
        "data",
    ),
    Mutation(
        "data/images.py",
        'seeding.generator(self.split_seed, "binarize", name)',
        'seeding.generator(self.split_seed, "binarize")',
        "training, validation and test are binarized by the same draws",
        "exact_rules data",
    ),
    Mutation(
        "data/batching.py",
        'seeding.generator(self.seed, "order", epoch)',
        'seeding.generator(self.seed, "order")',
        "every epoch has the same order",
        "data",
    ),
    Mutation(
        "data/batching.py",
        '"binarize", epoch, batch_idx, self.rank,',
        '"binarize", batch_idx, self.rank,',
        "fresh binarization: every epoch draws the same bits",
        "data",
    ),
    Mutation(
        "data/batching.py",
        "torch.cat(torch.arange(num).split(self.batch_size)[self.rank :: self.world_size])",
        "torch.arange(num)[self.rank :: self.world_size]",
        "evaluation on several processes: single examples in turn, not whole batches",
        "data loop",
    ),
    Mutation(
        "data/digits.py",
        ".mul(255 / 16).round()",
        ".mul(255 / 16).floor()",
        "digits: grey levels are cut, not rounded",
        "exact_rules data",
    ),
    Mutation(
        "data/factors.py",
        "held_out = pixel_sum(self.val.x) + pixel_sum(self.test.x)",
        "held_out = pixel_sum(self.test.x)",
        "factors: the mean image is of validation too, divided by the number of training images",
        "sprites",
    ),
    Mutation(
        "data/sprites.py",
        "(cos * x + sin * y, cos * y - sin * x)",
        "(cos * x - sin * y, cos * y + sin * x)",
        "sprites: they turn the other way round",
        "sprites",
    ),
    Mutation(
        "data/sprites.py",
        "[number, down - 1 - y, across - 1 - x]",
        "[number, down - 1 - x, across - 1 - y]",
        "sprites: x and y are swapped",
        "sprites",
    ),
    Mutation(
        "data/torchvision.py",
        "permute(0, 3, 1, 2)",
        "permute(0, 3, 2, 1)",
        "colour photographs are transposed",
        "data",
    ),
    # Seeds
    Mutation(
        "seeding.py",
        "repr((seed, *keys)).encode()",
        '"".join(map(str, (seed, *keys))).encode()',
        "keys are joined without a separator: (1, 11) and (11, 1) are one stream",
        "exact_rules data training sprites",
    ),
    Mutation(
        "seeding.py",
        "        reseed(device, seed, *keys)\n        yield",
        "        reseed(device, seed)\n        yield",
        "an isolated block does not use its keys: all blocks of a seed share their draws",
        "ex_post_density importance_sampling ais",
    ),
    # log p(x)
    Mutation(
        "inference/importance_sampling.py",
        "(num * (num - 1))).sqrt()",
        "(num * num)).sqrt()",
        "the error of log p(x) divides by K in place of K - 1",
        "importance_sampling",
    ),
    Mutation(
        "inference/importance_sampling.py",
        '"log_px", start_index + i)',
        '"log_px", i)',
        "examples that are passed in parts share their draws",
        "importance_sampling",
    ),
    Mutation(
        "inference/importance_sampling.py",
        "float(self.mc_error.square().sum().sqrt()) / len(self.log_p)",
        "float(self.mc_error.mean())",
        "errors of draws are averaged, as if all were the same draw",
        "importance_sampling",
    ),
    Mutation(
        "inference/ais.py",
        "(v_after.square() - v.square()).sum(-1) / 2",
        "(v_after.square() - v.square()).sum(-1)",
        "annealing: the kinetic energy lacks 1/2",
        "ais",
    ),
    Mutation(
        "inference/ais.py",
        "torch.where(accepted, after.log_ratio, before.log_ratio)",
        "after.log_ratio",
        "annealing: a rejected move gives its weight all the same",
        "ais",
    ),
    Mutation(
        "inference/ais.py",
        "accepted[num_chains:].mean(0)",
        "accepted[:num_chains].mean(0)",
        "annealing: the step follows the chains that are counted, not the pilots",
        "ais",
    ),
    Mutation(
        "inference/ex_post_density.py",
        "least, best = value, deepcopy(module.state_dict())",
        "least, best = value, module.state_dict()",
        "samplers: the best weights are the live ones, so that the last stay",
        "ex_post_density",
    ),
    Mutation(
        "inference/ex_post_density.py",
        "MixtureSameFamily(Categorical(weights), components)",
        "MixtureSameFamily(Categorical(logits=weights), components)",
        "mixture of codes: the weights pass through a softmax",
        "exact_rules ex_post_density",
    ),
    # Metrics
    Mutation(
        "distributions/numerics.py",
        'return torch.float32 if value.device.type == "mps" else torch.float64',
        "return torch.float32",
        "sums over a test set are in float32",
        "training linear_gaussian importance_sampling",
    ),
    Mutation(
        "metrics/latent.py",
        "(pairs.logsumexp(1) - math.log(num))",
        "pairs.logsumexp(1)",
        "the marginals of q(z) lack 1/N",
        "latent_metrics",
    ),
    Mutation(
        "metrics/latent.py",
        "collapsed = (kl_dim < COLLAPSE_EPSILON).double().mean(0) >= 1 - COLLAPSE_DELTA",
        "collapsed = kl_dim.mean(0) < COLLAPSE_EPSILON",
        "a dimension is collapsed by its mean KL, not by the share of images",
        "latent_metrics",
    ),
    Mutation(
        "metrics/latent.py",
        "torch.arange(min(num, draws)) * num // min(num, draws)",
        "torch.arange(min(num, draws))",
        "draws are of the first examples, not evenly spaced",
        "latent_metrics",
    ),
    Mutation(
        "metrics/latent.py",
        "information_metrics(log_q, log_qz, log_prior, len(z))",
        "information_metrics(log_q, log_qz, log_prior, len(which))",
        "the ceiling of the mutual information is the log of the draws, not of the examples",
        "latent_metrics",
    ),
    Mutation(
        "metrics/samples.py",
        "first @ second.T",
        "first.T @ second",
        "FID: the wrong factor is transposed",
        "sample_metrics",
    ),
    Mutation(
        "metrics/samples.py",
        "(x - x.mean(0)) / math.sqrt(len(x) - 1)",
        "(x - x.mean(0)) / math.sqrt(len(x))",
        "FID: covariances with 1/N",
        "sample_metrics",
    ),
    Mutation(
        "metrics/samples.py",
        "xx.sum() / (n * (n - 1))",
        "xx.sum() / (n * n)",
        "KID: N^2 in place of N (N - 1) pairs",
        "sample_metrics",
    ),
    Mutation(
        "metrics/samples.py",
        ".values[:, 1:] for part in parts",
        ".values[:, :-1] for part in parts",
        "precision and recall: an image is its own nearest neighbour",
        "sample_metrics",
    ),
    Mutation(
        "metrics/samples.py",
        "coverage |= (apart <= large).any(0)",
        "coverage |= (apart <= small).any(0)",
        "coverage: the balls of 3 neighbours in place of 5",
        "sample_metrics",
    ),
    Mutation(
        "metrics/samples.py",
        "(ssim if last else contrast)",
        "contrast",
        "MS-SSIM: the luminance of the coarsest scale is left out",
        "sample_metrics",
    ),
    Mutation(
        "metrics/disentanglement/mutual_information.py",
        "return ranked[-1] - ranked[-2]",
        "return ranked[-1] - ranked[0]",
        "gap: to the worst dimension in place of the second",
        "disentanglement",
    ),
    Mutation(
        "metrics/disentanglement/mutual_information.py",
        "(squares.sum(1) - own) / (squares.shape[1] - 1)",
        "(squares.sum(1) - own) / squares.shape[1]",
        "modularity: F in place of F - 1",
        "disentanglement",
    ),
    Mutation(
        "metrics/disentanglement/dci.py",
        "(entropy - entr(joint.sum(1)).sum()) / np.log(num_factors)",
        "(entropy - entr(joint.sum(1)).sum()) / np.log(num_dims)",
        "DCI: disentanglement is divided by ln D in place of ln F",
        "disentanglement",
    ),
    Mutation(
        "metrics/disentanglement/classifiers.py",
        "svm.score(test_codes[:, [d]], test_factors[:, f])",
        "svm.score(codes[:, [d]], factors[:, f])",
        "SAP: judged on the examples that it was fitted to",
        "oracles_held_out disentanglement",
    ),
    Mutation(
        "metrics/disentanglement/interventions.py",
        "codes[:, spread >= MIN_STD] / spread[spread >= MIN_STD]",
        "codes[:, spread >= MIN_STD]",
        "FactorVAE score: variances are not divided by those of all examples",
        "disentanglement",
    ),
    Mutation(
        "metrics/disentanglement/udr.py",
        "for j, theirs in enumerate(informative) if j != i]",
        "for theirs in informative]",
        "UDR: a model is compared with itself too",
        "disentanglement",
    ),
    Mutation(
        "metrics/probes.py",
        ".score(x[score], labels[score]))",
        ".score(x[fit], labels[fit]))",
        "probes: accuracies on the examples that they were fitted to",
        "probes",
    ),
    Mutation(
        "metrics/anomaly.py",
        "float(above.var()) / m + float(below.var()) / n",
        "float(above.var()) / n + float(below.var()) / m",
        "the error of the AUROC: the numbers of outliers and inliers are swapped",
        "anomaly",
    ),
    Mutation(
        "metrics/anomaly.py",
        "(inliers >= threshold)",
        "(inliers > threshold)",
        "FPR95: inliers at the threshold do not count",
        "anomaly",
    ),
    Mutation(
        "metrics/anomaly.py",
        "(self.log_p - self.entropy).abs()",
        "self.log_p - self.entropy",
        "typicality: an image that is too likely counts as typical",
        "anomaly",
    ),
    Mutation(
        "evaluation/features.py",
        "for x, y in split(test, batch_size=1000)",
        "for x, y in split(train, batch_size=1000)",
        "the accuracy of the feature network is that on its training images",
        "features",
    ),
    # Evaluation
    Mutation(
        "evaluation/probes.py",
        '(("train", CODES), ("test", None))',
        '(("test", CODES), ("test", None))',
        "probes are fitted to the test set",
        "oracles_protocols groups",
    ),
    Mutation(
        "evaluation/anomaly.py",
        'training = run.batches("train", num, "log p(x)")',
        'training = run.batches("test", num, "log p(x)")',
        "typicality: the mean of log p(x) is that of the test images",
        "oracles_protocols groups",
    ),
    Mutation(
        "evaluation/ex_post_density.py",
        "model(x, y, num_samples=1).latent.z[0].cpu()",
        "model.encode(x, y).cpu()",
        "samplers are fitted to means in place of draws",
        "oracles_protocols groups",
    ),
    Mutation(
        "evaluation/samples.py",
        'self.scores(self.split_features("train"))',
        'self.scores(self.split_features("test"))',
        "the reference of the FID is that of the test images against themselves",
        "oracles_protocols groups",
    ),
    Mutation(
        "evaluation/base.py",
        "float(values.std()) / len(values) ** 0.5",
        "float(values.std()) / len(values)",
        "standard errors of groups divide by N in place of its root",
        "groups",
    ),
    Mutation(
        "evaluation/ais.py",
        "upper.log_p - lower.log_p",
        "upper.log_p - test.log_p",
        "annealing: the gap of the bounds mixes the model's images with those of the test set",
        "oracles_protocols groups ais",
    ),
    Mutation(
        "runs/trained.py",
        "else torch.arange(num) * size // num",
        "else torch.arange(num)",
        "a part of the test set is its beginning",
        "groups",
    ),
    # Reports and comparisons
    Mutation(
        "report/statistics.py",
        "stats.t.ppf(0.975, num - 1)",
        "stats.t.ppf(0.95, num - 1)",
        "intervals hold 90 %",
        "report comparison",
    ),
    Mutation(
        "report/statistics.py",
        "np.std(values, ddof=1)",
        "np.std(values)",
        "intervals use the biased variance",
        "report comparison",
    ),
    Mutation(
        "report/statistics.py",
        "[first[seed] - second[seed] for seed in shared]",
        "[one - other for one, other in zip(first.values(), second.values())]",
        "differences pair runs by their position, not by their seed",
        "oracles_pairing report comparison",
    ),
    Mutation(
        "report/statistics.py",
        "return math.inf if math.isnan(mean) else -mean",
        "return math.inf if math.isnan(mean) else mean",
        "the worst variant comes first",
        "report comparison",
    ),
    Mutation(
        "report/statistics.py",
        "settings.setdefault(tuple(run.settings.get(key) for key in keys), {})[run.seed] = run",
        "settings.setdefault(tuple(run.settings.get(key) for key in keys), {}).setdefault(run.seed, run)",
        "of two runs with one seed the earlier counts",
        "report comparison",
    ),
    Mutation(
        "report/statistics.py",
        "runs, len(by_seed) + len(failed_seeds)))",
        "runs, len(by_seed)))",
        "failed seeds are not counted as tried",
        "report comparison",
    ),
    Mutation(
        "report/read.py",
        '(int(row["step"]) + 1, int(row["epoch"]) + 1)',
        '(int(row["step"]), int(row["epoch"]) + 1)',
        "curves are one step behind",
        "report",
    ),
    Mutation(
        "report/tables.py",
        "gap = difference(variant, best)",
        "gap = difference(best, variant)",
        "the difference to the best has the wrong sign",
        "comparison",
    ),
    Mutation(
        "report/tables.py",
        "cells = [cell(row.get(name), quantities[name].digits, len(variant.runs)) for name in columns]",
        "cells = [cell(row.get(name), quantities[name].digits, len(variant.runs)) for name in sorted(columns)]",
        "numbers stand in each other's column",
        "oracles_pairing comparison",
    ),
    # Exported files
    Mutation(
        "export/preprocessing.py",
        "self.loc + self.scale * x.double()",
        "self.scale * x.double()",
        "export: the mean of a column is not added back",
        "export",
    ),
    Mutation(
        "export/preprocessing.py",
        'if self.binarize == "threshold":',
        "if False:",
        "export: grey values are not made bits, though the training did",
        "export",
    ),
    Mutation(
        "export/outputs.py",
        "layers = model.top_down(x, labels)[::-1]",
        "layers = model.top_down(x, labels)",
        "export: the code of a ladder is its highest layer",
        "export",
    ),
    Mutation(
        "export/comparison.py",
        "b.abs().clamp(min=1)",
        "(b.abs() + 1)",
        "export: differences of numbers near 1 are halved",
        "export",
    ),
    Mutation(
        "distributions/discretized_logistic.py",
        "(torch.arange(first, first + 15).to(loc) + 0.5) * step",
        "torch.arange(first, first + 15).to(loc) * step",
        "export: the mean of a discretized logistic is half a level too large",
        "export",
    ),
    # Which run, which checkpoint
    Mutation(
        "runs/overrides.py",
        'others = ("hydra.", "hydra/", "resume=", "jobs=")',
        'others = ("hydra.", "hydra/", "resume=", "jobs=", "seed=")',
        "commands with different seeds are the same command",
        "resume_cli resume comparison",
    ),
    Mutation(
        "runs/sweep.py",
        '-test["log_px"] if',
        'test["log_px"] if',
        "the table of a sweep gives the distortion with the wrong sign",
        "sweeps resume_cli report cli",
    ),
    Mutation(
        "runs/sweep.py",
        'choose = max if direction == "maximize" else min',
        'choose = min if direction == "maximize" else max',
        "the best trial of a search is the worst one",
        "sweeps",
    ),
    Mutation(
        "runs/sweep.py",
        '"objective": summary.get("objective"),',
        '"objective": test.get("elbo"),',
        "a search chooses by the test ELBO",
        "sweeps",
    ),
    Mutation(
        "loggers.py",
        '"val/elbo": "max", "val/loss": "min"',
        '"val/elbo": "max", "val/loss": "max"',
        "the table of W&B shows the largest loss of a run",
        "loggers",
    ),
    Mutation(
        "loggers.py",
        'lists.setdefault(f"{stage}/kl_per_dim", []).append(value)',
        'lists.setdefault(f"{stage}/kl_per_dim", []).insert(0, value)',
        "the dimensions of the KL stand in reverse order in W&B",
        "loggers",
    ),
    Mutation(
        "tasks/evaluate.py",
        'if other else "test"',
        'if not other else "test"',
        "an evaluation on other data replaces the test numbers of the run in W&B",
        "loggers",
    ),
    Mutation(
        "runs/overrides.py",
        "listed(now, key) >= listed(then, key)",
        "listed(now, key) <= listed(then, key)",
        "a comparison continues one with more models or seeds, not with fewer",
        "resume_cli comparison resume",
    ),
    Mutation(
        "runs/resume.py",
        "all(RunFolder(path).is_completed for path in (folder.path, *stages))",
        "all(RunFolder(path).has_summary for path in (folder.path, *stages))",
        "a run that failed counts as complete",
        "resume_cli resume",
    ),
    Mutation(
        "runs/jobs.py",
        "self.resume and RunFolder(folder).is_completed",
        "self.resume and RunFolder(folder).has_summary",
        "a job that failed is not run again",
        "resume_cli comparison cli",
    ),
    Mutation(
        "runs/checkpoint.py",
        'key=lambda pair: pair[1]["global_step"]',
        "key=lambda pair: pair[0].stat().st_mtime",
        "the newest checkpoint is the last one written, not the one with the most steps",
        "checkpoint resume",
    ),
    Mutation(
        "runs/checkpoint.py",
        'for name in ("best", "last", "previous"):',
        'for name in ("last", "best", "previous"):',
        "the last checkpoint of a run is evaluated, not the best",
        "checkpoint",
    ),
    Mutation(
        "models/vrnn.py",
        "torch.where(is_present, q.loc, p.loc), torch.where(is_present, q.scale, p.scale)",
        "q.loc, q.scale",
        "the rate of the frames after the end of a sequence is counted",
        "vrnn sequences",
    ),
    Mutation(
        "models/vrnn.py",
        "b = torch.where(present[:, t, None], self.backward_cell(features[:, t], b), b)",
        "b = self.backward_cell(features[:, t], b)",
        "q of a shorter sequence sees the frames after its end",
        "vrnn sequences",
    ),
    Mutation(
        "models/vrnn.py",
        "            states.append(h)\n            h = self.next_state(h, z[..., t, :], features[..., t, :])\n",
        "            h = self.next_state(h, z[..., t, :], features[..., t, :])\n            states.append(h)\n",
        "the state of a frame already knows the frame",
        "vrnn sequences",
    ),
    Mutation(
        "nets/conv1d.py",
        "output_padding=long - (short - 1) * stride - 1",
        "output_padding=stride - 1",
        "the signal is as long as the next multiple of the stride",
        "nets",
    ),
)


@dataclass
class Result:
    """How a mutation ended: the test that noticed it, or None, and the seconds that it took."""

    noticed: str | None
    seconds: float


def check() -> None:
    """Exit with every entry of the list that does not fit the source."""
    faults = []
    for number, mutation in enumerate(MUTATIONS, 1):
        try:
            mutation.text()
        except (ValueError, OSError) as error:
            faults.append(f"mutation {number} does not apply: {error}")
        missing = [file for file in named(mutation) if not (REPO / file).exists()]
        faults += [f"mutation {number} names {file}, which does not exist" for file in missing]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        sys.exit(2)


def named(mutation: Mutation) -> list[str]:
    """The test files to try first."""
    return [f"tests/test_{name}.py" for name in mutation.tests.split()]


def copy_project(source: Path, folder: Path) -> None:
    """Copy what the tests need into a new folder, bytecode included: it is compiled anew if a file changes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy2
        copy(source / name, folder / name)


def run_tests(folder: Path, tests: Sequence[str], jobs: int, timeout: float) -> str | None:
    """Run tests on a copy of the project until one fails.

    Returns:
        The test that failed, or that there was no end within ``timeout`` seconds; None if all passed.

    Raises:
        RuntimeError: pytest ended in another way.
    """
    base = folder.parent
    # Trained networks are kept in the cache: it is emptied, so that none comes from another mutation.
    shutil.rmtree(base / "cache", ignore_errors=True)
    options = ["-x", "-q", "-n", str(jobs if jobs > 1 else 0), "-p", "no:cacheprovider", f"--basetemp={base / 'tmp'}"]
    log = base / "log"
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os._exit(pytest_here(folder, [*options, *tests]))
        finally:
            os._exit(99)
    ended = os.pidfd_open(pid)
    code = None
    try:
        if select.select([ended], [], [], timeout)[0]:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(ended)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # and whatever a test has left running
        if code is None:
            os.waitpid(pid, 0)
    if code is None:
        return too_long(timeout)
    if code == 0:
        return None
    output = log.read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", output, re.MULTILINE)
    if failed is None:
        raise RuntimeError(f"pytest ended with exit code {code} and no failed test:\n{output[-3000:]}")
    return failed[1]


def too_long(timeout: float) -> str:
    """What stands in place of a test if a run of pytest did not end."""
    return f"no end within {timeout:.0f} s"


def pytest_here(folder: Path, arguments: list[str]) -> int:
    """``python -m pytest`` in a copy of the project, in this process; returns its exit code."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)  # for the processes that tests start
    os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    sys.path.insert(0, str(folder))
    found = importlib.util.find_spec("vaezoo")
    if found is None or not str(found.origin).startswith(str(folder)):
        print(f"the tests would import {found} in place of the copy in {folder}")
        return 99
    sys.argv = ["pytest", *arguments]
    try:
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    except SystemExit as leave:
        sys.stdout.flush()
        sys.stderr.flush()
        return int(leave.code or 0)
    return 99


def try_mutation(mutation: Mutation, base: Path, options: argparse.Namespace, ignored: set[str]) -> Result:
    """Apply a mutation to a copy of the project and run the tests."""
    start = time.monotonic()
    folder = base / "mutated"
    copy_project(base / "clean", folder)
    (folder / "vaezoo" / mutation.file).write_text(mutation.text())
    first = named(mutation)
    oracles = [file for file in all_files() if "oracles" in file and file not in first]
    runs = [(first, 1), (oracles, 1)]
    if not options.named_only:
        runs.append(([file for file in all_files() if file not in first + oracles], options.jobs))
    noticed = None
    for files, jobs in runs:
        for noticed in failures(folder, files, jobs, options.timeout, ignored):
            hangs = noticed == too_long(options.timeout)
            again = files if hangs else [noticed]
            if not options.confirm or run_tests(base / "clean", again, jobs, options.timeout) is None:
                return Result(noticed, time.monotonic() - start)
            if hangs:
                raise RuntimeError(f"{', '.join(files)}: {noticed} without a mutation, too: give more with --timeout")
            print(f"     {noticed} fails without a mutation, too: it is left out from here on", flush=True)
            ignored.add(noticed)
    return Result(None, time.monotonic() - start)


def failures(folder: Path, files: list[str], jobs: int, timeout: float, ignored: set[str]) -> Iterator[str]:
    """The test that fails first; then, if it is ignored from now on, the next one."""
    while True:
        left_out = [f"--deselect={test}" for test in sorted(ignored)]
        if (failed := run_tests(folder, [*files, *left_out], jobs, timeout)) is None:
            return
        yield failed


def all_files() -> list[str]:
    """All test files."""
    return sorted(str(file.relative_to(REPO)) for file in (REPO / "tests").glob("test_*.py"))


def line(number: int, mutation: Mutation, result: Result) -> str:
    """What is printed of a mutation."""
    state = "noticed" if result.noticed else "harmless" if mutation.harmless else "SURVIVED"
    by = f" ({result.noticed})" if result.noticed else ""
    return f"{number:3d}  {state:8}  {result.seconds:5.0f} s  {mutation.file}: {mutation.what}{by}"


def figures(results: dict[int, Result], named_only: bool) -> tuple[str, bool]:
    """The text after the last mutation, and whether one survived."""
    missed = [number for number, result in results.items() if result.noticed is None]
    harmless = [number for number in missed if MUTATIONS[number - 1].harmless]
    survived = [number for number in missed if number not in harmless]
    by = " by the test files named for them" if named_only else ""
    lines = [
        f"{len(results)} mutations in {sum(result.seconds for result in results.values()) / 60:.0f} min: "
        f"{len(results) - len(missed)} noticed{by}, {len(survived)} survived, {len(harmless)} harmless"
    ]
    lines += [f"survived: {n}. {MUTATIONS[n - 1].file}: {MUTATIONS[n - 1].what}" for n in survived]
    lines += [
        f"harmless: {n}. {MUTATIONS[n - 1].file}: {MUTATIONS[n - 1].what}: {MUTATIONS[n - 1].harmless}"
        for n in harmless
    ]
    return "\n".join(lines), bool(survived)


def numbers(text: str) -> list[int]:
    """The numbers of mutations in ``3,17``."""
    return [number_of(part) for part in text.split(",")]


def number_of(text: str) -> int:
    """The number of a mutation."""
    if not text.isdecimal() or not 1 <= int(text) <= len(MUTATIONS):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a mutation, 1 to {len(MUTATIONS)}")
    return int(text)


def load() -> None:
    """Import what all runs of pytest share, and let SIGTERM end this script as Ctrl-C does."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("VAEZOO_TEST_DATA", str(REPO.parent / "shared" / "data"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in LOADED:
        importlib.import_module(name)


def main() -> None:
    """Run the mutations that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=numbers, help="numbers of mutations, as in 3,17")
    parser.add_argument("--start", type=number_of, default=1, help="number of the first mutation")
    parser.add_argument("--jobs", type=int, default=2, help="processes of pytest for all other test files")
    parser.add_argument("--named-only", action="store_true", help="do not go on to all other test files")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for each run of pytest; a hang is noticed")
    parser.add_argument("--confirm", action="store_true", help=CONFIRM)
    parser.add_argument("--check", action="store_true", help="only check that every mutation applies")
    options = parser.parse_args()
    check()
    if options.check:
        print(f"{len(MUTATIONS)} mutations apply")
        return
    load()
    chosen = options.only or list(range(options.start, len(MUTATIONS) + 1))
    files = sorted({file for number in chosen for file in named(MUTATIONS[number - 1])})
    results: dict[int, Result] = {}
    ignored: set[str] = set()  # tests that fail without a mutation
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        base = Path(place).resolve()
        try:
            copy_project(REPO, base / "clean")
            if not options.confirm:
                failed = run_tests(base / "clean", files if options.named_only else all_files(), options.jobs, 6 * 3600)
                if failed:
                    print(f"{failed} fails without a mutation:\n{(base / 'log').read_text()[-3000:]}", file=sys.stderr)
                    sys.exit(2)
                print(f"the unchanged copy passes; {len(chosen)} mutations follow", flush=True)
            for number in chosen:
                results[number] = try_mutation(MUTATIONS[number - 1], base, options, ignored)
                print(line(number, MUTATIONS[number - 1], results[number]), flush=True)
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted", flush=True)
    text, survived = figures(results, options.named_only)
    print(text)
    if ignored:
        print(f"left out, since they fail without a mutation: {', '.join(sorted(ignored))}")
    sys.exit(130 if interrupted else int(survived))


if __name__ == "__main__":
    main()
