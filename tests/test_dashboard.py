"""The W&B dashboard is built without a connection, from names that a run logs."""

import json
import re
import sys

import pytest

pytest.importorskip("wandb_workspaces", reason="needs the extra 'dashboard'")

from test_cli import SHORT, inspect_wandb

from vaezoo.report.dashboard import workspace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydantic's, of wandb-workspaces


def test_the_dashboard_shows_what_a_run_logs(cli):
    """Every curve, picture and column is logged by a run, so no panel is empty."""
    code, _out, _err, run = cli(*SHORT, "callbacks.images.every_n_epochs=1", "trainer.log_every_n_steps=10")
    assert code == 0
    _folder, record = inspect_wandb(run)
    logged = set(record["summary"])
    spec = workspace("someone")._to_model().spec.model_dump(by_alias=True, exclude_none=True)
    panels = [p for section in spec["section"]["panelBankConfig"]["sections"] for p in section["panels"]]
    text = json.dumps(panels)
    names = set(re.findall(r'"((?:train|val|test|optimization|images)/[\w/]+)"', text))
    names |= set(re.findall(r"summary:((?:train|val|test|optimization)/[\w/]+)", text))
    assert len(panels) >= 10
    assert {"val/elbo", "test/kl", "images/samples", "val/kl_per_dim", "optimization/loss"} <= names
    assert names <= logged, names - logged


def test_a_missing_package_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ImportError):
        workspace("someone")
