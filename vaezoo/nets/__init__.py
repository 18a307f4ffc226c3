"""Networks: ``Net(in_shape, out_shape, **hyper)``, any image size, ``forward(inputs, context)``."""

from vaezoo.nets.conditioned import Conditioned
from vaezoo.nets.conv import ConvDecoder, ConvEncoder
from vaezoo.nets.mlp import MLP
from vaezoo.nets.resnet import ResidualBlock, ResNetDecoder, ResNetEncoder

__all__ = ["MLP", "Conditioned", "ConvDecoder", "ConvEncoder", "ResNetDecoder", "ResNetEncoder", "ResidualBlock"]
