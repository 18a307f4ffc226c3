"""The multimodal VAE against exact answers: linear-Gaussian models, quadrature, and the VAE of one modality."""

import copy
import math
from functools import partial
from itertools import permutations

import pytest
import torch
from ppca import inverse_soft_floor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaezoo.distributions import ExpertMixture
from vaezoo.export.functions import Decoder
from vaezoo.export.preprocessing import Preprocessing
from vaezoo.families import (
    Bernoulli,
    Categories,
    FixedScaleNormal,
    GaussianExperts,
    IndexCategorical,
    Joint,
    NegativeBinomial,
    TokenSequence,
)
from vaezoo.families.experts import AGGREGATES, subsets
from vaezoo.models import VAE, MultimodalVAE
from vaezoo.nets import MLP, MaskedInput, PartDecoders, PartEncoders

WEIGHTS = {  # columns of a and b are orthogonal, so that the exact posterior is a diagonal normal
    "a": torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.5, 0.0]], dtype=torch.float64),
    "b": torch.tensor([[0.3, -2.0], [0.6, 1.0]], dtype=torch.float64),
    "c": torch.tensor([[0.7, 0.4]], dtype=torch.float64),
}
SIGMA = {"a": 0.5, "b": 1.3, "c": 0.2}


def options(aggregate, **more):
    settings = {"latent_dim": 2, "objective": "elbo", "alpha": 0.3, "beta": 1.0, "subsets": False, "hidden": []}
    return settings | {"aggregate": aggregate} | more


def linear_model(aggregate="product", names="ab", **more):
    """x_m = W_m z + m / 10 + sigma_m eps; each expert is N(z; x_m) as the likelihood of z, so products are exact."""
    layout = {name: (len(WEIGHTS[name]),) for name in names}
    likelihood = Joint(layout, {name: FixedScaleNormal(SIGMA[name]) for name in names})
    size = likelihood.layout.size
    model = MultimodalVAE((size,), likelihood=likelihood, **options(aggregate, **more)).double().eval()
    with torch.no_grad():
        for name in names:
            weight, sigma = WEIGHTS[name], SIGMA[name]
            (decoder,), (encoder,) = model.decoder.net.nets[name].layers, model.encoder.net.nets[name].net.layers
            decoder.weight.copy_(weight)
            decoder.bias.fill_(ord(name) / 1000)
            precision = weight.square().sum(0) / sigma**2
            gain = (weight / sigma**2 / precision).T
            encoder.weight.zero_()[:2, : len(weight)] = gain  # and 0 for the mask
            encoder.bias[:2] = -gain.sum(1) * ord(name) / 1000
            encoder.bias[2:] = inverse_soft_floor(-precision.log() / 2, -7.0)
    return model


def exact(names):
    """p(x) of some parts together, and a function from x to p(z | x)."""
    weight = torch.cat([WEIGHTS[name] for name in names])
    mean = torch.cat([torch.full((len(WEIGHTS[name]),), ord(name) / 1000, dtype=torch.float64) for name in names])
    noise = torch.cat([torch.full((len(WEIGHTS[name]),), SIGMA[name] ** 2, dtype=torch.float64) for name in names])
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + weight.T @ (weight / noise[:, None]))
    evidence = MultivariateNormal(mean, weight @ weight.T + noise.diag())
    return evidence, lambda x: MultivariateNormal((x - mean) / noise @ weight @ covariance, covariance)


