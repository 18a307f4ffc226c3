"""Tests of the features of Inception: those of torch-fidelity's network, from a file of weights and nothing else."""

import hashlib
import pickle
import sys

import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from vaezoo.metrics.inception import Inception
from vaezoo.metrics.samples import fid

Extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights, in place of the published ones."""
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # the network loads weights as it is made
        patch.setattr(Extractor, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_, **__: None)
        net = Extractor("x", ["2048"], feature_extractor_weights_path="none")
    torch.save(net.state_dict(), file)
    return file


def test_features_are_those_of_the_network(weights):
    """From bytes, as torch-fidelity takes them; gray images have three equal channels; chunks change nothing."""
    net, bare = Inception(weights), Extractor("x", ["2048"], feature_extractor_weights_path=weights)
    images = torch.randint(0, 256, (3, 3, 9, 8), dtype=torch.uint8)
    assert torch.equal(net(images / 255), bare(images)[0])
    grey = torch.tensor([-1.0, 0.0, 0.5019, 2.0]).reshape(4, 1, 1, 1).expand(-1, 1, 8, 8)
    same = torch.tensor([0, 0, 128, 255], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(-1, 3, 8, 8)
    features = net(grey)
    assert torch.equal(features, bare(same)[0])
    assert features.shape == (4, 2048)
    assert not torch.equal(features[2], features[3])
    assert net.describe() == (
        f"2048 features of Inception-v3 (SHA-256 {hashlib.sha256(weights.read_bytes()).hexdigest()[:12]})"
    )


def test_fid_is_torchmetrics(weights):
    """The same network in torchmetrics, and its formula."""
    real, fake = torch.randint(0, 256, (2, 6, 3, 8, 8), dtype=torch.uint8)
    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights))
    metric.set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    net = Inception(weights)
    assert fid(net(real / 255), net(fake / 255)) == pytest.approx(float(metric.compute()), rel=1e-3)


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(print), pickle.dumps({})])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"file does not hold the weights of Inception-v3: give .* weights-"):
        Inception(tmp_path / "file")


def test_missing_package_or_file_is_named(tmp_path, weights, monkeypatch):
    with pytest.raises(FileNotFoundError):
        Inception(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match=r"1 or 3, H, W\), got a batch of shape \(1, 2, 8, 8\)"):
        Inception(weights)(torch.zeros(1, 2, 8, 8))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ImportError, match=r"need torch-fidelity: pip install 'vaezoo\[inception\]'"):
        Inception(weights)
