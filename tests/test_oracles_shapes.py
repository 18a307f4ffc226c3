"""Every dimension has another size here, so that a wrong axis or constant cannot go unnoticed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from test_contract import make

from vaezoo import seeding
from vaezoo.conditional import Conditional
from vaezoo.data import Batches, Split
from vaezoo.data.batching import ChunkLoader
from vaezoo.data.images import bernoulli
from vaezoo.families import DiscretizedLogistic
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.metrics.latent import log_aggregate_posterior
from vaezoo.metrics.samples import SCALE_WEIGHTS, reconstruction_scores, scale_weights
from vaezoo.models import VAE
from vaezoo.nets import MLP
from vaezoo.objectives.aggregate import decompose
from vaezoo.objectives.discrepancy import imq, mmd, rbf, sliced_wasserstein
from vaezoo.trace import Latent, Trace
from vaezoo.training.means import ExampleMean
from vaezoo.types import Batch

FLOAT = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=torch.Generator().manual_seed(seed))


def normal(loc, scale, dims=1):
    return torch.distributions.Independent(torch.distributions.Normal(loc, scale), dims)


# The order of the data.


def numbered(num, shape=(2, 1, 3)):
    """Images whose pixels are all the index of the example, and labels that are 3 times the index."""
    images = torch.arange(num, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, *shape)
    return Split(images, 3 * torch.arange(num))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize(("num", "size"), [(23, 4), (24, 5), (7, 3)])
def test_processes_take_turns_in_one_order(num, size, world):
    """The order of an epoch comes from its own generator and is filled up from its start; ranks take turns."""
    for epoch in (0, 3):
        order = torch.randperm(num, generator=seeding.generator(11, "order", epoch)).tolist()
        filled = [*order, *order[: -num % world]]
        for rank in range(world):
            mine = filled[rank::world]
            batches = Batches(
                numbered(num), size, seed=11, shuffle=True, epoch=lambda e=epoch: e, rank=rank, world_size=world
            )
            found = list(batches)
            assert len(batches) == len(found) == math.ceil(len(mine) / size)
            assert [len(b.x) for b in found[:-1]] == [size] * (len(found) - 1)
            x, y = torch.cat([b.x for b in found]), torch.cat([b.y for b in found])
            assert y.tolist() == [3 * i for i in mine]
            assert torch.equal(x, (y // 3).to(torch.uint8).reshape(-1, 1, 1, 1).expand_as(x))
            for chunk in (1, 2, 5):
                for first in (0, 1):
                    chunks = ChunkLoader(batches, chunk, first_chunk=lambda first=first: first)
                    parts = [[(p.batch_idx, p.example_ids.tolist()) for p in c] for c in chunks]
                    expected = list(enumerate([mine[i : i + size] for i in range(0, len(mine), size)]))
                    whole = [expected[i : i + chunk] for i in range(first * chunk, len(expected), chunk)]
                    assert parts == whole
                    assert len(chunks) == math.ceil(len(expected) / chunk)
                    assert [chunks.num_batches(n) for n in (1, 99)] == [min(chunk, len(expected)), len(expected)]


def test_bits_of_a_batch_are_drawn_by_process_and_batch():
    """P(1) = pixel / 255. Other ranks, batches and epochs draw other bits of the same image."""
    split = Split(torch.full((60, 1, 8, 9), 64, dtype=torch.uint8), torch.zeros(60))

    def drawn(rank=0, epoch=0, seed=0):
        batches = Batches(
            split,
            10,
            to_model=lambda x, draw: bernoulli(x, draw()).float(),
            seed=seed,
            shuffle=False,
            epoch=lambda: epoch,
            rank=rank,
            world_size=2,
        )
        return torch.cat([b.x for b in batches])

    one = drawn()
    assert one.mean() == pytest.approx(64 / 255, abs=4 * math.sqrt(0.19 / one.numel()))
    assert torch.equal(drawn(), one)
    assert not any(
        torch.equal(one[:10], other[:10]) for other in (one[10:20], drawn(rank=1), drawn(epoch=1), drawn(seed=1))
    )


def test_noise_is_named_by_the_batch_among_all_processes(monkeypatch):
    """In evaluation, batch 5 of rank 2 of 3 has index 17. In training, noise depends on epoch, batch and rank."""
    named = []
    model = VAE((1, 3, 2), latent_dim=2, seed=4)
    trainer = SimpleNamespace(world_size=3, global_step=12, current_epoch=6, global_rank=2)
    monkeypatch.setattr(VAE, "trainer", trainer)
    monkeypatch.setattr(VAE, "global_rank", 2)
    monkeypatch.setattr(VAE, "current_epoch", 6)
    monkeypatch.setattr(seeding, "reseed", lambda device, *keys: named.append(keys))
    batch = Batch(torch.zeros(2, 1, 3, 2), torch.zeros(2))
    model.validation_step(batch, 5)
    model.test_step(batch, 5, 1)
    model.on_microbatch_start(7)
    assert named == [(4, "val", 17, 0), (4, "test", 17, 1), (4, "train", 6, 7, 2)]


# Sums over dimensions, means over samples and examples.


def test_an_elbo_of_shapes_that_differ():
    """K = 3, B = 5, two layers of (2,) and (4, 3) dimensions, data of (2, 3, 1): loops over all of them."""
    K, B = 3, 5
    scales = [(0.2 * randn(B, *event, seed=i)).exp() for i, event in enumerate([(2,), (4, 3)])]
    locs = [randn(B, 2, seed=2), randn(B, 4, 3, seed=3)]
    zs = [loc + scale * randn(K, *loc.shape, seed=7) for loc, scale in zip(locs, scales, strict=True)]
    latents = tuple(
        Latent(
            normal(loc, scale, loc.dim() - 1),
            normal(torch.zeros_like(loc[0]), 2 * torch.ones_like(loc[0]), loc.dim() - 1),
            z,
        )
        for loc, scale, z in zip(locs, scales, zs, strict=True)
    )
    x = randn(B, 2, 3, 1, seed=5)
    mean = zs[0].sum(-1)[..., None, None, None].expand(K, B, 2, 3, 1)
    trace = Trace(x, normal(mean, torch.full_like(mean, 0.7), 3), latents)
    log_px = np.zeros((K, B))
    kl = np.zeros((B, 2))
    log_w = np.zeros((K, B))
    for b in range(B):
        for k in range(K):
            log_px[k, b] = stats.norm.logpdf(x[b], mean[k, b], 0.7).sum()
            log_w[k, b] = log_px[k, b] + sum(
                stats.norm.logpdf(z[k, b], 0, 2).sum() - stats.norm.logpdf(z[k, b], loc[b], scale[b]).sum()
                for z, loc, scale in zip(zs, locs, scales, strict=True)
            )
        for i, (loc, scale) in enumerate(zip(locs, scales, strict=True)):
            m, s = loc[b].numpy(), scale[b].numpy()
            kl[b, i] = (np.log(2 / s) + (s**2 + m**2) / 8 - 0.5).sum()
    np.testing.assert_allclose(trace.log_px, log_px, rtol=1e-12)
    np.testing.assert_allclose(trace.kl, kl, rtol=1e-12)
    np.testing.assert_allclose(trace.elbo, log_px.mean(0) - kl.sum(1), rtol=1e-12)
    np.testing.assert_allclose(trace.log_w, log_w, rtol=1e-12)
    assert latents[1].kl_per_dim.shape == (B, 4, 3)


def test_means_over_examples_of_any_shape():
    mean = ExampleMean()
    a, b = randn(7, seed=1), randn(7, 3, seed=2)
    for part in (slice(0, 4), slice(4, 5), slice(5, 7)):
        mean.update({"a": a[part], "b": b[part]})
    found = mean.values()
    torch.testing.assert_close(found["a"], a.mean())
    torch.testing.assert_close(found["b"], b.mean(0))
    mean.compute()
    assert mean.num == 7
    totals = ExampleMean()
    totals.update({"row": torch.tensor([1.0, 10.0])}, 3)
    totals.update({"row": torch.tensor([2.0, 40.0])}, 2)
    torch.testing.assert_close(totals.values()["row"], torch.tensor([7 / 5, 22.0], dtype=FLOAT))


def test_decomposition_by_loops():
    """K = 2, B = 3 of N = 7, D = 4: stratified weights by pairs of examples."""
    loc, scale = randn(3, 4), (0.3 * randn(3, 4, seed=1)).exp()
    z = loc + scale * randn(2, 3, 4, seed=2)
    p = normal(torch.zeros(4, dtype=FLOAT), torch.full((4,), 1.5, dtype=FLOAT))
    for estimator in ("mss", "mws"):
        found = decompose(Latent(normal(loc, scale), p, z), 7, estimator)
        terms = np.zeros((2, 3, 3))
        for k in range(2):
            for i in range(3):
                q = stats.norm.pdf(z[k, i], loc.numpy(), scale.numpy())  # (3 posteriors, 4)
                w = (
                    np.array([1 / 7 if i == j else 6 / 7 / 2 for j in range(3)])
                    if estimator == "mss"
                    else np.full(3, 1 / 21)
                )
                log_qz, log_dims = np.log((w * q.prod(1)).sum()), np.log((w[:, None] * q).sum(0)).sum()
                log_p = stats.norm.logpdf(z[k, i], 0, 1.5).sum()
                terms[k, i] = np.log(q[i].prod()) - log_qz, log_qz - log_dims, log_dims - log_p
        np.testing.assert_allclose([float(t) for t in found], terms.mean((0, 1)), rtol=1e-9)


def test_discrepancies_by_loops():
    """K = 2, B = 3, events of (2, 2): only pairs of different examples, and projections of all 6 samples."""
    z, y = randn(2, 3, 2, 2), 0.7 * randn(2, 3, 2, 2, seed=1) + 0.3
    flat_z, flat_y = (v.flatten(2).flatten(0, 1).numpy() for v in (z, y))
    example = [0, 1, 2] * 2

    def k_rbf(a, b):
        return math.exp(-((a - b) ** 2).sum() / 8)

    def k_imq(a, b):
        return np.mean([8 * s / (8 * s + ((a - b) ** 2).sum()) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)])

    for kernel, k in ((rbf, k_rbf), (imq, k_imq)):
        within = [
            np.mean([k(v[i], v[j]) for i in range(6) for j in range(6) if example[i] != example[j]])
            for v in (flat_z, flat_y)
        ]
        between = np.mean([k(a, b) for a in flat_z for b in flat_y])
        assert float(mmd(z, y, kernel)) == pytest.approx(sum(within) - 2 * between, rel=1e-10)
    torch.manual_seed(0)
    found = sliced_wasserstein(z, y, 5)
    torch.manual_seed(0)
    theta = torch.randn(4, 5, dtype=FLOAT).numpy()
    costs = [
        ((np.sort(flat_z @ t / np.linalg.norm(t)) - np.sort(flat_y @ t / np.linalg.norm(t))) ** 2).mean()
        for t in theta.T
    ]
    assert float(found) == pytest.approx(np.mean(costs), rel=1e-10)


def test_aggregates_of_groups_by_loops(monkeypatch):
    """4 samples, 3 examples, groups of 2 and 1 dimensions, computed one row at a time."""
    monkeypatch.setattr("vaezoo.metrics.latent.MAX_PAIRS", 4)
    factors = [
        normal(randn(3, 2), (0.3 * randn(3, 2, seed=1)).exp()),
        torch.distributions.Normal(randn(3, seed=2), 0.8),
    ]
    draws = [randn(4, 2, seed=3), randn(4, seed=4)]
    joint, groups = log_aggregate_posterior(factors, draws)
    for m in range(4):
        pairs = np.array([
            [float(f.log_prob(z[m].expand(3, *z.shape[1:]))[n]) for f, z in zip(factors, draws, strict=True)]
            for n in range(3)
        ])  # fmt: skip
        assert float(joint[m]) == pytest.approx(math.log(np.exp(pairs.sum(1)).mean()))
        assert float(groups[m]) == pytest.approx(np.log(np.exp(pairs).mean(0)).sum())


def test_evidence_in_chunks_of_a_likelihood_with_two_outputs():
    """17 samples in chunks of at most 5: 17 different weights, and the same values example by example."""
    model = VAE((3, 2, 4), latent_dim=3, likelihood=DiscretizedLogistic()).eval()
    x = (torch.randint(256, (3, 3, 2, 4), generator=torch.Generator().manual_seed(0)) / 255).float()
    forward, weights = model.forward, []

    def record(*args, **kwargs):
        trace = forward(*args, **kwargs)
        weights.append(trace.log_w)
        return trace

    model.forward = record
    found = estimate_log_marginal(model, x, num_samples=17, chunk_size=5)
    assert [tuple(w.shape) for w in weights] == [(5, 1)] * 12
    for i in range(3):
        log_w = torch.cat(weights[4 * i : 4 * i + 4])[:17, 0].double()
        assert len(log_w.unique()) == 17
        assert float(found.log_p[i]) == pytest.approx(float(log_w.logsumexp(0) - math.log(17)), rel=1e-12)
        assert float(found.elbo[i]) == pytest.approx(float(log_w.mean()), rel=1e-12)
    whole = estimate_log_marginal(model, x[2:], num_samples=17, chunk_size=5, start_index=2)
    assert float(whole.log_p) == float(found.log_p[2])


def test_raw_outputs_are_the_parameters_of_the_family():
    """A decoder to (3, 2, 4) with two raw outputs: the first three channels are the location."""
    decoder = Conditional((5,), (3, 2, 4), lambda a, b: MLP(a, b, hidden=[]), DiscretizedLogistic())
    z = randn(2, 6, 5).float()
    raw = decoder.net.layers[0](z.reshape(12, 5)).reshape(2, 6, 6, 2, 4)
    loc, log_scale = decoder.params(z)
    torch.testing.assert_close(loc, raw[:, :, :3])
    torch.testing.assert_close(log_scale, raw[:, :, 3:])
    mean = torch.rand(3, 2, 4)
    decoder.init_mean(mean)
    with torch.no_grad():
        for p in decoder.net.parameters():
            p.zero_()
    torch.testing.assert_close(decoder.params(z)[0], mean.expand(2, 6, 3, 2, 4))


def test_similarity_of_images_that_are_not_square():
    """Two scales of 23 x 29 pixels and 2 channels, by loops over windows; weights that add up to 1."""
    x = torch.rand(2, 2, 23, 29, dtype=FLOAT, generator=torch.Generator().manual_seed(0)).numpy()
    y = np.clip(0.7 * x + 0.3 * np.random.default_rng(0).random(x.shape), 0, 1)
    axis = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / np.outer(axis, axis).sum()

    def maps(a, b):
        ssim, contrast = [], []
        for i in range(a.shape[1] - 10):
            for j in range(a.shape[2] - 10):
                for channel in range(2):
                    p, q = (v[channel, i : i + 11, j : j + 11] for v in (a, b))
                    mp, mq = (window * p).sum(), (window * q).sum()
                    vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                    c = (2 * (window * (p - mp) * (q - mq)).sum() + 0.0009) / (vp + vq + 0.0009)
                    contrast.append(c)
                    ssim.append(c * (2 * mp * mq + 0.0001) / (mp**2 + mq**2 + 0.0001))
        return np.mean(ssim), np.mean(contrast)

    found = reconstruction_scores(torch.from_numpy(x), torch.from_numpy(y))
    first, second = np.array(SCALE_WEIGHTS[:2]) / sum(SCALE_WEIGHTS[:2])
    assert scale_weights(23, 29) == pytest.approx((first, second))
    for n in range(2):
        ssim, contrast = maps(x[n], y[n])
        small = [v[n, :, :22, :28].reshape(2, 11, 2, 14, 2).mean((2, 4)) for v in (x, y)]
        assert float(found["ssim"][n]) == pytest.approx(ssim, rel=1e-9)
        assert float(found["ms_ssim"][n]) == pytest.approx(contrast**first * maps(*small)[0] ** second, rel=1e-9)
        assert float(found["psnr"][n]) == pytest.approx(-10 * math.log10(((x[n] - y[n]) ** 2).mean()), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["mlp_vae", "ladder_vae", "cvae", "vq_vae", "s_vae", "mog_vae", "vamp_vae", "flow_prior_vae"]
)
def test_samples_are_decoded_draws_of_the_prior(name):
    """``sample(num)`` gives num images, with the mean image of decoded samples of the prior, layer by layer."""
    small = {"mog_vae": ["model.num_components=3"], "vamp_vae": ["model.num_components=3"]}.get(name, [])
    model = make(name, *small, net="mlp", shape=(1, 3, 2)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator))
        num = 6000
        y = torch.arange(num) % 2 if name == "cvae" else None
        torch.manual_seed(0)
        found = model.sample(num, y).mean
        torch.manual_seed(1)
        if name == "ladder_vae":
            z = torch.randn(num, model.dims[-1])
            for down in reversed(model.downwards):
                p = down(z).base_dist
                z = p.loc + p.scale * torch.randn(p.loc.shape)
        elif name == "vq_vae":
            z = model.quantizer.codebook[torch.randint(len(model.quantizer.codebook), (num, model.latent_shape[0]))]
        else:
            z = model.prior(y).sample(torch.Size([num]))
        expected = model.decoder(z, y).mean
    assert found.shape == (num, 1, 3, 2)
    for group in (slice(0, None, 2), slice(1, None, 2)):
        error = (found[group].var(0) / (num / 2) + expected[group].var(0) / (num / 2)).sqrt()
        assert ((found[group].mean(0) - expected[group].mean(0)).abs() < 5 * error).all()
        assert error.max() < 0.012
    spread = found.var(0) / expected.var(0)
    assert spread.min() > 0.85
    assert spread.max() < 1.18
