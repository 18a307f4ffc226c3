"""Vector quantization and the VQ-VAE: van den Oord et al. 2017."""

import math
from functools import partial

import pytest
import torch
from conftest import RandomImages
from lightning.pytorch import Trainer
from torch.distributions import kl_divergence

from vaezoo.distributions import UniformCodes
from vaezoo.models import VQVAE
from vaezoo.nets import Quantizer

vq_vae = partial(VQVAE, commitment=0.25, decay=0.99, restart_below=0.01)


def vectors(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def quantizer(num_codes=7, dim=3, **kwargs):
    torch.manual_seed(0)
    return Quantizer(num_codes, dim, **kwargs).double()


def test_nearest_code_by_all_distances():
    q, v = quantizer(), vectors(5, 4, 3)
    distances = (v[..., None, :] - q.codebook).square().sum(-1)
    out = q.eval()(v)
    assert torch.equal(out.codes, distances.argmin(-1))
    assert torch.allclose(out.embeddings, q.codebook[out.codes], atol=1e-15)


def test_straight_through_jacobian_is_the_identity():
    q, v = quantizer().eval(), vectors(2, 3)

    def quantised(flat):
        return q(flat.reshape(1, 2, 3)).embeddings.flatten()

    jacobian = torch.autograd.functional.jacobian(quantised, v.flatten())
    assert torch.equal(jacobian, torch.eye(6, dtype=torch.float64))


def test_one_update_with_decay_0_gives_the_cluster_means():
    """Every used code becomes the mean of its vectors."""
    clusters = torch.tensor([[5.0, 5, 5], [-5, -5, -5]], dtype=torch.float64)
    v = torch.cat([clusters[:1] + vectors(40, 3), clusters[1:] + vectors(20, 3, seed=1)])
    q = quantizer(num_codes=2, decay=0.0)
    q.codebook.copy_(clusters)
    q.train()(v[None])
    means = torch.stack([v[:40].mean(0), v[40:].mean(0)])
    torch.testing.assert_close(q.codebook, means, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.counts.tolist(), [2 / 3, 1 / 3])


def test_running_means():
    """An update by hand: e = m / N, both with the decay."""
    q = quantizer(num_codes=2, dim=1, decay=0.9, restart_below=0.0)
    q.codebook.copy_(torch.tensor([[0.0], [10.0]]))
    q.sums.copy_(q.codebook / 2)
    q.train()(torch.tensor([[[1.0], [2.0], [11.0]]], dtype=torch.float64))
    n = [0.9 / 2 + 0.1 * 2 / 3, 0.9 / 2 + 0.1 / 3]
    m = [0.1 * 3 / 3, 0.9 * 5 + 0.1 * 11 / 3]
    torch.testing.assert_close(q.codebook.flatten().tolist(), [m[0] / n[0], m[1] / n[1]], rtol=1e-12, atol=0)


def test_init_from_data_is_k_means():
    """scikit-learn's Lloyd iterations from the same initial codes give the same codes."""
    from sklearn.cluster import KMeans

    centres = 6 * vectors(8, 3)
    v = (centres[:, None] + vectors(8, 50, 3, seed=1)).flatten(0, 1)
    for seed in range(5):
        q = quantizer(num_codes=8)
        torch.manual_seed(seed)
        chosen = v[torch.randperm(400)[:8]]
        torch.manual_seed(seed)
        q.init_from_data(v)
        theirs = KMeans(8, init=chosen.numpy(), n_init=1, max_iter=10, tol=0, algorithm="lloyd").fit(v.numpy())
        torch.testing.assert_close(q.codebook, torch.from_numpy(theirs.cluster_centers_), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("restart_below", "used"), [(0.1, 15), (0.0, 1)])
def test_dead_codes_are_replaced(restart_below, used):
    """Nearly all codes that are far from all vectors come into use. Without replacement none does."""
    v = vectors(64, 3)
    q = quantizer(num_codes=16, decay=0.5, restart_below=restart_below)
    q.codebook.add_(100)
    q.codebook[0] = 0
    q.sums.copy_(q.codebook / 16)
    for _ in range(30):
        q.train()(v[None])
    num = q.nearest(v).unique().numel()
    assert num >= used if restart_below else num == used


def test_evaluation_does_not_change_the_codebook():
    q, v = quantizer().eval(), vectors(1, 9, 3)
    before = q.codebook.clone()
    q(v)
    assert torch.equal(q.codebook, before)
    q.train()(v)
    assert not torch.equal(q.codebook, before)


def test_rate_is_ln_c_for_each_position():
    model = vq_vae((1, 4, 4), latent_dim=3, num_latents=5, num_codes=11).double().eval()
    x = vectors(6, 1, 4, 4).gt(0).double()
    trace = model(x, num_samples=3)
    q, p = trace.latent.q, trace.latent.p
    assert kl_divergence(q, p).tolist() == pytest.approx([5 * math.log(11)] * 6, rel=1e-15)
    torch.testing.assert_close(trace.elbo, trace.log_px[0] - 5 * math.log(11), rtol=1e-14, atol=0)
    torch.testing.assert_close(trace.log_w, trace.elbo.expand(3, 6), rtol=1e-12, atol=0)  # no noise
    drawn = p.sample((4000,))
    assert drawn.shape == (4000, 5, 3)
    counts = torch.bincount(model.quantizer.nearest(drawn).flatten(), minlength=11).double() / 20000
    assert (counts - 1 / 11).abs().max() < 5 * math.sqrt(1 / 11 / 20000)
    assert isinstance(p, UniformCodes)


def test_the_bound_holds_by_enumeration():
    """log p(x) is the logarithm of the mean of p(x | z) over all C^n codes, and the ELBO is below it."""
    model = vq_vae((1, 2, 3), latent_dim=2, num_latents=2, num_codes=4).double().eval()
    x = vectors(5, 1, 2, 3).gt(0).double()
    codebook = model.quantizer.codebook
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))  # (16, 2)
    log_px = model.decode(codebook[every][:, None]).log_prob(x)  # (16, B)
    evidence = log_px.logsumexp(0) - math.log(16)
    assert (model(x).elbo <= evidence + 1e-12).all()


