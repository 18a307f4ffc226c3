"""Divisions of data into sets by content, checks of values, and the mean of data with missing entries."""

import math

import numpy as np
import pytest
import torch

from vaezoo.data import DataModule, LazyExamples, OwnData, Split
from vaezoo.data.splits import check_values, content_split, digest_rows
from vaezoo.errors import ConfigError


def digests(num, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, num, dtype=np.uint64)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (0.05, 0.3), (0.5, 0.25)])
def test_shares_are_those_asked_for(val, test):
    """Each example goes to a set with the given probability: counts within 4 standard deviations."""
    num = 20_000
    train_set, val_set, test_set = content_split(digests(num), val, test)
    for found, share in ((val_set, val), (test_set, test), (train_set, 1 - val - test)):
        assert abs(len(found) - share * num) < 4 * math.sqrt(share * (1 - share) * num)
    assert torch.equal(torch.cat([train_set, val_set, test_set]).sort().values, torch.arange(num))


def test_an_example_stays_in_its_set():
    """In any order, among any others and with duplicates; another split_seed gives another division."""
    old = digests(500)
    member = {int(old[i]): name for name, part in enumerate(content_split(old, 0.2, 0.2)) for i in part.tolist()}
    new = np.concatenate([digests(800, seed=1), old[::-1], old[:50]])
    for name, part in enumerate(content_split(new, 0.2, 0.2)):
        assert all(member.get(int(new[i]), name) == name for i in part.tolist())
    sets = [set(new[part].tolist()) for part in content_split(new, 0.2, 0.2)]
    assert sum(map(len, sets)) == len(set.union(*sets))
    other = content_split(old, 0.2, 0.2, split_seed=1)
    same = sum(member[int(old[i])] == 2 for i in other[2].tolist()) / len(other[2])
    assert abs(same - 0.2) < 0.2  # as by chance


@pytest.mark.parametrize("num", [3, 4, 7])
def test_no_set_is_empty(num):
    for seed in range(20):
        assert all(len(part) > 0 for part in content_split(digests(num, seed), 0.05, 0.05))


def test_too_few_examples_and_wrong_shares_are_refused():
    with pytest.raises(ConfigError, match="there are 4 examples and 2 different ones: give at least 3"):
        content_split(np.array([5, 5, 9, 9], dtype=np.uint64), 0.1, 0.1)
    for val, test in ((0, 0.1), (0.1, 0), (0.5, 0.5), (100, 0.1)):
        with pytest.raises(ConfigError, match=r"are shares of all examples here: .* data.val_size=0.1"):
            content_split(digests(10), val, test)


def test_rows_are_equal_if_and_only_if_their_digests_are():
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [1.0, np.nan], [1.0, np.nan]], dtype=np.float32)
    found = digest_rows(rows)
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4] not in found[:3]
    assert found.dtype == np.uint64


class Numbers(DataModule):
    """Rows of a stated kind."""

    noun, data_kind = "row", "real"

    def __init__(self, x, **kwargs):
        super().__init__(batch_size=2, **{"val_size": 2, **kwargs})
        self.x = x

    def read(self):
        split = Split(self.x, torch.arange(len(self.x)))
        return split, split


def test_mean_of_the_observed_entries():
    """Sums over observed entries divided by their number; 0 if an entry is never observed."""
    x = torch.randn(2500, 4, generator=torch.Generator().manual_seed(0)) + 5
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4] = math.nan
    x[:, 3] = math.nan
    data = Numbers(x)
    data.setup()
    assert data.has_missing
    expected = data.train.x.double().nanmean(0)
    torch.testing.assert_close(data.mean[:3], expected[:3].float())
    assert data.mean[3] == 0
    whole = Numbers((10 * x.nan_to_num(-0.1)).round().long())
    whole.data_kind = "count"
    whole.setup()
    counts = whole.train.x.double()
    torch.testing.assert_close(whole.mean[:3], counts.where(counts >= 0, math.nan).nanmean(0)[:3].float())


def test_validation_is_a_number_or_a_share():
    x = torch.randn(40, 3)
    for val_size, num in ((7, 7), (0.25, 10), (0.01, 1)):
        data = Numbers(x, val_size=val_size)
        data.setup()
        assert (len(data.val.x), len(data.train.x)) == (num, 40 - num)
    with pytest.raises(ValueError, match="leaves nothing of 40 training rows"):
        Numbers(x, val_size=40).setup()


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("real", [1.0, math.inf, math.nan], r"the rows hold inf in row 1, but real data are finite"),
        ("unit", [0.5, 1.0, 1.5], r"hold 1.5 in row 2, but unit data are in \[0, 1\]"),
        ("binary", [0.0, 1.0, 0.5], "hold 0.5 in row 2, but binary data are 0 or 1"),
        ("count", [0, 3, -2], "hold -2 in row 2, but count data are whole numbers"),
        ("count", [0.0, 1.0, 2.0], "are torch.float32, but count data are integers"),
        ("real", [0, 1, 2], "are torch.int64, but real data are floats"),
    ],
)
def test_values_of_another_kind_are_refused(kind, values, words):
    with pytest.raises(ValueError, match=words):
        check_values(torch.tensor(values).reshape(-1, 1), kind, "the rows")


def test_missing_values_are_found():
    assert check_values(torch.tensor([[0.0], [math.nan]]), "binary", "rows")
    assert check_values(torch.tensor([[3], [-1]]), "count", "rows")
    assert not check_values(torch.tensor([[3], [1]]), "token", "rows")


def test_own_data_is_read_once_and_divided_by_content():
    class Own(OwnData):
        noun, data_kind = "row", "real"
        num_read = 0

        def read_all(self):
            self.num_read += 1
            x = torch.arange(60.0).reshape(-1, 1)
            make = x.index_select
            return Split(LazyExamples(lambda index: make(0, index), torch.arange(60)), torch.arange(60)), digest_rows(
                x.numpy()
            )

    data = Own(batch_size=8)
    data.inspect()
    assert data.shape == (1,)
    data.setup()
    data.setup("fit")
    assert data.num_read == 1
    parts = [torch.cat([batch.y for batch in data.batches(split, 7)]) for split in (data.train, data.val, data.test)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(60))
    assert torch.equal(torch.cat([batch.x[:, 0] for batch in data.batches(data.test, 4)]), parts[2].float())
