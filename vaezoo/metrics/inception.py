"""The features of Inception-v3, for who has its weights: with them an FID can be compared with published ones."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn

IMAGES_PER_CHUNK = 50  # images at a time: each takes some 20 MB within the network


class Inception(nn.Module):
    """The network by which FID is defined (Heusel et al. 2017, https://arxiv.org/abs/1706.08500): Inception-v3 as
    TensorFlow had it in 2015, rebuilt by ``torch-fidelity``, its resizing to 299x299 included.

    Grey images are shown as grey colours. Pixels in [0, 1] become bytes, as in a picture's file.

    Args:
        weights: file with torch-fidelity's weights, ``weights-inception-2015-12-05-6726825d.pth`` of its release
            v0.2.0; nothing is downloaded.

    Raises:
        ImportError: torch-fidelity is not installed.
        FileNotFoundError: no such file.
        ValueError: the file holds no such weights.
    """

    num_features = 2048

    def __init__(self, weights: str | Path):
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError("features of Inception need torch-fidelity: pip install 'vaezoo[inception]'") from error
        content = Path(weights).read_bytes()
        try:
            torch.load(io.BytesIO(content), weights_only=True)  # tensors alone: the network itself would run any code
            self.net = FeatureExtractorInceptionV3("inception", ["2048"], io.BytesIO(content))
        except Exception as error:  # whatever other bytes lead to
            raise ValueError(
                f"{weights} holds no weights of Inception-v3: give torch-fidelity's "
                f"weights-inception-2015-12-05-6726825d.pth"
            ) from error
        self.digest = hashlib.sha256(content).hexdigest()  # of the published file, it begins with 6726825d

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The features (N, 2048) of images (N, C, H, W) in [0, 1], C = 1 or 3."""
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"Inception takes images (N, 1 or 3, H, W), got a batch of shape {tuple(x.shape)}")
        images = (x.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        return torch.cat([self.net(part)[0] for part in images.split(IMAGES_PER_CHUNK)])

    def describe(self) -> str:
        """One line for a table's foot: what the features are."""
        return f"{self.num_features} features of Inception-v3 (SHA-256 {self.digest[:12]})"
