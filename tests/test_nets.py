"""Networks: image sizes, encoders and decoders that mirror each other, the Burgess network, residual blocks."""

import pytest
import torch
import torch.nn.functional as F
from conftest import config

from vaezoo.instantiate import build
from vaezoo.nets import (
    Conv1dDecoder,
    Conv1dEncoder,
    ConvDecoder,
    ConvEncoder,
    ResidualBlock,
    ResNetDecoder,
    ResNetEncoder,
)
from vaezoo.nets.conv import Downsample, Upsample, downsampled_sizes

SHAPES = [(1, 28, 20), (3, 64, 64), (2, 33, 17), (4, 8, 8), (1, 1, 5)]


def preset(part, name):
    return build(config(f"model.{part}", f"model/{part}={name}"), f"model.{part}")


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 8), (33, 17)])
def test_upsample_is_the_adjoint_of_downsample(kernel, size):
    """<down(x), y> = <x, up(y)> with the same weights, for every size and kernel."""
    down = Downsample(2, 3, kernel).double()
    half = downsampled_sizes(*size, 1)[-1]
    up = Upsample(3, 2, kernel, half, size).double()
    up.load_state_dict({"weight": down.weight.detach(), "bias": torch.zeros(2)})
    torch.nn.init.zeros_(down.bias)
    x = torch.randn(4, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(4, 3, *half, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert down(x).shape == y.shape
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum(), rtol=1e-12, atol=1e-12)


def test_conv_preset_is_plain_convolutions():
    """With kernel 3, the layers are torch's with padding 1: the same bits, and the same names in checkpoints."""
    net = ConvEncoder((2, 33, 17), (3,), channels=(4, 8), hidden=16)
    names = ["convs.0", "convs.1", "hidden", "out"]
    assert list(net.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    decoder = ConvDecoder((3,), (2, 33, 17), channels=(4, 8), hidden=16)
    names = ["hidden", "unfold", "convs.0", "convs.1"]
    assert sorted(decoder.state_dict()) == sorted(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))
    h = x = torch.rand(5, 2, 33, 17)
    for conv in net.convs:
        h = F.silu(F.conv2d(h, conv.weight, conv.bias, stride=2, padding=1))
    assert torch.equal(net(x), net.out(F.silu(net.hidden(h.flatten(1)))))


def test_burgess_by_hand():
    """Burgess et al. 2018, appendix: four 4x4 convolutions to 32, 16, 8, 4 pixels, and two layers of 256."""
    encoder = preset("encoder", "burgess")((1, 64, 64), (20,))
    decoder = preset("decoder", "burgess")((10,), (1, 64, 64))
    convs = (1 * 32 * 16 + 32) + 3 * (32 * 32 * 16 + 32)
    assert parameters(encoder) == convs + (512 * 256 + 256) + (256 * 256 + 256) + (256 * 20 + 20) == 252_052
    mirrored = 3 * (32 * 32 * 16 + 32) + (32 * 1 * 16 + 1)
    assert parameters(decoder) == (10 * 256 + 256) + (256 * 256 + 256) + (256 * 512 + 512) + mirrored == 249_953
    sizes = []
    for net in (encoder, decoder):
        for conv in net.convs:
            assert conv.kernel_size == (4, 4)
            conv.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    decoder(encoder(torch.rand(2, 1, 64, 64))[:, :10])
    down = [(32, 32, 32), (32, 16, 16), (32, 8, 8), (32, 4, 4)]
    assert sizes == [*down, *down[-2::-1], (1, 64, 64)]
    h = x = torch.rand(2, 1, 64, 64)
    for conv in encoder.convs:
        h = F.relu(F.conv2d(h, conv.weight, conv.bias, stride=2, padding=1))
    h = F.relu(encoder.others[0](F.relu(encoder.hidden(h.flatten(1)))))
    assert torch.equal(encoder(x), encoder.out(h))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["conv", "burgess", "resnet"])
def test_presets_take_any_image(name, shape):
    """Image -> vector -> image, for one image or many. Every part of the output depends on the input."""
    torch.manual_seed(0)
    encoder = preset("encoder", name)(shape, (2, 3)).double()
    decoder = preset("decoder", name)((2, 3), shape).double()
    x = torch.rand(3, *shape, dtype=torch.float64, requires_grad=True)
    z = encoder(x)
    y = decoder(z)
    assert z.shape == (3, 2, 3)
    assert y.shape == x.shape
    torch.testing.assert_close(decoder(encoder(x[:1])), y[:1], rtol=1e-10, atol=1e-12)
    (grad,) = torch.autograd.grad(y[0].square().sum(), x)
    assert (grad[0] != 0).any()
    assert (grad[1:] == 0).all()


def test_hidden_layers_are_mirrored():
    """The decoder uses the widths of the encoder in reverse order."""
    encoder = ConvEncoder((1, 8, 8), (3,), channels=(4,), hidden=[20, 10])
    decoder = ConvDecoder((3,), (1, 8, 8), channels=(4,), hidden=[20, 10])
    assert [encoder.hidden.out_features, encoder.others[0].out_features] == [20, 10]
    assert [decoder.hidden.out_features, decoder.others[0].out_features, decoder.unfold.in_features] == [10, 20, 20]