def data(num=5, size=5):
    return torch.randn(num, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


COLUMNS = {"a": slice(0, 3), "b": slice(3, 5)}


def hide(x, name):
    x = x.clone()
    x[:, COLUMNS[name]] = torch.nan
    return x


# The product of experts.


@pytest.mark.parametrize("observed", ["ab", "a", "b", ""])
def test_a_product_with_the_prior_is_the_exact_posterior(observed):
    """The gap is 0 for each subset: a prior that is counted twice, or not at all, would leave one."""
    model, x = linear_model(), data()
    for name in set("ab") - set(observed):
        x = hide(x, name)
    trace = model(x, num_samples=3)
    q = trace.latent.q
    if not observed:
        assert torch.equal(q.mean, torch.zeros(5, 2, dtype=torch.float64))
        assert torch.equal(q.stddev, torch.ones(5, 2, dtype=torch.float64))
        assert torch.equal(trace.log_w, torch.zeros(3, 5, dtype=torch.float64))
        return
    evidence, posterior = exact(observed)
    parts = torch.cat([x[:, COLUMNS[name]] for name in observed], 1)
    p = posterior(parts)
    torch.testing.assert_close(q.mean, p.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.variance, p.variance, rtol=1e-9, atol=1e-9)
    log_p = evidence.log_prob(parts)
    torch.testing.assert_close(trace.log_w, log_p.expand(3, 5), rtol=0, atol=1e-8)
    torch.testing.assert_close(model.log_marginal(x, num_samples=2), log_p, rtol=0, atol=1e-8)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_patterns_in_one_batch(aggregate):
    """Each example of a batch with other missing modalities has the posterior that it has in a batch of its own."""
    model, x = linear_model(aggregate), data()
    mixed = torch.cat([x[:1], hide(x, "a")[1:2], hide(x, "b")[2:3], hide(hide(x, "a"), "b")[3:4]])
    z = data(4, 2)
    together = model.encoder(mixed).log_prob(z)
    alone = torch.cat([model.encoder(mixed[i : i + 1]).log_prob(z[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together[3], Normal(0.0, 1.0).log_prob(z[3]).sum(), rtol=1e-12, atol=1e-12)
    assert model(mixed, num_samples=4).elbo.isfinite().all()


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_one_observed_modality_has_one_posterior(aggregate):
    """With one observed modality all aggregates are its exact posterior."""
    _, posterior = exact("a")
    x = data()
    q = linear_model(aggregate).encoder(hide(x, "b"))
    z = data(5, 2)
    torch.testing.assert_close(q.log_prob(z), posterior(x[:, :3]).log_prob(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_gradients_with_missing_modalities(aggregate):
    """A missing modality gives no NaN, and no gradient to its own networks."""
    model = linear_model(aggregate).train()
    model.objective(model(hide(data(), "b"), num_samples=4))["loss"].backward()
    for part in (model.encoder.net.nets, model.decoder.net.nets):
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in part["a"].parameters())
        assert all(p.grad is None or not p.grad.any() for p in part["b"].parameters())


# One modality, missing ones, and their order.


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_one_modality_is_the_vae(aggregate):
    """With M = 1, three steps of training give the weights of the VAE with this posterior, to the bit."""
    weights = []
    for kind in ("multimodal", "vae"):
        torch.manual_seed(0)
        likelihood = Joint({"x": (5,)}, {"x": FixedScaleNormal(0.5)})
        if kind == "vae":
            net = partial(MLP, hidden=[8])
            parts = {"encoder": partial(MaskedInput, net=net), "decoder": net}
            model = VAE((5,), 2, likelihood=likelihood, posterior=lambda s: GaussianExperts(1, "product"), **parts)
        else:
            model = MultimodalVAE((5,), likelihood=likelihood, **options(aggregate, hidden=[8], subsets=True))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            torch.manual_seed(1)
            # The multimodal VAE also draws which modalities it sees: of one, always that one.
            x = data().float() if kind == "multimodal" else (torch.randint(1, 2, (5, 1)), data().float())[1]
            model.objective(model(x))["loss"].backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_missing_modality_is_the_model_of_the_others(aggregate):
    """With c missing, a model of a, b and c has the pass of the model of a and b."""
    two, three = linear_model(aggregate, "ab"), linear_model(aggregate, "abc")
    x = data()
    longer = torch.cat([x, x.new_full((5, 1), torch.nan)], 1)
    passes = []
    for model, examples in ((two, x), (three, longer)):
        torch.manual_seed(0)
        trace = model(examples, num_samples=6)
        passes.append((trace.elbo, trace.log_w, trace.latent.z))
    for one, other in zip(*passes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_order_of_modalities_changes_nothing(aggregate):
    parts = {"a": data(4, 3), "b": data(4, 2), "c": data(4, 1)}
    parts["b"][1] = torch.nan
    z = data(4, 2)
    found = []
    for names in permutations("abc"):
        model, x = linear_model(aggregate, "".join(names)), torch.cat([parts[name] for name in names], 1)
        q = model.encoder(x)
        found.append(torch.stack([q.log_prob(z), model.decoder(z).log_prob(x), q.mean.sum(1)]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-12)


# Mixtures.

GRID = torch.linspace(-12, 12, 240_001, dtype=torch.float64)


def integrate(values):
    return torch.trapezoid(values, GRID, dim=0)


def test_the_kl_of_a_mixture_is_not_the_mean_of_the_kls():
    """The ELBO of a mixture has its own KL; the mean of the components' KLs is an upper bound of it."""
    loc, scale = torch.tensor([[[-2.0], [1.5]]]).double(), torch.tensor([[[0.3], [0.6]]]).double()
    q, p = ExpertMixture(loc, scale, torch.tensor([[True, True]])), Independent(Normal(torch.zeros(1).double(), 1.0), 1)
    density = q.log_prob(GRID[:, None, None])[:, 0]
    kl = integrate(density.exp() * (density - p.log_prob(GRID[:, None])))
    upper = kl_divergence(Normal(loc, scale), Normal(0.0, 1.0)).mean()
    assert upper > kl + 0.6
    torch.manual_seed(0)
    z = q.rsample((200_000,))
    estimate = (q.log_prob(z) - p.log_prob(z)).mean()
    assert float(estimate) == pytest.approx(float(kl), abs=0.01)


@pytest.mark.parametrize("aggregate", ["mixture", "mopoe"])
def test_the_elbo_of_a_mixture_by_quadrature(aggregate):
    """One latent dimension: the ELBO, of a sum over strata, equals its integral, for whole and incomplete examples."""
    likelihood = Joint({"a": (2,), "b": (1,)}, {"a": FixedScaleNormal(0.4), "b": FixedScaleNormal(0.7)})
    torch.manual_seed(3)
    model = MultimodalVAE((3,), likelihood=likelihood, **options(aggregate, latent_dim=1, hidden=[4])).double().eval()
    x = torch.tensor([[1.0, -0.5, 2.0], [0.3, 0.2, math.nan]], dtype=torch.float64)
    with torch.no_grad():
        q = model.encoder(x)
        density = q.log_prob(GRID[:, None, None])
        joint = model.decoder(GRID[:, None, None].expand(-1, 2, 1)).log_prob(x) + model.prior().log_prob(
            GRID[:, None, None]
        )
        wanted = integrate(density.exp() * (joint - density))
        torch.manual_seed(0)
        trace = model(x, num_samples=120_000)
    torch.testing.assert_close(trace.elbo, wanted, rtol=0, atol=0.02)
    log_p = integrate(joint.exp()).log()
    torch.testing.assert_close(trace.log_w.logsumexp(0) - math.log(120_000), log_p, rtol=0, atol=0.03)
    assert (wanted < log_p).all()


def test_strata():
    """K samples take the components that are present in turn, from a random first one."""
    loc = torch.tensor([-100.0, 0.0, 100.0]).reshape(1, 3, 1).expand(4000, 3, 1)
    present = torch.ones(4000, 3, dtype=torch.bool)
    present[::2, 1] = False
    q = ExpertMixture(loc, torch.ones(4000, 3, 1), present)
    torch.manual_seed(0)
    which = (q.rsample((6,))[..., 0] / 100).round()  # (K, B)
    for value, odd in ((-1, 2), (0, 2), (1, 2)):
        assert ((which[:, 1::2] == value).sum(0) == odd).all()
    assert ((which[:, ::2] == -1).sum(0) == 3).all()
    assert (which[:, ::2] != 0).all()
    first = q.rsample((4,))[0, :, 0]  # each sample by itself has the density q
    shares = torch.stack([(first[1::2] / 100).round() == value for value in (-1, 0, 1)]).double().mean(1)
    assert (shares - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / 2000)
    assert q.rsample().shape == (4000, 1)
    assert q.rsample((2, 3)).shape == (2, 3, 4000, 1)
    assert q.expand((2, 4000)).log_prob(torch.zeros(2, 4000, 1)).shape == (2, 4000)


def test_log_p_of_a_mixture_posterior():
    """log p(x) by importance sampling is the exact one. The weighted mean of the log weights, which a surrogate for the
    gradient of the MMVAE has, is no bound: it is larger than log p(x).
    """
    model, x = linear_model("mixture"), data()
    log_p = exact("ab")[0].log_prob(x)
    torch.testing.assert_close(model.log_marginal(x, num_samples=5000), log_p, rtol=0, atol=0.15)
    torch.manual_seed(0)
    log_w = model(x, num_samples=5000).log_w.detach()
    assert ((log_w.softmax(0) * log_w).sum(0) > log_p + 0.2).all()
    assert (model(x, num_samples=400).elbo < log_p).all()


def test_subsets_of_an_aggregate():
    assert subsets(3, "product") == [(0, 1, 2)]
    assert subsets(3, "mixture") == [(0,), (1,), (2,)]
    assert len(subsets(3, "mopoe")) == 7


# Objectives.


def test_no_weight_is_in_the_elbo():
    """The ELBO is that of the model, whatever the objective and its weights."""
    found = []
    for objective, alpha, beta in (("elbo", 0.0, 1.0), ("elbo", 0.0, 7.0), ("jmvae", 5.0, 1.0), ("mvtcae", 0.9, 3.0)):
        model = linear_model(objective=objective, alpha=alpha, beta=beta)
        torch.manual_seed(0)
        found.append(model(data()).elbo)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("objective", ["jmvae", "mvtcae"])
def test_objectives_by_hand(objective):
    """The loss is that of the papers, with KLs between exact posteriors."""
    model, x = linear_model(objective=objective, alpha=0.4, beta=2.0), data()
    torch.manual_seed(0)
    trace = model(x)
    terms = model.objective(trace)
    joint = exact("ab")[1](x)
    singles = [exact("a")[1](x[:, :3]), exact("b")[1](x[:, 3:])]
    apart = sum(kl_divergence(joint, single) for single in singles).mean()
    prior = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    rate, log_px = kl_divergence(joint, prior).mean(), trace.log_px.mean()
    wanted = {
        "jmvae": -log_px + 2 * rate + 0.4 * apart,
        "mvtcae": -(2 - 0.4) / 2 * log_px + 2 * ((1 - 0.4) * rate + 0.4 / 2 * apart),
    }
    torch.testing.assert_close(terms["loss"], wanted[objective])
    torch.testing.assert_close(terms["modality_kl"], apart)
    hidden = model.objective(model(hide(x, "b")))["modality_kl"]  # the joint posterior is that of a
    torch.testing.assert_close(hidden, torch.zeros_like(hidden), rtol=0, atol=1e-9)


def test_random_subsets_in_training():
    """Each subset of the modalities but the empty one is as frequent as the others; evaluation hides nothing."""
    model = linear_model(subsets=True, names="abc")
    x = data(7000, 6)
    assert torch.equal(model(x[:5]).x, x[:5])
    torch.manual_seed(0)
    seen = model.train()(x).x
    there = torch.stack([~part.isnan().any(1) for part in (seen[:, :3], seen[:, 3:5], seen[:, 5:])], 1)
    assert torch.equal(
        seen.isnan(), ~torch.cat([there[:, :1].expand(-1, 3), there[:, 1:2].expand(-1, 2), there[:, 2:]], 1)
    )
    counts = torch.bincount((there * torch.tensor([1, 2, 4])).sum(1), minlength=8)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 5 * math.sqrt(7000 * 6 / 49)
    kept = seen.where(~seen.isnan(), x)
    assert torch.equal(kept, x)


# Images, captions and labels.


def mixed_model(aggregate="product", **more):
    layout = {"image": [1, 6, 6], "caption": [4], "label": [1]}
    families = {
        "image": Bernoulli(),
        "caption": TokenSequence(7, 4, hidden=8, embedding=4, num_layers=2, end_token=1),
        "label": IndexCategorical(3),
    }
    return MultimodalVAE((41,), likelihood=Joint(layout, families), **options(aggregate, hidden=[8], **more))


def mixed_data(num=6):
    x = torch.rand(num, 41, generator=torch.Generator().manual_seed(0)).round()
    x[:, 36:40] = torch.tensor([2.0, 3, 1, -1])  # -1 is the padding after the end of a caption
    x[:, 40] = torch.arange(num) % 3
    return x


def test_each_kind_of_part_has_its_networks():
    """An image has the image network, tokens and categories have learned vectors, and no encoder sees another part."""
    from vaezoo.nets import ConvDecoder, ConvEncoder, TokenInput

    nets = {
        "encoder": partial(ConvEncoder, channels=[4], hidden=8),
        "decoder": partial(ConvDecoder, channels=[4], hidden=8),
    }
    model, x = mixed_model(**nets).eval(), mixed_data()
    kinds = {name: type(net) for name, net in model.encoder.net.nets.items()}
    assert kinds == {"image": ConvEncoder, "caption": TokenInput, "label": TokenInput}
    assert {name: type(net) for name, net in model.decoder.net.nets.items()} == {
        "image": ConvDecoder, "caption": MLP, "label": MLP
    }  # fmt: skip
    other = x.clone()
    other[:, 36] = 5
    outputs = [model.encoder.net(examples) for examples in (x, other)]
    same = [torch.equal(a, b) for a, b in zip(outputs[0].chunk(3, 1), outputs[1].chunk(3, 1), strict=True)]
    assert same == [True, False, True]
    assert model.likelihood(torch.zeros(2, *model.decoder.net(torch.zeros(1, 2)).shape[1:])).log_prob(x[:2]).shape == (
        2,
    )


@pytest.mark.parametrize(("aggregate", "objective"), [("mopoe", "elbo"), ("product", "mvtcae")])
def test_compiled_equals_eager(aggregate, objective):
    """The pass from x to the loss is one graph, with the loss and gradients of the eager pass."""
    torch._dynamo.reset()
    x = mixed_data()
    x[0, :36] = x[1, 36:40] = x[2] = torch.nan
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="eager", fullgraph=True)):
        torch.manual_seed(0)
        model = mixed_model(aggregate, objective=objective, subsets=True)
        function = compiler(lambda x, model=model: model.objective(model(x, num_samples=4))["loss"])
        torch.manual_seed(1)
        value = function(x)
        value.backward()
        results.append([value.detach(), *(p.grad for p in model.parameters())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_contract(aggregate):
    """As for models of images: bounds are in order, bf16 is close, gradients are complete, wrong shapes are refused."""
    model, x = mixed_model(aggregate).eval(), mixed_data()
    log_w = model(x, num_samples=60).log_w.detach()
    assert (log_w.mean(0) <= log_w.logsumexp(0) - math.log(60) + 1e-5).all()
    assert torch.equal(model.encode(x), model.encode(x))
    values = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            trace = model(x, num_samples=6)
            loss = model.objective(trace)["loss"]
        assert loss.dtype == trace.log_px.dtype == trace.kl.dtype == torch.float32
        values.append(torch.stack([loss.detach(), trace.elbo.mean().detach()]))
    torch.testing.assert_close(*values, rtol=0.02, atol=0.3)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"expected a batch of shape \(\*batch, 41,\), got"):
        model.encode(x[:, :40])


def test_exported_decoder_of_a_caption():
    """The exported decoder gives log P of each token, whose sum is log p of the caption, and the other parts' means."""
    model, x = mixed_model().eval(), mixed_data()
    decoder = Decoder(model, Preprocessing({"noun": "pair", "kind": "mixed"})).eval()
    with torch.no_grad():
        inputs = decoder.example_inputs(x, torch.zeros(6))
        outputs = decoder(**inputs)
        px = model.decode(inputs["z"])
    assert {"caption_log_probs", "image_mean", "image_logits", "label_mean", "label_log_probs"} == outputs.keys()
    assert all(decoder.meaning(name) != "a parameter of the distribution" for name in outputs)
    tokens = inputs["tokens"]
    each = outputs["caption_log_probs"].gather(-1, tokens.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(each.where(tokens >= 0, 0).sum(-1), px.log_prob_parts(x)["caption"])
    assert decoder.reference(x, torch.zeros(6)).keys() == {"image_mean", "label_mean"}


def test_columns_of_a_table_with_holes():
    """The kinds of columns of a table are modalities, too; single entries of each may be missing."""
    families = {"real": FixedScaleNormal(1.0), "count": NegativeBinomial(), "kind": Categories([3, 2])}
    likelihood = Joint({"real": [3], "count": [2], "kind": [2]}, families)
    model = MultimodalVAE((7,), likelihood=likelihood, **options("mopoe", hidden=[8]))
    x = torch.tensor([[0.1, -2.0, torch.nan, 7, torch.nan, 2, torch.nan], [torch.nan] * 3 + [0, 3, torch.nan, 1]])
    model.objective(model(x, num_samples=7))["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_capabilities():
    """A mixture says what it lacks, and the pass agrees; its mean is exact."""
    for aggregate in AGGREGATES:
        model = mixed_model(aggregate).eval()
        trace = model(mixed_data(), num_samples=2)
        assert ("kl_per_dim" in model.limits) == (trace.latent.kl_per_dim is None) == (aggregate != "product")
        assert torch.equal(model.encode(mixed_data()), trace.latent.q.mean)
        assert model.sample(3).mean.shape == model.reconstruct(mixed_data(3)).shape == (3, 41)


def test_errors():
    with pytest.raises(ValueError, match=r"needs examples of several modalities, .* the likelihood is Bernoulli"):
        MultimodalVAE((1, 4, 4), likelihood=Bernoulli(), **options("product"))
    with pytest.raises(ValueError, match="aggregate=sum is not one of product, mixture, mopoe"):
        mixed_model("sum")
    with pytest.raises(ValueError, match="objective=iwae is not one of elbo, jmvae, mvtcae"):
        mixed_model(objective="iwae")
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\] for the objective mvtcae, got 3"):
        mixed_model(objective="mvtcae", alpha=3)
    with pytest.raises(ValueError, match="objective=jmvae needs aggregate=product, got mopoe"):
        mixed_model("mopoe", objective="jmvae")


def test_copies_are_equal():
    """The parts of a model can be copied and saved: nothing in them is a closure over another model."""
    model = mixed_model("mopoe").eval()
    again = copy.deepcopy(model)
    assert torch.equal(model.encode(mixed_data()), again.encode(mixed_data()))
    assert isinstance(model.encoder.net, PartEncoders)
    assert isinstance(model.decoder.net, PartDecoders)
