"""Probes: scikit-learn's own answers, constant and perfect codes, what is refused."""

import math

import numpy as np
import pytest
import torch
from ppca import generator
from scipy.special import ndtr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from vaezoo.metrics.probes import QUANTITIES, Probes


def blobs(num=600, classes=4, dims=3, apart=2.0, seed=0):
    """Normal clusters, one for each class; every third example is scored."""
    g = generator(seed)
    centres = apart * torch.randn(classes, dims, dtype=torch.float64, generator=g)
    y = torch.randint(0, classes, (num,), generator=g)
    code = centres[y] + torch.randn(num, dims, dtype=torch.float64, generator=g)
    return {"code": code, "y": y, "split": (torch.arange(num) % 3 == 0).long()}


def measure(values, batch=1000, **settings):
    metric = Probes(**settings)
    for start in range(0, len(values["y"]), batch):
        metric.update(**{name: value[start : start + batch] for name, value in values.items()})
    return metric.compute()


def test_scikit_learn_directly():
    values = blobs(seed=1)
    code, y, split = (value.numpy() for value in values.values())
    fit, score = split == 0, split == 1
    found = measure(values)
    mean, deviation = code[fit].mean(0), code[fit].std(0)
    linear = LogisticRegression(max_iter=1000).fit((code[fit] - mean) / deviation, y[fit])
    assert found["linear_probe"] == linear.score((code[score] - mean) / deviation, y[score])
    assert found["knn"] == KNeighborsClassifier(5).fit(code[fit], y[fit]).score(code[score], y[score])
    assert found["chance"] == (y[score] == np.bincount(y[fit]).argmax()).mean()
    clusters = KMeans(4, n_init=10, random_state=0).fit_predict(code[score])
    assert found["nmi"] == normalized_mutual_info_score(y[score], clusters)
    assert found["ari"] == adjusted_rand_score(y[score], clusters)
    assert 0.5 < found["ari"] < 1  # neither trivial
    assert found["knn"] != found["linear_probe"]
    for name in ("linear_probe", "knn", "chance"):
        assert found[f"{name}_error"] == math.sqrt(found[name] * (1 - found[name]) / 200)
    assert {name for name in found if not name.endswith("_error")} == set(QUANTITIES)


