"""Rules that a wrong limit, order or key would change without an error, each compared with its exact value."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from vaezoo import seeding
from vaezoo.callbacks.monitor import Monitor
from vaezoo.data import Digits, ImageData, Split
from vaezoo.families import Bernoulli, DiscretizedLogistic, FixedScaleNormal, PlanarPosterior
from vaezoo.inference import ex_post_density as samplers
from vaezoo.loggers import CSV
from vaezoo.models import VAE
from vaezoo.priors import FlowPrior
from vaezoo.types import Batch

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
         "enable_checkpointing": False, "num_sanity_val_steps": 0}  # fmt: skip


def loader(*batches):
    """Return a loader of these batches."""
    return torch.utils.data.DataLoader([Batch(x, torch.zeros(len(x))) for x in batches], batch_size=None)


@pytest.mark.parametrize("x", [[0.0, 0.5], [1.0, 0.5], [0.0, 1.0, 2.0], [0.0, -1.0]])
def test_one_pixel_that_is_no_bit_is_enough(x):
    with pytest.raises(ValueError, match="Bernoulli takes only the values 0 and 1"):
        Bernoulli().check(torch.tensor(x))
    with pytest.raises(ValueError, match="DiscretizedLogistic"):
        DiscretizedLogistic().check(torch.tensor([0.0, 1.5]))


@pytest.mark.parametrize("family", [PlanarPosterior, FlowPrior])
def test_the_density_of_a_sample_is_kept_for_that_sample_alone(family):
    """For any other point, the density is that of a distribution that was not sampled."""
    torch.manual_seed(0)
    made = family((3,), num_flows=2)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    given = torch.randn(made.num_outputs, 4, 3).double() if isinstance(made, PlanarPosterior) else ()
    made = made.double()
    drawn, fresh = made(*given), made(*given)
    z = drawn.rsample((2,)) if isinstance(made, PlanarPosterior) else drawn.rsample((2, 4))
    other = z.detach() + 0.3
    assert torch.allclose(drawn.log_prob(other), fresh.log_prob(other), rtol=0, atol=1e-9)
    assert torch.allclose(drawn.log_prob(z), fresh.log_prob(z), rtol=0, atol=1e-6)
    assert (drawn.log_prob(other) - drawn.log_prob(z)).abs().min() > 1e-3


def test_a_validation_has_the_same_noise_in_every_epoch():
    """If the model does not change, the validation ELBO is the same to the last digit."""
    x = torch.rand(20, 1, 3, 2, generator=torch.Generator().manual_seed(0)).round()
    seen = []

    class Records(VAE):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            seen.append(self.results["val"]["elbo"])

    model = Records((1, 3, 2), latent_dim=2, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0))
    Trainer(max_epochs=3, **QUIET).fit(model, loader(x), loader(x[:7], x[7:]))
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


def test_a_skipped_batch_is_in_no_mean():
    """With on_nan=skip, the epoch's means are those of the other examples."""
    x = torch.rand(3, 8, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[1, 4] = torch.nan
    means = []
    for batches in (broken, x):
        torch.manual_seed(0)
        still = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.0), "on_nan": "skip"}
        model = VAE((1, 3, 2), latent_dim=2, likelihood=FixedScaleNormal(1.0), **still)
        elbos = []
        compute = model.compute_loss

        def recorded(x, y, compute=compute, elbos=elbos):
            loss, metrics = compute(x, y)
            elbos.append(float(metrics["elbo"]))
            return loss, metrics

        model.compute_loss = recorded
        Trainer(max_epochs=1, **QUIET).fit(model, loader(*batches))
        means.append((model.results["train"]["elbo"], elbos))
    (skipped, _), (_, elbos) = means
    assert skipped == pytest.approx((elbos[0] + elbos[2]) / 2, rel=1e-6)
    assert abs(elbos[1] - skipped) > 1e-3


def test_the_speed_of_training_leaves_out_validations(monkeypatch):
    """30 images take 2 s, with a validation of 100 s between them."""
    clock = iter([0.0, 1.5, 101.5, 102.0])
    monkeypatch.setattr("vaezoo.callbacks.monitor.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monitor = Monitor()
    monitor.on_train_epoch_start(None, None)
    monitor.on_validation_start(None, None)
    monitor.on_validation_end(None, None)
    monitor.on_train_epoch_end(None, None)
    assert monitor.seconds == 2.0


def test_examples_per_second_are_those_since_the_last_row(monkeypatch):
    """The clock advances by a second when it is read: twice per batch, then once per row."""
    clock = count()
    monkeypatch.setattr("vaezoo.callbacks.monitor.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    rows = []

    class Rows(CSV):
        def log_metrics(self, metrics, step=None):
            rows.append(metrics.get("step/examples_per_second"))

    x = torch.rand(8, 24, 1, 3, 2, generator=torch.Generator().manual_seed(0)).round()
    settings = QUIET | {"logger": Rows("."), "log_every_n_steps": 2, "max_epochs": 1}
    Trainer(callbacks=[Monitor()], **settings).fit(VAE((1, 3, 2), latent_dim=2), loader(*x))
    assert [speed for speed in rows if speed is not None] == [48.0] * 4


class Levels(ImageData):
    """This holds for each grey level, in training, validation and test."""

    def read(self):
        images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(40, -1, -1, -1)
        return Split(images, torch.zeros(40)), Split(images[:10], torch.zeros(10))


def test_a_pixel_above_127_is_white():
    data = Levels(binarize="threshold", val_size=10, batch_size=4)
    data.setup()
    assert data.test.x[0].flatten().tolist() == [0] * 128 + [1] * 128


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_each_split_has_draws_of_its_own(binarize):
    """Equal images of validation and test have different bits, also those of training if they are drawn once."""
    data = Levels(binarize=binarize, val_size=10, batch_size=4)
    data.setup()
    bits = [data.val.x[0], data.test.x[0]] + ([data.train.x[0]] if binarize == "static" else [])
    for i, one in enumerate(bits):
        assert all(not torch.equal(one, other) for other in bits[:i])


def test_levels_of_digits_are_rounded():
    """17 grey levels k as round(255 k / 16)."""
    data = Digits(binarize="none", val_size=100)
    data.setup()
    assert data.train.x.unique().tolist() == [round(255 * k / 16) for k in range(17)]


def test_a_fitted_mixture_draws_each_cluster_as_often_as_it_occurs():
    """Four of five codes are near -5, the fifth is near 5."""
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    codes = noise + torch.where(torch.arange(1000) % 5 == 0, 5.0, -5.0)[:, None]
    drawn = samplers.Sampler(lambda num: samplers.fit_gaussian_mixture(codes, num_components=2).sample((num,))).sample(
        4000
    )
    assert float((drawn[:, 0] < 0).double().mean()) == pytest.approx(0.8, abs=5 * 0.4 / 4000**0.5)


def test_names_of_draws_do_not_run_together():
    names = [(1, 11), (11, 1), (111,), ("1", 11), ("a", "bc"), ("ab", "c"), ("abc",)]
    assert len({seeding.derive(0, *name) for name in names}) == len(names)
    assert seeding.derive(1, 2) != seeding.derive(12)
