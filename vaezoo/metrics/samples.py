"""Metrics of images: sets of generated images against real ones, and reconstructions against their originals."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from vaezoo.metrics.base import BufferedMetric
from vaezoo.metrics.quantities import Quantity
from vaezoo.training.means import ExampleMean, accumulation_dtype

PROTOCOL = "{num_features} features, {num_real} real, {num_generated} generated"
QUANTITIES = {
    "fid": Quantity(
        "squared feature units",
        "Frechet distance of real and generated features; falls with N",
        -1,
        "FID",
        2,
        "main",
        PROTOCOL,
    ),
    "kid": Quantity(
        "squared MMD",
        "kernel distance of real and generated features, unbiased; may be negative",
        -1,
        "KID",
        protocol=PROTOCOL,
    ),
    "precision": Quantity(
        "share of generated images",
        "generated images in the 3-neighbour ball of a real image",
        1,
        protocol=PROTOCOL,
    ),
    "recall": Quantity(
        "share of real images",
        "real images in the 3-neighbour ball of a generated image",
        1,
        protocol=PROTOCOL,
    ),
    "density": Quantity(
        "ratio",
        "1/5 of the number of real images in whose 5-neighbour ball a generated image lies, mean",
        1,
        protocol=PROTOCOL,
    ),
    "coverage": Quantity(
        "share of real images", "real images in whose 5-neighbour ball a generated image lies", 1, protocol=PROTOCOL
    ),
    "num_features": Quantity("features", "dimensions of the feature space", label="number of features", column="run"),
    "num_real": Quantity("images", "real images compared", label="number of real images", column="run"),
    "num_generated": Quantity("images", "generated images compared", label="number of generated images", column="run"),
    "psnr": Quantity("dB", "mean over images of -10 log10 MSE, pixels in [0, 1]", 1, "PSNR"),
    "ssim": Quantity("structural similarity", "mean over images; 1 for equal images", 1, "SSIM"),
    "ms_ssim": Quantity(
        "structural similarity", "mean over images of the product over scales; 1 for equal images", 1, "MS-SSIM"
    ),
}


ROWS_PER_CHUNK = 1000  # rows of a matrix of pairs in memory at a time
PRECISION_NEIGHBORS = 3  # k of precision and recall
DENSITY_NEIGHBORS = 5  # k of density and coverage
SSIM_WINDOW = 11  # side of the window of SSIM, in pixels
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003


def fid(real: Tensor, fake: Tensor) -> float:
    """Return the Fréchet distance between the Gaussian fits of two sets of features:

        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^1/2)

    Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium,
    https://arxiv.org/abs/1706.08500. With S = R'R, R from the QR decomposition of the centered features, tr (S_1
    S_2)^1/2 is the sum of the singular values of R_1 R_2'. So no matrix is squared and no square root of rounding noise
    is taken. It also works if N < D.

    The FID is too large by about 1/N, even for two sets from one distribution. Compare FIDs of equal N only, and
    compare them with the FID of real images.

    Args:
        real: features (N, D).
        fake: features (M, D).
    """
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"fid needs at least 2 real and 2 generated images, got {len(real)} and {len(fake)}")
    real, fake = real.to(accumulation_dtype(real)), fake.to(accumulation_dtype(fake))
    first, second = (torch.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1), mode="r").R for x in (real, fake))
    shift = (real.mean(0) - fake.mean(0)).square().sum()
    overlap = torch.linalg.matrix_norm(first @ second.T, "nuc")
    return max(0.0, float(shift + first.square().sum() + second.square().sum() - 2 * overlap))


def kid(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy with k(x, y) = (x.y / D + 1)^3, and its standard error.

    Binkowski et al. 2018, Demystifying MMD GANs, https://arxiv.org/abs/1801.01401. This is the U-statistic over all
    pairs: unbiased for every N and M, with mean 0 if the distributions are equal. The paper averages over subsets of
    1,000, which has a larger variance and needs a seed. The standard error over both sets is the jackknife's. It is up
    to 1.4 times too large if the distributions are equal, and nan for fewer than 3 images.

    Args:
        real: features (N, D).
        fake: features (M, D).
    """
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise ValueError(f"kid needs at least 2 real and 2 generated images, got {n} and {m}")
    real, fake = real.to(accumulation_dtype(real)), fake.to(accumulation_dtype(fake))

    def sums(x: Tensor, y: Tensor) -> Tensor:  # row sums of k(x, y)
        return torch.cat([(part @ y.T / x.shape[1] + 1).pow(3).sum(1) for part in x.split(ROWS_PER_CHUNK)])

    def others(x: Tensor) -> Tensor:  # row sums of k(x, x) without its diagonal
        return sums(x, x) - (x.square().sum(1) / x.shape[1] + 1).pow(3)

    xx, yy, xy, yx = others(real), others(fake), sums(real, fake), sums(fake, real)
    within_x, within_y, between = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1)), xy.sum() / (n * m)
    without_x = (xx.sum() - 2 * xx) / ((n - 1) * (n - 2)) + within_y - 2 * (xy.sum() - xy) / ((n - 1) * m)
    without_y = (yy.sum() - 2 * yy) / ((m - 1) * (m - 2)) + within_x - 2 * (yx.sum() - yx) / ((m - 1) * n)
    variance = sum((len(t) - 1) * t.var(unbiased=False) for t in (without_x, without_y))
    return float(within_x + within_y - 2 * between), float(variance) ** 0.5


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|, (N, M), without a matrix product, in which the distances of near points lose their digits."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def neighbor_distances(x: Tensor, k: int) -> Tensor:
    """Return the distances of each of x (N, D) to its k nearest others, the nearest first: (N, k)."""
    if len(x) <= k:
        raise ValueError(f"the {k} nearest neighbours of an image need at least {k + 1} images, got {len(x)}")
    parts = tqdm(x.split(ROWS_PER_CHUNK), "nearest neighbours", leave=False, disable=None, delay=3)
    return torch.cat([pairwise_distances(part, x).topk(k + 1, largest=False).values[:, 1:] for part in parts])