def test_loss_by_hand():
    model = vq_vae((1, 4, 4), latent_dim=3, num_latents=5, num_codes=11, commitment=0.75).double().eval()
    x = vectors(6, 1, 4, 4).gt(0).double()
    inputs = model.encoder(x)
    e = model.encode(x)
    distance = (inputs - e).square().sum((1, 2)).mean()
    expected = 0.75 * distance - model.decode(e).log_prob(x).mean() + 5 * math.log(11)
    torch.testing.assert_close(model.objective(model(x))["loss"], expected, rtol=1e-12, atol=0)
    # The commitment term moves the encoder's output towards the code: its gradient is 2 * 0.75 * (z_e - e) / B. The
    # codebook is not a parameter.
    trace = model(x)
    latent = trace.latent.q
    (gradient,) = torch.autograd.grad(0.75 * model.objective(trace)["code_distance"], latent.inputs)
    torch.testing.assert_close(gradient, 1.5 * (inputs - e).detach() / 6, rtol=1e-9, atol=1e-12)
    assert "quantizer.codebook" not in dict(model.named_parameters())
    with pytest.raises(ValueError, match="has no KL term"):
        vq_vae((1, 4, 4), latent_dim=16, num_latents=16, num_codes=64, free_bits=0.5)


def test_codes_are_counted_over_the_epoch():
    """codes_used and perplexity are those of all validation images together, for every batch size."""
    values = []
    for size in (7, 20):
        torch.manual_seed(0)
        model = vq_vae((1, 4, 4), latent_dim=2, num_latents=3, num_codes=16)
        data = RandomImages((1, 4, 4))
        data.eval_batch_size = size
        trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                          enable_model_summary=False, accelerator="cpu")  # fmt: skip
        trainer.fit(model, data)
        values.append(model.results["val"])
        model.eval()
        codes = model.quantizer.nearest(model.encoder(torch.cat([batch.x for batch in data.val_dataloader()])))
        share = torch.bincount(codes.flatten(), minlength=16).double() / codes.numel()
        assert values[-1]["codes_used"] == (share > 0).sum()
        assert values[-1]["perplexity"] == pytest.approx(float(torch.special.entr(share).sum().exp()))
    assert values[0]["codes_used"] == values[1]["codes_used"]
    assert values[0]["perplexity"] == pytest.approx(values[1]["perplexity"], rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0}, "num_codes and latent_dim must be >= 1, got 0"),
        ({"decay": 1.0}, r"must be in \[0, 1\), got 1.0"),
        ({"num_latents": 0}, "num_latents must be >= 1, got 0"),
        ({"commitment": -1}, "commitment must be a finite number >= 0, got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        vq_vae((1, 4, 4), **{"latent_dim": 16, "num_latents": 16, "num_codes": 64, **options})


def test_the_codebook_ignores_autocast():
    """Under bf16, the nearest codes and the updated codebook are those of full precision."""
    q, v = quantizer(num_codes=30).float(), vectors(2, 50, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        codes = q.eval()(v).codes
        q.train()(v)
    again = quantizer(num_codes=30).float()
    torch.manual_seed(0)
    assert torch.equal(codes, again.eval()(v).codes)
    again.train()(v)
    used = codes.unique()
    assert torch.equal(q.codebook[used], again.codebook[used])  # the others were replaced at random
