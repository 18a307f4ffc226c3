"""The speed benchmark compares like with like."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent / "benchmarks"))

import contenders
import speed

WORDS = [*speed.WORKLOADS["digits"].split(), "data.binarize=static", "threads=1"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """The images are made here, and quickly."""

    def images_of(data):
        data.setup()
        return (data.train.x > 0).to(torch.uint8)

    monkeypatch.setattr(contenders, "images_of", images_of)


@pytest.mark.parametrize("net", [[], ["model/encoder=conv", "model/decoder=conv"]], ids=["mlp", "conv"])
def test_the_hand_written_loss_is_vaezoos(net):
    work = contenders.Workload([*WORDS, *net])
    model, x = work.model, work.images[:32].float()
    plain = contenders.Plain(work.encoder, work.decoder)
    torch.manual_seed(1)
    ours = model.objective(model(x))["loss"]
    torch.manual_seed(1)
    assert plain(x).item() == pytest.approx(ours.item(), rel=1e-6)


@pytest.mark.parametrize("trick", ["adam", "channels_last", "graph"])
def test_a_trick_changes_no_loss(trick):
    words = [*WORDS, "model/encoder=conv", "model/decoder=conv"]
    with torch.compiler.set_stance("force_eager"):  # compiled code draws other noise
        plain, tuned = (contenders.loop(tricks, words, steps=6) for tricks in (set(), {trick}))
    assert plain[-1] < plain[0]
    assert tuned == pytest.approx(plain, rel=1e-4)


def test_contenders_take_turns():
    rows = speed.compare(["vaezoo"], [*WORDS, "trainer.log_every_n_steps=5"], threads=1, rounds=2, windows=2, warmup=1)
    assert [row["name"] for row in rows] == ["loop", "vaezoo"]
    assert all(math.isfinite(rate) and rate > 0 for row in rows for rate in row["rates"])
    assert rows[1]["ratios"] == [rate / limit for rate, limit in zip(rows[1]["rates"], rows[0]["rates"], strict=True)]
    assert 0.02 < rows[1]["ratio"] < 5


def test_a_contender_that_fails_says_why(tmp_path):
    contender = speed.Contender("vaezoo", [*WORDS, "sead=1"], tmp_path, threads=1)
    with pytest.raises(RuntimeError, match="did you mean seed"):
        contender.turn(1, patience=60)
    contender.close()


def test_models_of_counts():
    """Each row of Kneser & Ney's bigram sums to 1; one probability by hand; the unigram has half a token more."""
    import text

    sentences = [[2, 3, 1], [2, 3, 3, 1], [3, 2, 1]]
    p = text.kneser_ney(sentences, 5)
    assert p.shape == (6, 5)
    assert np.allclose(p.sum(1), 1, rtol=0, atol=1e-12)
    # Pairs: start-2 twice, start-3, 2-3 twice, 2-1, 3-1 twice, 3-3, 3-2: n_1 = 4, n_2 = 3, d = 4 / 10. Tokens before
    # 1: 2; before 2: 2; before 3: 3. Of these counts n_1 = 0 and n_2 = 2, so their discount is 0.
    expected = (2 - 0.4) / 3 + 0.4 * 2 / 3 * 3 / 7
    assert p[2, 3] == pytest.approx(expected, abs=1e-12)
    assert p[2, 4] == 0
    assert np.allclose(p[4], [0, 2 / 7, 2 / 7, 3 / 7, 0])
    assert text.unigram(sentences, 5) == pytest.approx(np.array([0.5, 3.5, 3.5, 4.5, 0.5]) / 12.5)


def test_the_script_for_gpus(tmp_path, capsys):
    """On a CPU it measures all but CUDA graphs."""
    import gpu

    gpu.main(["--small", "--json", str(tmp_path / "gpu.json")])
    result = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["name"]: row for row in result["tables"][0]["rows"]}
    assert list(rows) == (["loop", "loop+graph", "vaezoo"] if torch.cuda.is_available() else ["loop", "vaezoo"])
    for row in rows.values():
        assert row["images_per_second"] == pytest.approx(64 * row["steps_per_second"])
        assert row["ratio"] == pytest.approx(row["steps_per_second"] / rows["loop"]["steps_per_second"])
        assert 10 < row["steps_per_second"] < 1e5
    assert result["log_marginal"]["seconds"] > 0
    assert "| vaezoo |" in capsys.readouterr().out


def test_the_clock_of_the_script_for_gpus(monkeypatch):
    """Three steps warm it up; then ten steps, five to a chunk, take 2 s each."""
    import gpu

    now = [0.0]
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    clock, trainer = gpu.Clock(seconds=15.0, warmup=3), SimpleNamespace(should_stop=False)
    for step in range(13):
        now[0] += 100.0 if step < 3 else 2.0
        clock.on_microbatch_end(trainer, None, None)
        if step in (2, 7, 12):
            clock.on_train_batch_end(trainer)
    assert trainer.should_stop
    assert clock.rate == 0.5