def precision_recall_density_coverage(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return the contribution of each image to precision, recall, density and coverage.

    Kynkäänniemi et al. 2019, Improved Precision and Recall Metric for Assessing Generative Models,
    https://arxiv.org/abs/1904.06991; Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models,
    https://arxiv.org/abs/2002.09797. Around each image is a ball that reaches to its k-th nearest neighbor of the same
    set, with k = 3 for precision and recall and k = 5 for density and coverage:

        precision_j = 1 if fake_j is in the ball of any real image
        recall_i    = 1 if real_i is in the ball of any generated image
        density_j   = 1/k of the number of real images whose ball contains fake_j
        coverage_i  = 1 if any generated image is in the ball of real_i

    A ball includes its border, as in both papers; their programs exclude it, which matters if images are repeated. For
    two sets from one distribution the mean of density is 1, and coverage is about 1 - 2^-5 = 0.969.

    Args:
        real: features (N, D).
        fake: features (M, D).

    Returns:
        precision and density (M,), recall and coverage (N,).
    """
    real, fake = real.to(accumulation_dtype(real)), fake.to(accumulation_dtype(fake))
    reach = neighbor_distances(real, max(PRECISION_NEIGHBORS, DENSITY_NEIGHBORS))
    small, large = reach[:, PRECISION_NEIGHBORS - 1], reach[:, DENSITY_NEIGHBORS - 1]
    own = neighbor_distances(fake, PRECISION_NEIGHBORS)[:, -1:]
    recall, coverage = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    precision, density = [], []
    pairs = list(zip(fake.split(ROWS_PER_CHUNK), own.split(ROWS_PER_CHUNK), strict=True))
    for part, radius in tqdm(pairs, "precision and recall", leave=False, disable=None, delay=3):
        apart = pairwise_distances(part, real)
        precision.append((apart <= small).any(1))
        density.append((apart <= large).sum(1).to(apart.dtype) / DENSITY_NEIGHBORS)
        recall |= (apart <= radius).any(0)
        coverage |= (apart <= large).any(0)
    parts = {"precision": torch.cat(precision), "recall": recall, "density": torch.cat(density), "coverage": coverage}
    return {name: part.to(real.dtype) for name, part in parts.items()}


class SampleMetrics(BufferedMetric):
    """Metrics of generated images against real ones, from their features (``vaezoo.evaluation.features``).

    The arguments of ``update`` are the features ``real`` (N, D) and ``fake`` (M, D), in batches that may have different
    sizes. ``compute`` returns ``fid``, ``kid``, ``precision``, ``recall``, ``density``, ``coverage``, ``num_features``,
    ``num_real`` and ``num_generated``. ``kid_error`` is the standard error over real and generated images,
    ``precision_error`` and ``density_error`` over generated images, ``recall_error`` and ``coverage_error`` over real
    images, with the balls unchanged.

    ``references`` gives the values of real training images under the same protocol.
    """

    buffer_names = ("real", "fake")

    def compute(self) -> dict[str, float]:
        real, fake = self.buffered().values()
        distance, error = kid(real, fake)
        values = {"fid": fid(real, fake), "kid": distance} | ({"kid_error": error} if math.isfinite(error) else {})
        if len(real) > DENSITY_NEIGHBORS and len(fake) > PRECISION_NEIGHBORS:  # else an image has too few neighbours
            for name, part in precision_recall_density_coverage(real, fake).items():
                values |= {name: float(part.mean()), f"{name}_error": float(part.std()) / math.sqrt(len(part))}
        counts = {"num_features": real.shape[1], "num_real": len(real), "num_generated": len(fake)}
        return values | {name: float(count) for name, count in counts.items()}


def references(values: dict[str, float]) -> dict[str, float]:
    """Return ``NAME_reference`` of each metric, from the metrics of training images in place of generated ones.

    As many training images as were generated stand for the samples of a perfect model. ``fid_reference``, their FID to
    the test set, is the bias for this N and the difference between training and test set. A reference is no bound:
    samples that are all alike can have a higher precision, and samples that are widely spread a higher recall. If only
    a part of the test images is used, it must be drawn at random: the first 5,000 of MNIST are easier.

    Args:
        values: the result of ``SampleMetrics.compute``.
    """
    judged = [name for name, quantity in QUANTITIES.items() if quantity.better and name in values]
    return {f"{name}_reference": values[name] for name in judged}


def scale_weights(height: int, width: int) -> tuple[float, ...]:
    """Return the weights of the scales of MS-SSIM for images of a size: the first ones of Wang et al. 2003, with sum 1.

    Each scale has half the side of the one before, and the window must fit in the coarsest scale: five scales need a
    side of 176 pixels, four 88, three 44, two 22 (so 28x28 and 32x32 have two).

    >>> [round(weight, 4) for weight in scale_weights(28, 28)]
    [0.1356, 0.8644]
    """
    weights = [weight for scale, weight in enumerate(SCALE_WEIGHTS) if min(height, width) // 2**scale >= SSIM_WINDOW]
    return tuple(weight / sum(weights) for weight in weights)


def ssim_and_contrast(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM of images (N, C, H, W), and its factor of contrast and structure: (N,) each.

    The mean is taken over the positions at which the window is inside the image, as in Wang et al. 2004. (torchmetrics
    includes a mirrored border, which gives another number for the black margins of MNIST.)
    """
    offsets = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    taps = torch.exp(-offsets.square() / (2 * 1.5**2))
    taps = taps / taps.sum()

    def smooth(image: Tensor) -> Tensor:
        planes = F.conv2d(image.flatten(0, 1).unsqueeze(1), taps.reshape(1, 1, -1, 1))
        return F.conv2d(planes, taps.reshape(1, 1, 1, -1)).reshape(len(image), -1)

    mean_x, mean_y = smooth(x), smooth(y)
    variances = smooth(x.square() + y.square()) - mean_x.square() - mean_y.square()
    contrast = (2 * (smooth(x * y) - mean_x * mean_y) + 0.03**2) / (variances + 0.03**2)
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x.square() + mean_y.square() + 0.01**2)
    return (luminance * contrast).mean(1), contrast.mean(1)


