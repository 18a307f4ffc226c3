"""Disentanglement: matrices and grids whose scores are known, chance and ceilings, and what must change nothing."""

from itertools import product
from math import log, sqrt
from statistics import NormalDist, stdev

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier

from vaezoo.metrics import disentanglement as m
from vaezoo.metrics.disentanglement import Disentanglement
from vaezoo.metrics.disentanglement.interventions import sample_same_label

SPRITES = (3, 6, 40, 32, 32)  # the factors of dSprites
TWICE = np.vstack([np.eye(5), np.eye(5)])  # every factor in two of ten dimensions
FAST = {"num_votes": 200, "num_trees": 5, "num_resamples": 2}


def grid(*sizes):
    """Every combination once, (N, F)."""
    return np.array(list(product(*map(range, sizes))))


def drawn(sizes, num, seed=0):
    """Independent uniform factors (N, F) and perfect codes of them, standardized."""
    v = np.random.default_rng(seed).integers(0, sizes, size=(num, len(sizes)))
    return v, (v - v.mean(0)) / v.std(0)


def noise(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def score(codes, factors, batch_size=None, **options):
    metric = Disentanglement(**{**FAST, **options})
    for at in range(0, len(codes), batch_size or len(codes)):
        part = slice(at, at + (batch_size or len(codes)))
        metric.update(code=torch.as_tensor(codes[part]), factors=torch.as_tensor(factors[part]))
    return metric.compute()


@pytest.fixture(scope="module")
def small():
    """Factors, and codes in between: partly mixed, some noise, one dimension of noise alone."""
    v, z = drawn((3, 4, 5), 900)
    z = np.hstack([z, noise(900, 1)])
    z[:, 1] += 0.3 * z[:, 0]
    return v, z + 0.1 * noise(900, 4, seed=2)


# Matrices: importances and informations whose scores are known.


@pytest.mark.parametrize(
    ("importance", "disentanglement", "completeness"),
    [
        (np.eye(5), 1, 1),
        (np.vstack([np.eye(2), np.zeros((1, 2))]), 1, 1),  # a dimension without use
        (np.zeros((3, 4)), 0, 0),
        (np.ones((3, 4)), 0, 0),
        (TWICE, 1, 1 - log(2) / log(10)),
        (TWICE.T, 1 - log(2) / log(10), 1),  # one dimension, two factors
        (np.eye(5)[:2], 1, 1),  # factors missed
        # D_0 = 1, D_1 = 1 - H(1/4) = 0.1887 in bits, weights 1/3 and 2/3; C_0 = 1 - H(1/3) = 0.0817, C_1 = 1.
        ([[1, 0], [0.5, 1.5]], (1 + 2 * 0.18872) / 3, (1 + 0.08170) / 2),
    ],
)
def test_dci_of_matrices(importance, disentanglement, completeness):
    assert m.dci(np.array(importance, dtype=float)) == pytest.approx((disentanglement, completeness), abs=1e-5)


@pytest.mark.parametrize(
    ("information", "value"),
    [
        (np.eye(5), 1),
        (np.vstack([np.eye(2), np.zeros((1, 2))]), 2 / 3),
        (np.zeros((4, 4)), 0),
        (TWICE, 1),
        (TWICE.T, 1 - 1 / 9),
        ([[2, 1, 0]], 1 - 1 / 8),
    ],
)
def test_modularity_of_matrices(information, value):
    assert m.modularity(np.array(information, dtype=float)) == pytest.approx(value)


def test_mutual_information_gap_of_a_matrix():
    v = grid(2, 2)
    information = np.array([[log(2), 0.1], [0.2, 0.5], [0.1, 0.3]])
    assert m.mig(information, v) == pytest.approx(((log(2) - 0.2) + (0.5 - 0.3)) / log(2) / 2)


# Grids: every combination once, so that what is independent has no information at all.


@pytest.mark.parametrize(("values", "ceiling"), [(3, 1), (6, 1), (20, 1), (40, log(20) / log(40)), (32, 0.85)])
def test_mig_of_perfect_codes_is_the_bins_entropy(values, ceiling):
    """20 equal bins: 40 values share bins by two; of 32 values, twelve bins hold two."""
    v = grid(values, 2)
    information = m.mutual_information(v.astype(float), v)
    assert information == pytest.approx(np.diag([ceiling * log(values), log(2)]), abs=1e-12)
    assert m.mig(information, v) == pytest.approx((ceiling + 1) / 2)


def test_mig_of_perfect_codes_on_sprites():
    v, z = drawn(SPRITES, 10_000)
    assert m.mig(m.mutual_information(z, v), v) == pytest.approx(0.8955, abs=0.002)
    exact = np.mean([m.mig(m.mutual_information(x.astype(float), x), x) for x in (grid(n, n) for n in SPRITES)])
    assert exact == pytest.approx(0.9021, abs=1e-3)


def test_mig_of_duplicates_is_zero():
    v = grid(3, 4)
    information = m.mutual_information(np.hstack([v, -2.0 * v + 1]), v)
    assert m.mig(information, v) == pytest.approx(0, abs=1e-12)
    assert m.modularity(information) == pytest.approx(1)


def test_constant_dimension_has_no_information():
    assert m.mutual_information(np.full((12, 1), 0.3), grid(3, 4)) == pytest.approx(np.zeros((1, 2)), abs=1e-12)


def test_irs_by_hand():
    """A code a has shifts 0 at fixed a; a + b in {-2 ... 2} still moves by 1 of 2; weights 1 and 2."""
    v = grid(3, 3)
    a, b = (v - 1.0).T
    assert m.irs(np.stack([a, b], 1), v) == pytest.approx(1)
    assert m.irs(np.stack([a, a + b], 1), v) == pytest.approx(2 / 3)
    assert m.irs(np.stack([a, a + b, 0 * a], 1), v) == pytest.approx(2 / 3)
    assert m.irs(np.stack([a * 0, b * 0], 1), v) == 0


def test_irs_takes_the_99_percent_quantile():
    v = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 250, axis=0)
    z = np.tile(np.linspace(-1, 1, 250), 4)[:, None]
    assert m.irs(z, v) == pytest.approx(1 - np.quantile(np.abs(np.linspace(-1, 1, 250)), 0.99))