def test_residual_block():
    """With a second convolution of 0 it is the identity. Its first normalization makes f independent of the scale."""
    block = ResidualBlock(32, "silu").double()
    x = torch.randn(2, 32, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(block(1e3 * x) - 1e3 * x, block(1e4 * x) - 1e4 * x, rtol=1e-6, atol=1e-6)
    torch.nn.init.zeros_(block.convs[1].weight)
    assert torch.equal(block(x), x)


def test_resnet_is_the_conv_network_with_blocks():
    """With residual blocks that are the identity, the outputs are those of the conv network, to the bit."""
    shape = (2, 33, 17)
    for net, blocks in ((ConvEncoder, {}), (ResNetEncoder, {"blocks": 3})):
        torch.manual_seed(0)
        encoder = net(shape, (4,), channels=(4, 8), hidden=16, **blocks)
        torch.manual_seed(1)
        decoder = (ConvDecoder if net is ConvEncoder else ResNetDecoder)((4,), shape, (4, 8), hidden=16, **blocks)
        for module in (*encoder.modules(), *decoder.modules()):
            if isinstance(module, ResidualBlock):
                torch.nn.init.zeros_(module.convs[1].weight)
        y = decoder(encoder(torch.rand(3, *shape, generator=torch.Generator().manual_seed(2))))
        if net is ConvEncoder:
            plain = y
    assert torch.equal(plain, y)
    assert sum(isinstance(m, ResidualBlock) for m in (*encoder.modules(), *decoder.modules())) == 2 * 2 * 3


@pytest.mark.parametrize("name", ["burgess", "resnet"])
def test_same_in_training_and_evaluation(name):
    """Layers do the same in training and evaluation, and the same seed makes the same network."""
    x = torch.rand(4, 1, 16, 12)
    outputs = []
    for training in (True, False):
        torch.manual_seed(3)
        encoder, decoder = preset("encoder", name)((1, 16, 12), (4,)), preset("decoder", name)((4,), (1, 16, 12))
        outputs.append(decoder.train(training)(encoder.train(training)(x)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("net", ["burgess", "resnet"])
def test_compiles_whole(net):
    """The networks compile to one graph, also for odd sizes, with the eager outputs."""
    torch._dynamo.reset()
    model = torch.nn.Sequential(preset("encoder", net)((1, 9, 7), (4,)), preset("decoder", net)((4,), (1, 9, 7)))
    x = torch.rand(3, 1, 9, 7)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": []}, "at least one fully connected layer"),
        ({"hidden": [16, 0]}, "hidden must be a list of integers >= 1"),
        ({"kernel": 0}, "kernel must be >= 1, got 0"),
        ({"channels": [8, -1]}, "channels must be a list of integers >= 1"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        ConvEncoder((1, 8, 8), (2,), **settings)
    with pytest.raises(ValueError, match=words):
        ResNetDecoder((2,), (1, 8, 8), **settings)
    with pytest.raises(ValueError, match="blocks must be >= 1, got 0"):
        ResNetEncoder((1, 8, 8), (2,), blocks=0)
    with pytest.raises(ValueError, match="use model/encoder=mlp"):
        ResNetEncoder((64,), (2,))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 2), (9, 4), (5, 5)])
@pytest.mark.parametrize("shape", [(1, 64), (1, 1), (2, 3, 37), (7, 1000)])
def test_conv1d_decoder_mirrors_the_encoder(kernel, stride, shape):
    """<encoder(x), y> = <x, decoder(y)> with the same weights, without activations, for every length."""
    options = {"channels": [4, 5], "kernel": kernel, "stride": stride, "hidden": 6}
    encoder, decoder = Conv1dEncoder(shape, (3,), **options).double(), Conv1dDecoder((3,), shape, **options).double()
    with torch.no_grad():
        for net in (encoder, decoder):
            net.activation = lambda h: h
            for name, parameter in net.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
        for mine, other in zip(encoder.layers, reversed(decoder.layers), strict=True):
            other.weight.copy_(mine.weight.T)
        for mine, other in zip(encoder.convs, reversed(decoder.convs), strict=True):
            other.weight.copy_(mine.weight)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, *shape, generator=g).double(), torch.randn(2, 3, generator=g).double()
    torch.testing.assert_close((encoder(x) * y).sum(), (x * decoder(y)).sum(), rtol=1e-12, atol=1e-12)


def test_conv1d_by_hand():
    """The layers are torch's, over the last dimension; a band of a spectrogram is a channel."""
    net = preset("encoder", "conv1d")((1, 40, 50), (20,))
    assert net.convs[0].weight.shape == (32, 40, 9)
    assert parameters(net) == 40 * 32 * 9 + 32 + 32 * 64 * 9 + 64 + 64 * 128 * 9 + 128 + 128 * 256 + 256 + 256 * 20 + 20
    x = torch.rand(3, 1, 40, 50)
    h = x.squeeze(1)
    for conv in net.convs:
        h = F.silu(F.conv1d(h, conv.weight, conv.bias, stride=4, padding=4))
    h = F.silu(F.linear(h.flatten(1), net.layers[0].weight, net.layers[0].bias))
    assert torch.equal(net(x).flatten(1), net.layers[1](h))


def test_conv1d_errors():
    with pytest.raises(
        ValueError, match=r"a convolutional encoder needs signals \(..., T\), got \(5,\): use model/encoder"
    ):
        Conv1dEncoder((5,), (2,))
    with pytest.raises(ValueError, match="kernel must be odd and at least as large as the stride, got kernel=4"):
        Conv1dDecoder((2,), (1, 9), kernel=4)
