"""Every printed number has a test with an independent value: the list of both, and tests that no other file has."""

import re
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vaezoo.callbacks import monitor as monitor_module
from vaezoo.callbacks.monitor import Monitor
from vaezoo.metrics import anomaly, disentanglement, latent, probes, samples
from vaezoo.metrics.quantities import QUANTITIES, Quantity
from vaezoo.models import VAE
from vaezoo.report import page
from vaezoo.report.tables import print_results
from vaezoo.runs.summary import peak_memory_mb
from vaezoo.tasks import fit

VALUES = "test_oracles_errors.py::test_the_values_of_a_test_are_means_over_examples_with_the_standard_error"
LIKELIHOOD = "test_oracles_protocols.py::test_likelihood"
ANNEALED = "test_oracles_protocols.py::test_annealed"
SPLIT = "test_oracles_shapes.py::test_decomposition_by_loops"
LATENT = "test_oracles_errors.py::test_latent_metrics_of_five_examples"
PROBES = "test_oracles_errors.py::test_probes_of_seven_scored"
CLUSTERS = "test_probes.py::test_scikit_learn_directly"
SAMPLES = "test_oracles_errors.py::test_sample_metrics_of_few_images"
SIMILARITY = "test_oracles_shapes.py::test_similarity_of_images_that_are_not_square"
ANOMALY = "test_oracles_errors.py::test_anomaly_of_few_images"
HELD_OUT = "test_oracles_held_out.py::test_classifiers_are_scored_on_held_out_examples"
SCORES = "test_oracles_protocols.py::test_scores_number_their_examples"
TOKENS = "test_text_vae.py::test_perplexity_is_that_of_all_tokens_together"
FRAMES = "test_sequences.py::test_contract"
CODES = "test_vq.py::test_codes_are_counted_over_the_epoch"
SUMMARY = "test_oracles_values.py::test_the_cost_of_a_run"
TABLE = "test_oracles_pairing.py::test_every_column_has_its_own_numbers"
# Each quantity: whether larger (1) or smaller (-1) is better, or neither, and the test with its independent value.
ORACLES = {
    "elbo": (1, VALUES), "elbo_error": (0, VALUES), "log_px": (1, VALUES), "kl": (0, VALUES),
    "bits_per_dim": (-1, VALUES),
    "loss": (-1, "test_oracles_weights.py::test_every_objective_weighs_its_terms"),
    "mi": (0, SPLIT), "tc": (0, SPLIT), "dwkl": (0, SPLIT),
    "tokens": (0, TOKENS), "nats_per_token": (-1, TOKENS), "perplexity_bound": (-1, TOKENS),
    "frames": (0, FRAMES), "nats_per_frame": (1, FRAMES),
    "accuracy": (1, "test_m2_vae.py::test_accuracy_and_its_error"),
    "accuracy_error": (0, "test_m2_vae.py::test_the_error_of_a_middling_accuracy"),
    "cross_entropy": (-1, "test_m2_vae.py::test_the_loss_by_hand"),
    "kl_dim": (0, "test_oracles_errors.py::test_dimensions_and_units_by_layer"),
    "log_p": (1, LIKELIHOOD), "log_p_error": (0, LIKELIHOOD), "log_p_draw_error": (0, LIKELIHOOD),
    "log_p_samples": (0, LIKELIHOOD), "log_p_examples": (0, LIKELIHOOD), "inference_gap": (0, LIKELIHOOD),
    "log_p_annealed": (1, ANNEALED), "annealed_gain": (0, ANNEALED), "annealed_gap": (-1, ANNEALED),
    "codes_used": (1, CODES), "perplexity": (1, CODES),
    "active_units": (0, LATENT), "active_units_kl": (0, LATENT), "collapsed_units": (0, LATENT),
    "mutual_information": (0, LATENT), "aggregate_kl": (-1, LATENT), "total_correlation": (0, LATENT),
    "dimension_wise_kl": (-1, LATENT),
    "linear_probe": (1, PROBES), "knn": (1, PROBES), "chance": (0, PROBES), "nmi": (1, CLUSTERS), "ari": (1, CLUSTERS),
    "fid": (-1, SAMPLES), "kid": (-1, SAMPLES), "precision": (1, SAMPLES), "recall": (1, SAMPLES),
    "density": (1, SAMPLES), "coverage": (1, SAMPLES), "num_features": (0, SAMPLES), "num_real": (0, SAMPLES),
    "num_generated": (0, SAMPLES), "psnr": (1, SIMILARITY), "ssim": (1, SIMILARITY), "ms_ssim": (1, SIMILARITY),
    "auroc": (1, ANOMALY), "aupr": (1, ANOMALY), "fpr95": (-1, ANOMALY),
    "beta_vae": (1, "test_oracles_held_out.py::test_votes_are_scored_on_other_votes"),
    "factor_vae": (1, "test_disentanglement.py::test_factor_vae_by_hand"),
    "mig": (1, "test_disentanglement.py::test_mutual_information_gap_of_a_matrix"),
    "dci_disentanglement": (1, "test_disentanglement.py::test_dci_of_matrices"),
    "dci_completeness": (1, "test_disentanglement.py::test_dci_of_matrices"),
    "dci_informativeness": (1, HELD_OUT), "sap": (1, HELD_OUT),
    "explicitness": (1, "test_disentanglement.py::test_explicitness_of_two_normals_is_closed_form"),
    "modularity": (1, "test_disentanglement.py::test_modularity_of_matrices"),
    "irs": (1, "test_disentanglement.py::test_irs_by_hand"),
    "udr": (1, "test_oracles_pairing.py::test_udr_compares_each_model_with_all_others"),
    "udr_models": (0, "test_oracles_pairing.py::test_udr_goes_to_the_run_whose_codes_it_is_of"),
    "distortion": (0, TABLE), "difference": (0, "test_oracles_pairing.py::test_differences_are_of_the_same_seed"),
    "wall_seconds": (0, SUMMARY), "train_examples_per_second": (0, SUMMARY), "parameters": (0, SUMMARY),
    "peak_memory_mb": (0, "test_oracles_values.py::test_peak_memory_is_the_systems"),
}  # fmt: skip
OF_AN_IMAGE = {  # scores of one image, of which AUROC, AUPR and FPR95 are
    "elbo": SCORES, "log_p": SCORES, "reconstruction": SCORES, "typicality": SCORES,
    "likelihood_regret": "test_oracles_held_out.py::test_regret_is_the_gain_of_the_elbo",
}  # fmt: skip


