"""Features of Inception-v3, which make an FID comparable with published ones."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn

IMAGES_PER_CHUNK = 50  # images at a time; each takes about 20 MB in the network


class Inception(nn.Module):
    """Inception-v3 of TensorFlow 2015, the network that defines the FID, as rebuilt by ``torch-fidelity``.

    Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium,
    https://arxiv.org/abs/1706.08500. The network resizes images to 299x299. Gray images are repeated to three channels.
    Pixels in [0, 1] are rounded to bytes, as in an image file.

    Args:
        weights: file with the weights of torch-fidelity, ``weights-inception-2015-12-05-6726825d.pth`` of its release
            v0.2.0. Nothing is downloaded.

    Raises:
        ImportError: torch-fidelity is not installed.
        FileNotFoundError: there is no such file.
        ValueError: the file does not hold these weights.
    """

    num_features = 2048

    def __init__(self, weights: str | Path):
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError("Inception's features need torch-fidelity: pip install 'vaezoo[inception]'") from error
        content = Path(weights).read_bytes()
        try:
            torch.load(io.BytesIO(content), weights_only=True)  # refuses code, which torch-fidelity would run
            self.net = FeatureExtractorInceptionV3("inception", ["2048"], io.BytesIO(content))
        except Exception as error:  # broken files raise many kinds of errors
            raise ValueError(
                f"{weights} does not hold the weights of Inception-v3: give the file of torch-fidelity, "
                f"weights-inception-2015-12-05-6726825d.pth"
            ) from error
        self.digest = hashlib.sha256(content).hexdigest()  # begins with 6726825d for the published file

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the features (N, 2048) of images (N, C, H, W) in [0, 1], C = 1 or 3."""
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"Inception takes images (N, 1 or 3, H, W), got a batch of shape {tuple(x.shape)}")
        images = (x.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        return torch.cat([self.net(part)[0] for part in images.split(IMAGES_PER_CHUNK)])

    def describe(self) -> str:
        """Describe the features in one line, for the foot of a table."""
        return f"{self.num_features} features of Inception-v3 (SHA-256 {self.digest[:12]})"