def reconstruction_scores(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the similarity of each reconstruction to its original, float64 (N,) each.

    * ``psnr``: -10 log10 MSE, in dB; inf if both are equal.
    * ``ssim``: Wang et al. 2004, Image Quality Assessment, https://doi.org/10.1109/TIP.2003.819861, with its 11x11
      window of sigma 1.5, K = (0.01, 0.03) and pixels in [0, 1]; missing for images below 11 pixels.
    * ``ms_ssim``: Wang et al. 2003, Multiscale structural similarity for image quality assessment,
      https://doi.org/10.1109/ACSSC.2003.1292216, with fewer scales for images below 176 pixels (``scale_weights``);
      missing for images below 22 pixels. A negative factor, which has no power, counts as 0.

    Values of color images are means over channels.

    Args:
        x: originals (N, C, H, W) in [0, 1].
        y: reconstructions, of the same shape; clipped to [0, 1].

    Raises:
        ValueError: the shapes differ or are not (N, C, H, W).
    """
    if x.shape != y.shape or x.dim() != 4:
        raise ValueError(f"expected two batches of images (N, C, H, W), got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = (image.to(accumulation_dtype(image)).clamp(0, 1) for image in (x, y))
    values = {"psnr": -10 * (x - y).square().flatten(1).mean(1).log10()}
    factors: list[Tensor] = []
    weights = scale_weights(*x.shape[2:])
    for weight in weights:
        ssim, contrast = ssim_and_contrast(x, y)
        values.setdefault("ssim", ssim)
        last = len(factors) == len(weights) - 1
        factors.append((ssim if last else contrast).clamp(min=0) ** weight)
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    if len(factors) > 1:
        values["ms_ssim"] = torch.stack(factors).prod(0)
    return values


class ReconstructionMetrics(ExampleMean):
    """Means over images of ``reconstruction_scores``, with standard errors over images if there are several.

    The mean of PSNRs is not the PSNR of the mean error. It is missing if the PSNR of an image is infinite.

    Attributes:
        num_exact: number of reconstructions that equal their image, whose PSNR is infinite; known after ``compute``.
    """

    num_exact = 0

    def update(self, x: Tensor, y: Tensor) -> None:  # type: ignore[override]  # takes images, not values
        """Add a batch: originals x and reconstructions y, as in ``reconstruction_scores``."""
        values = reconstruction_scores(x, y)
        values["exact"] = values["psnr"].isinf().double()
        super().update(values | {f"{name}_square": value.square() for name, value in values.items()})

    def compute(self) -> dict[str, float]:  # type: ignore[override]
        means = {name: float(mean) for name, mean in super().compute().items()}
        num = int(self.count)
        self.num_exact = round(means.pop("exact") * num)
        values: dict[str, float] = {}
        for name in [name for name in means if not name.endswith("_square") and math.isfinite(means[name])]:
            values[name] = means[name]
            if num > 1:
                variance = means[f"{name}_square"] - means[name] ** 2
                values[f"{name}_error"] = math.sqrt(max(0.0, variance) / (num - 1))
        return values