def told():
    """All quantities of the package, some of them in several tables."""
    modules = latent, probes, samples, anomaly, disentanglement
    tables = [QUANTITIES, *(m.QUANTITIES for m in modules), disentanglement.UDR, {"difference": page.DIFFERENCE}]
    return [(name, quantity) for table in tables for name, quantity in table.items()]


def test_every_quantity_has_an_oracle():
    """A new number needs a test that computes it in another way."""
    names = {name for name, _ in told()}
    assert names - set(ORACLES) == set(), "add the test with an independent value to ORACLES"
    assert set(ORACLES) - names == set(), "no longer printed"
    assert set(anomaly.SCORES) == set(OF_AN_IMAGE)


def test_every_oracle_exists():
    folder = Path(__file__).parent
    for place in {*(place for _, place in ORACLES.values()), *OF_AN_IMAGE.values()}:
        file, name = place.split("::")
        assert f"\ndef {name}(" in (folder / file).read_text(), place


@pytest.mark.parametrize(("name", "quantity"), told(), ids=[name for name, _ in told()])
def test_the_better_direction_is_the_same_everywhere(name, quantity):
    """Every table shows it as an arrow."""
    assert isinstance(quantity, Quantity)
    assert quantity.better == ORACLES[name][0]
    assert quantity.meaning


# What a run cost.


