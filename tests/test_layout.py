"""Several named parts in one flat vector, and their joint family: identities with the parts and exact integers."""

import math
from functools import partial

import pytest
import torch
from ppca import generator
from torch.distributions import Independent

from vaezoo.conditional import Conditional
from vaezoo.families import (
    Categories,
    DimensionScaleNormal,
    FixedScaleNormal,
    IndexCategorical,
    Joint,
    LogNormal,
    NegativeBinomial,
    Normal,
    OptimalScaleNormal,
    Ordinal,
    Rescaled,
)
from vaezoo.instantiate import build
from vaezoo.layout import Layout
from vaezoo.missing import is_observed, to_float
from vaezoo.models import VAE
from vaezoo.nets import MLP, MaskedInput

FLOAT = torch.float64
NAN = math.nan


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def test_parts_are_views():
    """``split`` returns views in the given order and shape, and ``join`` is its inverse."""
    layout = Layout({"image": (2, 3, 4), "label": (), "caption": (5,)})
    assert layout.size == 30
    x = torch.randn(7, 2, 30)
    parts = layout.split(x)
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "image": (7, 2, 2, 3, 4), "label": (7, 2), "caption": (7, 2, 5),
    }  # fmt: skip
    assert torch.equal(parts["image"].flatten(-3), x[..., :24])
    assert torch.equal(parts["label"], x[..., 24])
    assert all(part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for part in parts.values())
    assert torch.equal(layout.join(parts), x)
    assert torch.equal(layout.join(dict(reversed(parts.items()))), x)
    assert layout == Layout({"image": [2, 3, 4], "label": [], "caption": [5]})
    assert layout != Layout({"label": (), "image": (2, 3, 4), "caption": (5,)})
    assert hash(layout) == hash(Layout(layout.shapes))


def test_whole_numbers_are_exact():
    """All whole numbers up to 2^24 come back from float32; larger ones are refused, and -1 is NaN."""
    layout = Layout({"real": (1,), "count": (4,)})
    counts = torch.tensor([[0, 2**24, 2**24 - 1, 9_999_999]])
    x = layout.join({"real": torch.zeros(1, 1), "count": counts})
    assert x.dtype == torch.float32
    assert torch.equal(layout.split(x)["count"].long(), counts)
    with pytest.raises(ValueError, match=r"part count has a whole number above 2\^24, 16777217"):
        layout.join({"real": torch.zeros(1, 1), "count": counts + 1})
    double = layout.join({"real": torch.zeros(1, 1, dtype=FLOAT), "count": counts + 1})
    assert torch.equal(layout.split(double)["count"].long(), counts + 1)
    assert layout.join({"real": torch.zeros(1, 1), "count": torch.full((1, 4), -1)})[0, 1:].isnan().all()


