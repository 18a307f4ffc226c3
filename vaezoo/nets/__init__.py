"""Networks.

Encoders and decoders are made by ``Net(in_shape, out_shape, **options)`` and called as ``net(inputs, context)``; those
for images take images of any size.
"""

from vaezoo.nets.codebook import Quantizer
from vaezoo.nets.context_conditioned import ContextConditioned
from vaezoo.nets.conv import ConvDecoder, ConvEncoder
from vaezoo.nets.conv1d import Conv1dDecoder, Conv1dEncoder
from vaezoo.nets.label_conditioned import LabelConditioned
from vaezoo.nets.log_input import LogInput
from vaezoo.nets.made import MADE
from vaezoo.nets.masked_input import MaskedInput, accept_missing
from vaezoo.nets.mlp import MLP
from vaezoo.nets.parts import PartDecoders, PartEncoders
from vaezoo.nets.resnet import ResidualBlock, ResNetDecoder, ResNetEncoder
from vaezoo.nets.sequence import SequenceEncoder
from vaezoo.nets.shares_decoder import SharesDecoder
from vaezoo.nets.spatial import SpatialDecoder, SpatialEncoder
from vaezoo.nets.token_input import TokenInput

__all__ = [
    "MADE",
    "MLP",
    "ContextConditioned",
    "Conv1dDecoder",
    "Conv1dEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "LabelConditioned",
    "LogInput",
    "MaskedInput",
    "PartDecoders",
    "PartEncoders",
    "Quantizer",
    "ResNetDecoder",
    "ResNetEncoder",
    "ResidualBlock",
    "SequenceEncoder",
    "SharesDecoder",
    "SpatialDecoder",
    "SpatialEncoder",
    "TokenInput",
    "accept_missing",
]