def test_the_cost_of_a_run(monkeypatch):
    """Parameters by counting, speed from the monitor's examples and seconds, the time since the start."""
    model = VAE((1, 3, 2), latent_dim=2)
    monitor = Monitor()
    monitor.examples, monitor.seconds = 700, 4.0
    wrote = {}
    monkeypatch.setattr(fit, "test", lambda *_: {"elbo": -3.5})
    monkeypatch.setattr(fit, "print_results", lambda *_: None)
    monkeypatch.setattr(fit, "log_likelihood_kind", lambda *_: "bits")
    monkeypatch.setattr(fit, "write_run_page", lambda folder: folder)
    monkeypatch.setattr(fit, "write_summary", lambda config, **values: wrote.update(values) or values)
    model.epochs, model.results = 2.5, {"val": {"elbo": -4.5}}
    trainer = SimpleNamespace(callbacks=[monitor], current_epoch=3, global_step=30, is_global_zero=True)
    config = {"name": "vae", "seed": 0, "logger": {}, "run_dir": "x"}
    data = SimpleNamespace(noun="image", test_set="")
    fit.test_and_summarize(config, trainer, model, data, time.perf_counter() - 100)
    encoder = 6 * 200 + 200 + 200 * 200 + 200 + 200 * 4 + 4
    decoder = 2 * 200 + 200 + 200 * 200 + 200 + 200 * 6 + 6
    assert wrote["parameters"] == encoder + decoder
    assert wrote["train_examples_per_second"] == 175
    assert 100 <= wrote["wall_seconds"] < 110
    assert (wrote["epochs"], wrote["steps"], wrote["test"], wrote["objective"]) == (2.5, 30, {"elbo": -3.5}, -4.5)


def test_peak_memory_is_the_systems():
    found = peak_memory_mb()["process"]
    assert found == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, rel=0.01)


def test_the_speed_is_that_of_training_alone(monkeypatch):
    """A clock of whole seconds: validation, and what lies between two epochs, does not count; rows are of their own."""
    clock = iter([0, 2, 10, 13, 20, 24])
    monkeypatch.setattr(monitor_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rows = []
    logger = SimpleNamespace(log_metrics=lambda row, step: rows.append((step, row)))
    rate = SimpleNamespace(param_groups=[{"lr": 0.5}])
    trainer = SimpleNamespace(world_size=2, global_step=0, log_every_n_steps=2, loggers=[logger], optimizers=[rate])
    model = SimpleNamespace(last_metrics={}, objective=SimpleNamespace(weights=dict), gradient_norm=torch.tensor(0.25))
    part = SimpleNamespace(batch=SimpleNamespace(x=torch.zeros(5)))
    seen = Monitor()
    seen.on_train_start(trainer, model)  # 0
    for trainer.global_step in (1, 2):
        seen.on_microbatch_end(trainer, model, part)  # at 2, the second step logs a row
    assert [(step, row["step/examples_per_second"]) for step, row in rows] == [(1, 20 / 2)]
    seen.on_validation_start(trainer, model)  # 10: 8 seconds more
    seen.on_validation_end(trainer, model)  # 13
    seen.on_train_epoch_end(trainer, model)  # 20: 7 seconds more
    seen.on_validation_start(trainer, model)  # of a validation by itself: no clock is running
    seen.on_train_epoch_start(trainer, model)  # 24
    assert (seen.examples, seen.seconds) == (20, 2 + 8 + 7)
    assert rows[0][1]["step/learning_rate"] == 0.5
    assert rows[0][1]["step/gradient_norm"] == 0.25


def test_a_number_is_printed_with_its_own_error_and_bound(capsys):
    """Three digits, none for integers; the error and the bound are those of the number."""
    names = ["elbo", "log_p", "active_units", "fid", "auroc"]
    values = {"elbo": -91.23456, "elbo_error": 0.12345, "log_p": -88.5, "log_p_error": 0.5, "active_units": 7.0,
              "active_units_ceiling": 20.0, "auroc": 0.75}  # fmt: skip
    known = dict(told())
    print_results("title", values, {name: known[name] for name in names}, ["a note"])
    lines = [re.split(" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    shown = [(name, number) for name, number, *_ in (line for line in lines if len(line) > 2)]
    assert shown == [
        ("elbo ↑", "-91.235 ± 0.123"), ("log_p ↑", "-88.500 ± 0.500"), ("auroc ↑", "0.750"),
        ("active_units", "7 (at best 20)"),
    ]  # fmt: skip