# Draws and classifiers.


def test_sample_same_label_is_uniform():
    labels = np.array([2, 0, 1, 0, 2, 0])
    rows = np.tile(np.arange(6), (3000, 1))
    mates = sample_same_label(rows, labels, np.random.default_rng(0))
    assert (labels[mates] == labels[rows]).all()
    share = np.bincount(mates[:, 1], minlength=6) / 3000
    assert share[[1, 3, 5]] == pytest.approx(np.full(3, 1 / 3), abs=0.03)


@pytest.mark.parametrize("name", ["beta_vae", "factor_vae"])
def test_drawn_scores_of_perfect_codes_and_of_noise(name):
    function, g = getattr(m, name), np.random.default_rng(0)
    v, z = drawn(SPRITES, 5000)
    assert function(z, v, g, num_votes=400) == 1
    assert function(noise(5000, 6), v, g, num_votes=1000) == pytest.approx(1 / 5, abs=0.05)
    assert function(np.zeros((5000, 6)), v, g, num_votes=400) == {"beta_vae": 0.2, "factor_vae": 0}[name]


def test_factor_vae_by_hand():
    """A dimension is v_0, one like it but noise: votes (1, 0) at fixed v_0, (1/2, 1/2) at v_1, so 3/4 are right.

    What copies v_1 changes that, unless its standard deviation is below 0.05.
    """
    v, z = drawn((8, 8, 8), 6000)
    copy = z[:, [1]]
    for third, value in (0 * copy, 0.75), (0.04 * copy, 0.75), (0.06 * copy, 1):
        codes = np.hstack([third, z[:, [0, 2]]])
        assert m.factor_vae(codes, v[:, :2], np.random.default_rng(0)) == pytest.approx(value, abs=0.03)


