"""The conditional VAE."""

from functools import partial

import pytest
import torch
from conftest import RandomImages
from lightning.pytorch import Trainer

from vaezoo.data import Digits
from vaezoo.families import DiscretizedLogistic, FixedScaleNormal
from vaezoo.models import CVAE, VAE
from vaezoo.nets import MLP, LabelConditioned
from vaezoo.runs.setup import log_likelihood_kind


def test_label_reaches_every_input():
    """The label adds channels to an image or numbers to a vector, at least as many numbers as there are classes."""
    seen = []

    class Record(torch.nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.in_shape = in_shape

        def forward(self, inputs, context):
            seen.append(inputs)
            return inputs

    for in_shape, channels in [((2, 3, 4), 1), ((6,), 5), ((2, 1, 2), 3)]:
        net = LabelConditioned(in_shape, (1,), Record, num_classes=5)
        first, *rest = in_shape
        assert net.net.in_shape == (first + channels, *rest)
        x = torch.rand(3, *in_shape)
        net(x, torch.tensor([4, 0, 4]))
        assert torch.equal(seen[-1][:, :first], x)
        code = seen[-1][:, first:].flatten(1)
        assert torch.equal(code, net.embedding.weight[[4, 0, 4]])
        assert torch.linalg.matrix_rank(net.embedding.weight) == 5  # classes cannot be confused


def test_labels_stay_with_their_examples():
    """With K samples each example keeps its label, in the encoder and the decoder."""
    model = CVAE((1, 4, 4), num_classes=10, latent_dim=3).double().eval()
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double().round()
    y = torch.tensor([3, 1, 4, 1, 9])
    trace = model(x, y, num_samples=6)
    for b in range(5):
        alone = model.decode(trace.latent.z[:, b], y[b].expand(6)).log_prob(x[b])
        torch.testing.assert_close(trace.log_px[:, b], alone, rtol=1e-12, atol=0)
        torch.testing.assert_close(model.encode(x[b : b + 1], y[b : b + 1])[0], trace.latent.q.mean[b])
    other = model(x, (y + 1) % 10, num_samples=6)
    assert not torch.equal(trace.latent.q.mean, other.latent.q.mean)


def test_samples_have_their_class():
    """An independent classifier, trained on real digits, recognizes the class of conditional samples."""
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    data = Digits(binarize="threshold")
    model = CVAE((1, 8, 8), num_classes=10, latent_dim=8, optimizer=partial(torch.optim.Adam, lr=3e-3))
    trainer = Trainer(max_epochs=15, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu")  # fmt: skip
    trainer.fit(model, data)
    train = data.train
    classifier = LogisticRegression(max_iter=1000).fit(train.x.flatten(1).numpy(), train.y.numpy())
    labels = torch.arange(500) % 10
    with torch.no_grad():
        images = model.eval().sample(500, labels).sample()
    agree = classifier.predict(images.flatten(1).numpy()) == labels.numpy()
    assert agree.mean() > 0.8  # by chance 0.1


def test_missing_labels():
    model = CVAE((1, 4, 4), num_classes=10, latent_dim=3)
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="one label for each of 2 inputs, got None: pass context=labels"):
        model.encode(x)
    with pytest.raises(ValueError, match=r"got labels of shape \(2, 3\)"):
        model.encode(x, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="num_classes must be >= 1, got 0"):
        LabelConditioned((3,), (2,), MLP, num_classes=0)
    with pytest.raises(ValueError, match=r"num_classes=7, but .* from 0 to 9: use model.num_classes=10"):
        CVAE((1, 4, 4), latent_dim=20, num_classes=7).init_from_data(torch.zeros(10, 1, 4, 4), torch.arange(10))
    with pytest.raises(ValueError, match=r"one class label for each example, .* has the shape \(5,\)"):
        CVAE((1, 4, 4), latent_dim=20, num_classes=10).init_from_data(torch.zeros(10, 1, 4, 4), torch.zeros(10, 5))


def test_kind_of_the_elbo():
    """A bound of log p(x | y) differs from one of log p(x), and a probability from a density."""
    grey, bits = RandomImages((1, 4, 4), binarize="none"), RandomImages((1, 4, 4))
    assert log_likelihood_kind(CVAE((1, 4, 4), latent_dim=20, num_classes=10), bits) == "bits given y"
    assert log_likelihood_kind(VAE((1, 4, 4), latent_dim=20), bits) == "bits"
    assert log_likelihood_kind(VAE((1, 4, 4), latent_dim=20, likelihood=DiscretizedLogistic()), grey) == "levels"
    assert log_likelihood_kind(VAE((1, 4, 4), latent_dim=20, likelihood=FixedScaleNormal()), grey) == "density"