def test_other_parts_are_refused():
    layout = Layout({"a": (2,), "b": (3,)})
    with pytest.raises(ValueError, match=r"has 5 numbers, but x has the shape \(4, 6\)"):
        layout.split(torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"has the parts \['a', 'b'\], got \['a'\]"):
        layout.join({"a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"the part b needs the shape \(\*batch, 3,\), got \(2,\)"):
        layout.join({"a": torch.zeros(2), "b": torch.zeros(2)})
    for shapes in ({}, [2], None):
        with pytest.raises(ValueError, match="needs the shape of at least one part"):
            Layout(shapes)
    with pytest.raises(ValueError, match=r"the part a of a layout needs integers >= 1 as its shape, got \[0\]"):
        Layout({"a": [0]})


SHAPES = {"real": (3,), "count": (2,), "size": (1,), "categorical": (3,), "ordinal": (2,), "image": (1, 2, 2)}


def families():
    return {
        "real": Rescaled(DimensionScaleNormal((3,), 0.5), [2.0, 3.0, 0.1]),
        "count": NegativeBinomial(),
        "size": LogNormal(),
        "categorical": Categories([3, 2, 4]),
        "ordinal": Ordinal(5),
        "image": Normal(),
    }


def table(num, dtype=torch.float32):
    g = generator(1)
    parts = {
        "real": torch.randn(num, 3, generator=g), "count": torch.randint(0, 40, (num, 2), generator=g),
        "size": torch.rand(num, 1, generator=g) + 0.1,
        "categorical": (torch.rand(num, 3, generator=g) * torch.tensor([3, 2, 4])).long(),
        "ordinal": torch.randint(0, 5, (num, 2), generator=g), "image": torch.rand(num, 1, 2, 2, generator=g),
    }  # fmt: skip
    return parts, Layout(SHAPES).join(parts).to(dtype)


def test_joint_is_the_sum_of_its_parts():
    """log p, means and samples are those of each part's family by itself, each with its part of the raw output."""
    own = {name: family.double() for name, family in families().items()}
    joint = Joint(SHAPES, families()).double()
    raw_shapes = {name: own[name].raw_shape(shape) for name, shape in SHAPES.items()}
    assert joint.raw_shape((15,)) == (sum(math.prod(shape) for shape in raw_shapes.values()),)
    raw = randn(6, *joint.raw_shape((15,)))
    data, x = table(6, FLOAT)
    px, start, expected = joint(raw), 0, {}
    assert (px.batch_shape, px.event_shape) == ((6,), (15,))
    for name, shape in raw_shapes.items():
        length = math.prod(shape)
        params = own[name].split(raw[:, start : start + length].unflatten(1, shape), SHAPES[name])
        start += length
        single = Independent(own[name](*params), len(SHAPES[name]))
        value = data[name].to(FLOAT) if data[name].is_floating_point() else data[name]
        expected[name] = single.log_prob(value)
        torch.testing.assert_close(px.log_prob_parts(x)[name], expected[name], rtol=0, atol=1e-12)
        assert torch.equal(joint.layout.split(px.mean)[name], single.mean.to(FLOAT))
        assert torch.equal(joint.layout.split(joint.point_estimate(raw))[name], single.mean.to(FLOAT))
    torch.testing.assert_close(px.log_prob(x), sum(expected.values()), rtol=0, atol=1e-12)
    joint.check(x)
    torch.manual_seed(0)
    drawn = px.sample(torch.Size([4]))
    assert drawn.shape == (4, 6, 15)
    joint.check(drawn)
    more = px.expand(torch.Size([4, 6]))
    torch.testing.assert_close(more.log_prob(drawn), px.log_prob(drawn))


def test_joint_leaves_missing_entries_out():
    """log p of the observed entries, in every part; without any, it is 0 and the ELBO is -KL."""
    joint = Joint(SHAPES, families()).double()
    raw = randn(6, *joint.raw_shape((15,))).requires_grad_()
    _, x = table(6, FLOAT)
    one_missing = []
    complete = joint(raw).log_prob(x)
    for d in range(15):  # what each entry contributes
        hole = x.clone()
        hole[:, d] = NAN
        one_missing.append(complete - joint(raw).log_prob(hole))
    contributions = torch.stack(one_missing, -1)
    torch.testing.assert_close(contributions.sum(-1), complete, rtol=0, atol=1e-11)
    holes = x.masked_fill(torch.rand(6, 15, generator=generator(3)) < 0.4, NAN)
    log_p = joint(raw).log_prob(holes)
    torch.testing.assert_close(log_p, (contributions * is_observed(holes)).sum(-1), rtol=0, atol=1e-11)
    (slope,) = torch.autograd.grad(log_p.sum(), raw)
    assert slope.isfinite().all()
    joint.check(holes)
    nothing = joint(raw).log_prob(torch.full_like(x, NAN))
    assert torch.equal(nothing, torch.zeros(6, dtype=FLOAT))
    assert (torch.autograd.grad(nothing.sum(), raw)[0] == 0).all()


def test_model_of_a_mixed_table():
    """A VAE, from its own start, in one graph; the ELBO of a table in other units moves by -ln |c| per entry."""
    _, x = table(50)
    x = x.masked_fill(torch.rand(50, 15, generator=generator(3)) < 0.3, NAN)
    elbos = []
    for factor in (1.0, -40.0):
        parts = families()
        parts["real"] = Rescaled(DimensionScaleNormal((3,), 0.5), [2.0, 3.0 * factor, 0.1])
        net = partial(MLP, hidden=[8])
        torch.manual_seed(0)
        encoder = partial(MaskedInput, net=net)
        model = VAE((15,), latent_dim=2, encoder=encoder, decoder=net, likelihood=Joint(SHAPES, parts))
        model.decoder.init_from_data(x.nanmean(0), x)
        results = []
        for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
            torch.manual_seed(0)
            loss = compiler(lambda x, model=model: model.objective(model(x))["loss"])(x)
            results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        for eager, compiled in zip(*results, strict=True):
            assert eager.isfinite().all()
            torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)
        torch.manual_seed(0)
        elbos.append(model(x).elbo.detach())
    change = -math.log(40) * is_observed(x[:, 1])
    torch.testing.assert_close(elbos[1] - elbos[0], change, rtol=0, atol=2e-5)


def test_joint_starts_at_the_data():
    """A decoder with output 0 has each part's start."""
    _, x = table(50, FLOAT)
    joint = Joint(SHAPES, families()).double()
    decoder = Conditional((2,), (15,), partial(MLP, hidden=[]), joint).double()
    decoder.init_from_data(x.mean(0), x)
    torch.nn.init.zeros_(decoder.net.layers[0].weight)
    px = decoder(torch.zeros(1, 2, dtype=FLOAT))
    parts = joint.layout.split(px.mean)
    data = joint.layout.split(x)
    for name in ("real", "count", "image"):
        torch.testing.assert_close(parts[name][0], data[name].mean(0), rtol=1e-6, atol=1e-9)
    for i, size in enumerate([3, 2, 4]):
        expected = (torch.bincount(data["categorical"][:, i].long(), minlength=size).double() + 1 / size) / 51
        value = x[:1].clone()
        for k in range(size):
            value[0, 6 + i] = k
            hole = value.clone()
            hole[0, 6 + i] = NAN
            probability = (px.log_prob(value) - px.log_prob(hole)).exp()
            assert probability.item() == pytest.approx(expected[k].item(), rel=1e-9)
    decoder.init_mean(x.mean(0))
    torch.testing.assert_close(joint.layout.split(decoder(torch.zeros(1, 2, dtype=FLOAT)).mean)["real"], parts["real"])


def test_joint_from_a_config():
    """The config form; the order of the parts is the order of the layout."""
    node = {
        "_target_": "vaezoo.families.Joint",
        "layout": {"real": [3], "count": [2]},
        "families": {
            "real": {"_target_": "vaezoo.families.FixedScaleNormal", "scale": 0.5},
            "count": {"_target_": "vaezoo.families.Poisson"},
        },
    }
    family = build(node, "model.likelihood")
    assert family.raw_shape((5,)) == (5,)
    assert family.integers == {"count"}
    with pytest.raises(ValueError, match=r"model.likelihood: the layout has the parts .*, but families are \['real'\]"):
        build(node | {"families": {"real": node["families"]["real"]}}, "model.likelihood")


def test_wrong_tables_are_refused():
    parts = {"real": FixedScaleNormal(), "word": IndexCategorical(4)}
    joint = Joint({"real": [2], "word": [1]}, parts)
    joint.check(torch.tensor([[0.5, NAN, 3.0], [0.5, 1.0, NAN]]))
    with pytest.raises(ValueError, match=r"the part word takes whole numbers, got others in \[2.5, 2.5\]"):
        joint.check(torch.tensor([[0.5, 0.5, 2.5]]))
    with pytest.raises(ValueError, match=r"IndexCategorical takes the categories 0 ... 3, got 4"):
        joint.check(torch.tensor([[0.5, 0.5, 4.0]]))
    with pytest.raises(ValueError, match=r"has 3 numbers, but x has the shape \(4,\): use one layout"):
        Conditional((2,), (4,), MLP, joint)
    with pytest.raises(ValueError, match="use SharedScaleNormal"):
        Joint({"real": [2]}, {"real": OptimalScaleNormal()})
    assert to_float(torch.tensor([4]), torch.float32).tolist() == [4.0]