def test_beta_vae_needs_one_dimension_for_two_factors():
    """No difference in it is v_0, some is v_1: as its paper's critics say, a factor without a code is told too."""
    v, z = drawn((8, 8), 3000)
    assert m.beta_vae(np.hstack([z[:, :1], noise(3000, 1)]), v, np.random.default_rng(0), num_votes=400) == 1


def test_sap_of_perfect_codes():
    """Two values: 1 - 1/2. The factors of dSprites: 0.22 to 0.26, as a line cannot isolate middle values."""
    v, z = drawn((2, 2), 6000)
    assert m.sap(z[:4000], v[:4000], z[4000:], v[4000:]) == pytest.approx(0.5, abs=0.03)
    v, z = drawn(SPRITES, 15_000)
    assert 0.22 < m.sap(z[:10_000], v[:10_000], z[10_000:], v[10_000:]) < 0.26


def test_explicitness_of_two_normals_is_closed_form():
    """AUROC of N(0, 1) against N(d, 1) is Phi(d / sqrt 2), whatever the codes' scale; a constant does no harm."""
    v, _ = drawn((2, 2), 20_000)
    z = np.hstack([noise(20_000, 2) + v * [1, 2], np.ones((20_000, 1))]) * [100, 0.01, 1]
    exact = np.mean([NormalDist().cdf(d / sqrt(2)) for d in (1, 2)])
    assert m.explicitness(z[:14_000], v[:14_000], z[14_000:], v[14_000:]) == pytest.approx(exact, abs=0.01)


def test_explicitness_without_some_values_in_the_test_part():
    v, z = drawn((4, 3), 600)
    test = v[:, 0] < 2
    assert m.explicitness(z, v, z[test], v[test]) > 0.75


def test_scale_of_dimensions_does_not_matter(small):
    """Where they are standardized; in the others a fixed penalty sees it."""
    v, z = small
    scaled = z * [0.001, 1, 30, 1]
    a, b = (m.explicitness(x[:600], v[:600], x[600:], v[600:]) for x in (z, scaled))
    assert b == pytest.approx(a, abs=1e-3)
    a, b = (m.factor_vae(x, v, np.random.default_rng(0), num_votes=400) for x in (z, 100 * scaled))
    assert b == a


def test_forests_agree_with_boosted_trees(small):
    v, z = small
    importance, accuracy = m.forest_importance(z[:600], v[:600], z[600:], v[600:])
    assert importance.sum(0) == pytest.approx(np.ones(3))
    boosted = [GradientBoostingClassifier(n_estimators=50, random_state=0).fit(z[:600], x) for x in v[:600].T]
    assert m.dci(importance) == pytest.approx(m.dci(np.stack([b.feature_importances_ for b in boosted], 1)), abs=0.06)
    expected = np.mean([b.score(z[600:], x) for b, x in zip(boosted, v[600:].T, strict=True)])
    assert accuracy == pytest.approx(expected, abs=0.04)


def test_forests_without_anything_to_learn():
    """Nothing is important, and the accuracy is that of the most frequent value."""
    v, _ = drawn((2, 5), 3000)
    importance, accuracy = m.forest_importance(np.zeros((2000, 3)), v[:2000], np.zeros((1000, 3)), v[2000:])
    assert m.dci(importance) == (0, 0)
    assert accuracy == pytest.approx((1 / 2 + 1 / 5) / 2, abs=0.03)


# The metric.


def test_perfect_codes_reach_the_ceiling():
    v, z = drawn((3, 4, 30), 3000)
    result = score(z, v)
    for name in m.QUANTITIES:
        assert result[name] == pytest.approx(result[f"{name}_ceiling"], abs=1e-3)
    below = {name: result[f"{name}_ceiling"] for name in m.QUANTITIES if result[f"{name}_ceiling"] < 0.999}
    assert set(below) == {"mig", "sap", "explicitness"}
    assert 0.9 < below["mig"] < 0.97  # (1 + 1 + 0.88) / 3, less what chance shares
    assert below["sap"] < 0.5


