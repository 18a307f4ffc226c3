"""Planes in the latent space, for a map of the codes."""

from typing import NamedTuple

import torch
from sklearn.decomposition import PCA
from torch import Tensor


class Plane(NamedTuple):
    """A plane in the latent space: origin + a basis[0] + b basis[1].

    Args:
        name: what it is, for a choice.
        labels: the names of its two axes.
        origin: the point (0, 0), float64 (L,), L the number of entries of a code.
        basis: two orthonormal vectors, float64 (2, L). The second one is 0 if there is one latent dimension.
    """

    name: str
    labels: tuple[str, str]
    origin: Tensor
    basis: Tensor

    def project(self, codes: Tensor) -> Tensor:
        """Return the coordinates in the plane, (N, 2), of codes (N, *latent_shape)."""
        return (codes.flatten(1).double().cpu() - self.origin) @ self.basis.T

    def inverse(self, points: Tensor) -> Tensor:
        """Return the codes (N, L) at points (N, 2) of the plane."""
        return self.origin + points.double() @ self.basis


def axis_plane(mean: Tensor, first: int, second: int | None) -> Plane:
    """Return the plane of two latent dimensions through the mean of the codes (L,). Its coordinates are z itself."""
    dims = [d for d in (first, second) if d is not None]
    origin, basis = mean.clone(), mean.new_zeros(2, len(mean))
    origin[dims] = 0
    basis[range(len(dims)), dims] = 1
    names = [f"z{d}" for d in dims]
    return Plane(" and ".join(names), (names[0], names[-1] if second is not None else ""), origin, basis)


def pca_plane(codes: Tensor) -> Plane:
    """Return the plane of the first two principal components of codes (N, L), N and L >= 2."""
    pca = PCA(2, random_state=0).fit(codes.numpy())
    shares = [f"component {i}, {100 * share:.0f} % of the variance" for i, share in enumerate(shares_of(pca), 1)]
    origin, basis = (torch.from_numpy(part) for part in (pca.mean_, pca.components_))
    return Plane("PCA of the codes", (shares[0], shares[1]), origin, basis)


def shares_of(pca: PCA) -> list[float]:
    """Return the share of the variance of each component; 0 if all codes are equal."""
    return [float(share) for share in torch.from_numpy(pca.explained_variance_ratio_).nan_to_num()]
