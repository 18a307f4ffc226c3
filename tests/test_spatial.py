"""Convolutional networks whose latent is a map: shapes, what each place depends on, and a model with them."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import config
from ppca import generator

from vaezoo.instantiate import build
from vaezoo.models import VAE
from vaezoo.nets import SpatialDecoder, SpatialEncoder
from vaezoo.nets.conv import downsampled_sizes

SHAPES = [(1, 28, 20), (3, 64, 64), (2, 33, 17), (4, 8, 8), (1, 1, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [3, 4])
def test_image_to_map_and_back(shape, kernel):
    """For images of any size; a gradient reaches every parameter."""
    size = downsampled_sizes(*shape[1:], 2)[-1]
    options = {"channels": [4, 6], "kernel": kernel}
    encoder, decoder = SpatialEncoder(shape, (10, *size), **options), SpatialDecoder((5, *size), shape, **options)
    x = torch.rand(2, *shape, generator=generator(0))
    z = encoder(x)
    assert z.shape == (2, 10, *size)
    y = decoder(z[:, :5])
    assert y.shape == x.shape
    y.square().sum().backward()
    assert all(p.grad is not None for net in (encoder, decoder) for p in net.parameters())


def test_layers_by_hand():
    """The encoder is convolutions with stride 2 and one with stride 1; each place sees its part of the image only."""
    net = SpatialEncoder((1, 32, 32), (3, 8, 8), channels=[4, 6])
    h = x = torch.rand(2, 1, 32, 32, generator=generator(0))
    for conv in net.convs:
        h = F.silu(F.conv2d(h, conv.weight, conv.bias, stride=2, padding=1))
    assert torch.equal(net(x), F.conv2d(h, net.out.weight, net.out.bias, padding=1))
    changed = x.clone()
    changed[:, :, 20:, :] = 0
    difference = (net(x) - net(changed)).abs().amax((0, 1, 3))
    assert (difference[:4] == 0).all()
    assert (difference[5:] > 0).all()


def test_model_with_a_map():
    """Posterior, prior and KL have the shape of the map; the configs are used."""
    parts = {
        part: partial(build(config(f"model.{part}", f"model/{part}=spatial"), f"model.{part}"), channels=[4, 6])
        for part in ("encoder", "decoder")
    }
    model = VAE((1, 9, 7), latent_dim=(2, 3, 2), **parts)
    trace = model(torch.rand(5, 1, 9, 7, generator=generator(0)).round(), num_samples=3)
    assert trace.latent.z.shape == (3, 5, 2, 3, 2)
    assert trace.latent.kl_per_dim.shape == (5, 2, 3, 2)
    assert trace.elbo.isfinite().all()
    assert model.sample(4).mean.shape == (4, 1, 9, 7)


@pytest.mark.parametrize("latent_dim", [8, (2, 3, 3), (2, 2)])
def test_a_latent_of_another_shape(latent_dim):
    """The error names the shape to use."""
    for parts in ({"encoder": SpatialEncoder, "decoder": SpatialDecoder}, {"decoder": SpatialDecoder}):
        with pytest.raises(ValueError, match=r"28 x 20 pixels to 4 x 3, .*latent_dim=\[CHANNELS,4,3\]"):
            VAE((1, 28, 20), latent_dim=latent_dim, **parts)
    with pytest.raises(ValueError, match=r"needs images \(C, H, W\), got \(8,\): use model/encoder=mlp"):
        VAE((8,), latent_dim=(2, 4, 3), encoder=SpatialEncoder)
    with pytest.raises(ValueError, match="kernel must be >= 1, got 0"):
        SpatialEncoder((1, 28, 20), (2, 4, 3), kernel=0)