def test_names(small):
    v, z = small
    result = score(z, v)
    names = set(m.QUANTITIES)
    errors = {"beta_vae", "factor_vae", "mig", "modularity", "irs"}
    assert set(result) == names | {f"{n}_ceiling" for n in names} | {f"{n}_error" for n in errors}
    assert all(type(value) is float for value in result.values())


def test_noise_and_constants():
    v, _ = drawn((3, 4, 5), 3000)
    result = score(noise(3000, 6), v)
    for name, chance in {"beta_vae": 1 / 3, "factor_vae": 1 / 3, "mig": 0, "sap": 0, "explicitness": 0.5}.items():
        assert result[name] == pytest.approx(chance, abs=0.06), name
    assert max(result["dci_disentanglement"], result["dci_completeness"]) < 0.02
    result = score(np.zeros((3000, 6)), v)
    zero = {"factor_vae", "mig", "sap", "dci_disentanglement", "dci_completeness", "modularity", "irs"}
    assert {name for name in m.QUANTITIES if abs(result[name]) < 1e-9} == zero
    assert result["explicitness"] == 0.5


def test_the_same_digits_whatever_the_batches(small):
    v, z = small
    once = score(z, v)
    assert score(z, v, batch_size=7) == once
    assert score(z, v, seed=1) != once


def test_precision_and_shape_of_what_comes(small):
    """float32 codes of any shape, factors of any integer type."""
    v, z = small
    z = z.astype(np.float32)
    flat = score(z.astype(np.float64), v)
    assert score(z.reshape(-1, 2, 2), v.astype(np.uint8)) == flat


def test_order_sign_and_place_of_dimensions_change_nothing(small):
    v, z = small
    a, b = score(z, v), score(-z[:, [2, 0, 3, 1]], v)
    for name in m.QUANTITIES:
        assert b[name] == pytest.approx(a[name], abs=0.02), name
    for name in "factor_vae", "irs":
        assert b[name] == pytest.approx(a[name], abs=1e-12), name
    permuted = score(z[:, [2, 0, 3, 1]], v)
    for name in "mig", "modularity":  # a sign moves the ends of bins, which hold one side only
        assert permuted[name] == pytest.approx(a[name], abs=1e-12), name


def test_names_of_values_change_nothing(small):
    v, z = small
    other = np.stack([np.random.default_rng(f).permutation(v[:, f].max() + 1)[v[:, f]] for f in range(3)], 1)
    a, b = score(z, v, num_votes=2000), score(z, other, num_votes=2000)
    for name in m.QUANTITIES:
        drawn_anew = name in ("beta_vae", "factor_vae")
        assert b[name] == pytest.approx(a[name], abs=0.03 if drawn_anew else 1e-3), name


def test_factors_that_do_not_vary_are_left_out(small):
    v, z = small
    assert score(z, np.insert(v, 1, 7, axis=1)) == score(z, 10 * v - 3)


def test_no_more_examples_than_asked(small):
    v, z = small
    result = score(z, v, num_examples=600)
    assert result != score(z, v)
    assert result["mig"] == pytest.approx(score(z, v)["mig"], abs=0.1)


def test_error_is_the_spread_over_fresh_samples():
    def sample(seed):
        v, z = drawn((3, 4), 400, seed)
        return z + 0.7 * noise(400, 2, seed=100 + seed), v

    spread = stdev(m.mig(m.mutual_information(*sample(seed)), sample(seed)[1]) for seed in range(30))
    assert 0.5 < score(*sample(0), num_resamples=30)["mig_error"] / spread < 2


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.zeros((60, 2)), grid(3, 1).repeat(20, 0), "needs at least 2 factors that vary, but 1 of 2 factors"),
        (np.zeros((60, 2)), np.zeros((60, 3), int), "but 0 of 3 factors"),
        (np.full((60, 2), np.nan), grid(2, 3).repeat(10, 0), "finite: 60 of 60"),
        (np.zeros((60, 1)), grid(2, 3).repeat(10, 0), "have only one"),
        (np.zeros((24, 2)), grid(2, 3).repeat(4, 0), "one value has 8: 24 examples are too few"),
        (np.zeros((60, 2)), np.zeros(60, int), r"got shape \(60,\)"),
    ],
)
def test_wrong_codes_and_factors_are_refused(codes, factors, message):
    with pytest.raises(ValueError, match=message):
        score(codes, factors)


