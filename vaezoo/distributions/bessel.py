"""Logarithms and ratios of modified Bessel functions, in float64, and the area of the sphere."""

import math
from fractions import Fraction
from itertools import zip_longest

import torch
from torch import Tensor

Polynomial = list[Fraction]  # coefficients of 1, t, t^2, ...


def debye_polynomials(num: int) -> tuple[list[Polynomial], list[Polynomial]]:
    """Return u_k and v_k for k = 0 ... num - 1: the polynomials of the uniform expansions of I and of its derivative.

    Reference: Digital Library of Mathematical Functions, https://dlmf.nist.gov/10.41, eq. 9 to 11.
    """

    def add(*terms: Polynomial) -> Polynomial:
        return [sum(c, Fraction(0)) for c in zip_longest(*terms, fillvalue=Fraction(0))]

    def times(p: Polynomial, factor: Fraction, power: int) -> Polynomial:
        return [Fraction(0)] * power + [factor * c for c in p]

    us, vs = [[Fraction(1)]], [[Fraction(1)]]
    one, half, eighth = Fraction(1), Fraction(1, 2), Fraction(1, 8)
    for _ in range(num - 1):
        u = us[-1]
        slope = [k * c for k, c in enumerate(u)][1:]
        inside = add(u, times(u, Fraction(-5), 2))
        integral = [Fraction(0), *(c / (k + 1) for k, c in enumerate(inside))]
        us.append(add(times(slope, half, 2), times(slope, -half, 4), times(integral, eighth, 0)))
        vs.append(add(us[-1], times(u, -half, 1), times(u, half, 3), times(slope, -one, 2), times(slope, one, 4)))
    return us, vs


U, V = ([[float(c) for c in p] for p in ps] for ps in debye_polynomials(12))
MIN_ORDER = 25  # from this order on, the error of the expansion is below the rounding of float64


def sum_expansion(polynomials: list[list[float]], t: Tensor, order: float) -> Tensor:
    """Return sum_{k >= 1} p_k(t) / order^k."""
    total = torch.zeros_like(t)
    for k in reversed(range(1, len(polynomials))):
        value = torch.zeros_like(t)
        for c in reversed(polynomials[k]):
            value = value * t + c
        total = (total + value) / order
    return total


def log_bessel_and_ratio(order: float, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """Return ln 0F1(order + 1; kappa^2 / 4) and its derivative, the ratio I_{order+1}(kappa) / I_order(kappa).

    The first is ln[I_order(kappa) Gamma(order + 1) (2 / kappa)^order]. Both are accurate for every kappa > 0 whose
    square does not underflow. At a high order, Debye's uniform expansion gives both. With F_v = 0F1(v + 1; kappa^2 / 4)
    and rho_v = F_{v+1} / F_v, the recurrence

        F_{v-1} / F_v = 1 + kappa^2 rho_v / (4 v (v + 1))

    then goes down to the given order. All its terms are positive, so no digits cancel.

    Args:
        order: order of the Bessel function, >= 0.
        kappa: the argument, > 0, float64, any shape.
    """
    steps = max(2, math.ceil(MIN_ORDER - order))  # two steps remove the rounding error of rho at small kappa
    top = order + steps
    z = kappa / top
    root = torch.sqrt(1 + z.square())
    more = z.square() / (1 + root)  # root - 1, in full precision
    at_zero = sum(sum(p) / top**k for k, p in enumerate(U) if k > 0)  # u at z = 0: Stirling's series of Gamma
    u, v = sum_expansion(U, 1 / root, top), sum_expansion(V, 1 / root, top)
    log_f = top * (more - torch.log1p(more / 2)) - root.log() / 2 + torch.log1p(u) - math.log1p(at_zero)
    # From the derivative of I: I_{v+1} / I_v = I'_v / I_v - v / kappa.
    rho = 2 * (top + 1) / (top * z.square()) * (more + root * (v - u) / (1 + u))
    for step in range(steps):
        order_above = top - step
        ratio = kappa.square() * rho / (4 * order_above * (order_above + 1))
        log_f = log_f + torch.log1p(ratio)
        rho = 1 / (1 + ratio)
    return log_f, kappa * rho / (2 * (order + 1))


def log_area(dim: int) -> float:
    """Return the logarithm of the area of the unit sphere in R^D, 2 pi^(D/2) / Gamma(D/2)."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