def test_two_normals():
    """Means 2 apart, variance 1: the best accuracy is Phi(1), and the linear probe has it."""
    y = torch.randint(0, 2, (6000,), generator=generator(3))
    code = 2.0 * y[:, None] + torch.randn(6000, 1, generator=generator(4))
    found = measure({"code": code, "y": y, "split": torch.arange(6000) // 3000})
    assert found["linear_probe"] == pytest.approx(ndtr(1), abs=3 * found["linear_probe_error"])
    assert found["chance"] == pytest.approx(0.5, abs=4 * found["chance_error"])


def test_perfect_codes():
    y = torch.arange(5).repeat(40)
    found = measure({"code": torch.eye(5)[y], "y": y + 7, "split": torch.arange(200) // 100})
    assert (found["linear_probe"], found["knn"], found["nmi"], found["ari"]) == (1, 1, 1, 1)
    assert found["linear_probe_error"] == 0
    assert found["chance"] == 0.2


@pytest.mark.filterwarnings("ignore:.*distinct clusters.*")
def test_constant_codes():
    """Codes without information: the linear probe is at chance, and the clusters say nothing."""
    values = blobs()
    found = measure(values | {"code": torch.ones(600, 3)})
    assert found["linear_probe"] == found["chance"]
    assert (found["nmi"], found["ari"]) == (0, 0)
    shuffled = measure(values | {"code": values["code"][torch.randperm(600, generator=generator(1))]})
    assert abs(shuffled["linear_probe"] - shuffled["chance"]) < 0.15
    assert abs(shuffled["ari"]) < 0.05


def test_unused_dimensions():
    """Tiny noise in unused dimensions changes neither neighbors nor clusters, since codes are not standardized."""
    values = blobs()
    found = measure(values)
    noise = 1e-6 * torch.randn(600, 30, generator=generator(2))
    wider = measure(values | {"code": torch.cat([values["code"], noise], 1)})
    assert [wider[name] for name in ("knn", "nmi", "ari")] == [found[name] for name in ("knn", "nmi", "ari")]


def test_scale_of_a_dimension_does_not_move_the_linear_probe():
    values = blobs()
    scaled = values | {"code": values["code"] * torch.tensor([1e-4, 1.0, 1e4]) + 5}
    assert measure(scaled)["linear_probe"] == measure(values)["linear_probe"]


def test_batch_size_and_shape_change_nothing():
    values = blobs()
    found = measure(values)
    assert measure(values, batch=7) == found
    assert measure(values | {"code": values["code"].reshape(600, 1, 3, 1)}) == found
    assert measure(values) == found


def test_seed_is_that_of_the_clusters():
    values = blobs(300, 12, 2, 0.5)
    first, second = measure(values), measure(values, seed=1)
    assert first["ari"] != second["ari"]
    assert first["linear_probe"] == second["linear_probe"]


def test_fewer_examples_than_neighbors():
    """All examples vote."""
    values = {"code": torch.tensor([[0.0], [0.1], [9.0], [0.0], [9.0]]), "y": torch.tensor([1, 1, 2, 1, 2])}
    found = measure(values | {"split": torch.tensor([0, 0, 0, 1, 1])})
    assert found["knn"] == found["chance"] == 0.5
    assert found["linear_probe"] == 1


def test_class_missing_in_the_fit_split():
    """Its examples are scored as wrong."""
    y = torch.tensor([0, 1]).repeat(20)
    y[30:] = 2
    found = measure({"code": torch.eye(3)[y], "y": y, "split": (torch.arange(40) >= 20).long()})
    assert found["linear_probe"] == found["knn"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.full((600,), 3)}, "got 1 classes among 400 examples to fit .* 200 examples to score"),
        ({"split": torch.zeros(600)}, "0 examples to score"),
        ({"split": torch.ones(600)}, "got 0 classes among 0 examples to fit"),
        ({"y": torch.zeros(600, 5, dtype=torch.long)}, r"y must be \(N,\) integers.*\(600, 5\)"),
        ({"y": torch.rand(600)}, "y must be .* got torch.float32"),
        ({"code": torch.ones(600, 3).index_fill(0, torch.tensor([4, 9]), math.nan)}, "2 of 600 codes are NaN"),
    ],
)
def test_wrong_codes_and_labels_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        measure(blobs() | changes)


def test_digits():
    """On raw digits, logistic regression finds about 96 % and neighbours about 98 %."""
    from vaezoo.data import Digits

    data = Digits(binarize="none", val_size=100)
    data.setup("fit")
    parts = (data.train, data.test)
    values = {
        "code": torch.cat([part.x for part in parts]) / 255,
        "y": torch.cat([part.y for part in parts]),
        "split": torch.cat([torch.full((len(part.y),), i) for i, part in enumerate(parts)]),
    }
    found = measure(values)
    assert 0.94 < found["linear_probe"] < 0.99
    assert 0.97 < found["knn"] <= 1
    assert 0.05 < found["chance"] < 0.12
    assert 0.6 < found["nmi"] < 0.85


def test_no_examples():
    with pytest.raises(ValueError, match="Probes has seen no examples: call update first"):
        Probes().buffered()


def test_one_scored_example_has_no_error():
    code = torch.cat([torch.zeros(6, 1), torch.ones(6, 1), torch.zeros(1, 1)])
    y, split = torch.tensor([0] * 6 + [1] * 6 + [0]), torch.tensor([0] * 12 + [1])
    metric = Probes()
    metric.update(code=code, y=y, split=split)
    values = metric.compute()
    assert values["knn"] == 1
    assert not any(name.endswith("_error") for name in values)