@pytest.mark.parametrize(("option", "least"), [("num_votes", 2), ("bins", 2), ("num_resamples", 2), ("num_trees", 1)])
def test_options_out_of_range(option, least):
    with pytest.raises(ValueError, match=f"{option} must be >= {least}, got {least - 1}"):
        Disentanglement(**{option: least - 1})


# UDR.


def udr(*codes, kl=None, **options):
    codes = [torch.as_tensor(z) for z in codes]
    return m.udr(codes, [torch.ones(z.shape[1]) for z in codes] if kl is None else kl, **options)


@pytest.mark.parametrize(("relation", "agreement"), [(m.lasso, 0.9), (m.spearman, 1.0)])
def test_udr_of_the_same_dimensions(relation, agreement):
    """Uncorrelated dimensions, in any order, sign and scale: the lasso takes 0.1 of a correlation of 1."""
    z = grid(4, 5, 3).astype(float)
    assert udr(z, 3 - 2 * z[:, [2, 0, 1]], relation=relation) == pytest.approx([agreement] * 2)


def test_udr_of_a_rotation():
    """By an eighth of a turn, all coefficients are 1/sqrt 2, less 0.1 each; max^2 / sum is half of that."""
    z = noise(500, 2)
    z = np.linalg.qr(z - z.mean(0))[0]
    turned = z @ np.array([[1, 1], [-1, 1]]) / sqrt(2)
    assert udr(z, turned) == pytest.approx([(1 / sqrt(2) - 0.1) / 2] * 2)


def test_udr_spearman_is_blind_to_monotone_maps():
    z = noise(300, 3)
    assert udr(z, np.exp(z), relation=m.spearman) == pytest.approx(udr(z, z, relation=m.spearman))


def test_udr_is_the_median_over_other_models():
    z = grid(4, 5, 3).astype(float)
    values = udr(z, z, z, noise(60, 3))
    assert values[:3] == pytest.approx([0.9] * 3)
    assert values[3] < 0.3


def test_udr_leaves_out_dimensions_without_information():
    z = grid(4, 5).astype(float)
    wide = np.hstack([z, noise(20, 1)])
    kl = [torch.ones(2), torch.tensor([1, 1, 0.009])]
    assert udr(z, wide, kl=kl) == pytest.approx([0.9, 0.9])
    assert udr(z, wide, kl=[torch.ones(2), torch.zeros(3)]) == [0, 0]
    # With it: two rows of 0.9 and one that the lasso takes to less, two columns of 0.9.
    assert udr(z, wide)[0] < 0.85


def test_udr_counts_an_unrelated_dimension_as_zero():
    z = grid(4, 5, 3).astype(float)
    assert udr(z[:, :2], z) == pytest.approx([(0.9 * 2 / 3 + 0.9) / 2] * 2)


@pytest.mark.parametrize(
    ("codes", "kl", "message"),
    [
        ([torch.zeros(9, 2)], None, "at least 2 models"),
        ([torch.zeros(9, 2), torch.zeros(8, 2)], None, r"\(9, 2\), \(8, 2\)"),
        ([torch.zeros(9, 2)] * 2, [torch.ones(2), torch.ones(3)], "at least 2 models"),
        ([torch.zeros(9, 2), torch.full((9, 2), torch.inf)], None, "finite"),
    ],
)
def test_udr_refusals(codes, kl, message):
    with pytest.raises(ValueError, match=message):
        udr(*codes, kl=kl)
