"""Every model on every kind of data: it trains, or says in one sentence why it cannot."""

import math
from itertools import product

import lightning.pytorch as pl
import pytest
import torch
from conftest import config
from test_contract import MODELS

from vaezoo.data import DataModule, Split
from vaezoo.instantiate import build
from vaezoo.runs.setup import wrap_parts

LABELS = torch.arange(90) % 10
HOLES = torch.rand(90, 6, generator=torch.Generator().manual_seed(3)) < 0.3


def rows(kind):
    """90 rows (6,) of a kind of data; the first column follows the label. The last words are "with holes"."""
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(90, 6, generator=g)
    noise[:, 0] = (noise[:, 0] + LABELS) / 10
    holes = HOLES & (kind.endswith("holes"))
    whole = (noise * 4).long()
    if kind.startswith("binary"):
        return noise.round().where(~holes, math.nan)
    if kind.startswith("real"):
        return (20 * noise - 5).where(~holes, math.nan)
    if kind.startswith("unit"):
        return noise
    if kind.startswith(("count", "categorical")):
        return whole.where(~holes, -1)
    return torch.cat([20 * noise[:, :2], whole[:, 2:].float()], 1).where(~HOLES, math.nan)  # mixed


class Rows(DataModule):
    """Rows of a kind of data."""

    noun = "row"

    def __init__(self, kind):
        super().__init__(val_size=20, batch_size=32)
        self.kind = kind

    @property
    def data_kind(self):
        return self.kind.split()[0]

    def likelihood_config(self):
        if self.data_kind == "categorical":
            return {"_target_": "vaezoo.families.IndexCategorical", "num_categories": 4}
        if self.data_kind == "mixed":
            families = {
                "real": {"_target_": "vaezoo.families.SharedScaleNormal"},
                "count": {"_target_": "vaezoo.families.NegativeBinomial"},
                "kind": {"_target_": "vaezoo.families.Categories", "sizes": [4, 4]},
            }
            layout = {"real": [2], "count": [2], "kind": [2]}
            return {"_target_": "vaezoo.families.Joint", "layout": layout, "families": families}
        return super().likelihood_config()

    def read(self):
        x = rows(self.kind)
        return Split(x[:70], LABELS[:70]), Split(x[70:], LABELS[70:])


KINDS = ("binary", "binary with holes", "unit", "real", "real with holes", "count", "count with holes", "categorical",
         "categorical with holes", "mixed with holes")  # fmt: skip
SCALED = (
    "the likelihood that SigmaVAE sets itself scores byte or real or unit data, but Rows makes .* data: use a model "
    "whose likelihood follows the data, such as model=mlp_vae"
)
HOLED = "entries of Rows are missing, but the likelihood that SigmaVAE sets itself needs all of them: use a model"
REFUSED = {("sigma_vae", kind): SCALED for kind in KINDS if not kind.startswith(("unit", "real"))} | {
    ("sigma_vae", "real with holes"): HOLED
}


FOR_ALL = ("real with holes", "count", "categorical with holes", "mixed with holes")  # mlp_vae has all kinds


@pytest.mark.parametrize(
    ("name", "kind"),
    [*product(MODELS, FOR_ALL), *product(["mlp_vae", "sigma_vae"], [kind for kind in KINDS if kind not in FOR_ALL])],
)
def test_model_and_kind(name, kind):
    """The model trains, and the likelihood of its samples is of the data's kind and type."""
    torch.manual_seed(0)
    data = Rows(kind)
    data.inspect()
    nets = ["model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]"]
    node = config("model", f"model={name}", *nets, "model.latent_dim=3", shape=[6])
    if "likelihood" in node:
        node["likelihood"] = data.likelihood_config()
    wrap_parts(node, data, ())
    model = build(node, "model", optimizer=lambda p: torch.optim.Adam(p, 1e-2))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=2, enable_model_summary=False, **quiet)
    if (name, kind) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, kind]):
            trainer.fit(model, data)
        return
    trainer.fit(model, data)
    assert math.isfinite(float(trainer.callback_metrics["val/elbo"]))
    batch = next(iter(data.test_dataloader()))
    assert batch.x.is_floating_point() != kind.startswith(("count", "categorical"))
    model.eval()
    drawn = data.represent(model.sample(20, LABELS[:20]))
    assert drawn.shape == (20, 6)
    assert not drawn.isnan().any()
    estimate = model.log_marginal(batch.x, batch.y, num_samples=3)
    assert estimate.isfinite().all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("holes")])
def test_values_under_holes_do_not_matter(kind):
    """What is written under a hole changes neither the posterior nor log p: all missing values are one."""
    torch.manual_seed(0)
    data = Rows(kind)
    data.setup()
    node = config("model", "model=mlp_vae", "model.latent_dim=3", shape=[6])
    node["likelihood"] = data.likelihood_config()
    wrap_parts(node, data, ())
    model = build(node, "model").eval()
    x = next(iter(data.test_dataloader())).x
    all_missing = torch.full_like(x, math.nan if x.is_floating_point() else -1)
    torch.testing.assert_close(model(all_missing).log_px, torch.zeros(1, len(x)), rtol=0, atol=0)
    torch.testing.assert_close(model(all_missing).elbo, -model(all_missing).kl.sum(1), rtol=0, atol=0)
