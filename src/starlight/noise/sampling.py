"""Random numbers that a seed determines, on every platform and with every version of numpy.

Only the raw words of numpy's Philox4x64-10 are used: they are a published counter-based function
(Salmon et al., SC 2011) of (seed, stream, index), while numpy keeps the right to change what its
`Generator.normal` and `Generator.poisson` make of them. Sample i of a stream comes from word i, by
inversion, in the portable arithmetic of this package.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from starlight.noise.portable import Float64, exp, horner, log

# Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988): numerator and denominator,
# highest power first, for the centre |p - 1/2| <= 0.425 and the two parts of the tail.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_TAIL = (
    (7.7454501427834140764e-4, 2.27238449892691845833e-2, 2.4178072517745061177e-1,
     1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959,
     1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 1.51986665636164571966e-2,
     1.4810397642748007459e-1, 6.8976733498510000455e-1, 1.6763848301838038494,
     2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.2426609473880784386e-3,
     2.65321895265761230930e-2, 2.9656057182850489123e-1, 1.7848265399172913358,
     5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
     7.868691311456132591e-4, 1.48753612908506148525e-2, 1.3692988092273580531e-1,
     5.9983220655588793769e-1, 1.0),
)  # fmt: skip


def uniform(seed: int, stream: int, first: int, count: int) -> Float64:
    """Samples first .. first + count - 1 of a stream: float64 in the open interval (0, 1).

    Each is (top 52 bits + 1/2) * 2^-52 of its word. seed and stream are the two 64-bit halves of
    Philox's key; first is a multiple of 4, the words of one counter. Raises ValueError when seed
    is not in 0 .. 2^64 - 1.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"noise: seed must lie in 0..2^64-1, got {seed}")
    assert first % 4 == 0
    words = np.random.Philox(counter=first // 4, key=(stream << 64) | seed).random_raw(count)
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(uniforms: Float64) -> Float64:
    """Standard normal float64 from uniforms in (0, 1), by AS 241's inverse."""
    q = uniforms - 0.5
    z = np.empty_like(q)
    centre = np.abs(q) <= 0.425
    inner = q[centre]
    r = 0.180625 - inner * inner
    z[centre] = inner * horner(r, _CENTRE[0]) / horner(r, _CENTRE[1])
    outer = ~centre
    r = np.sqrt(-log(np.minimum(uniforms[outer], 1.0 - uniforms[outer])))
    near, far = r - 1.6, r - 5.0
    tail = np.where(
        r <= 5.0,
        horner(near, _TAIL[0]) / horner(near, _TAIL[1]),
        horner(far, _FAR_TAIL[0]) / horner(far, _FAR_TAIL[1]),
    )
    z[outer] = np.copysign(tail, q[outer])
    return z


def poisson(mean: Float64, whole: Float64, fraction: Float64) -> NDArray[np.int64]:
    """Poisson counts of the given means >= 0, exact to the 52 bits of the uniforms.

    A Poisson count of mean m is the sum of independent ones of means floor(m) and m - floor(m):
    `whole` and `fraction` are their uniforms, of mean's shape. The first is inverted on a table per
    integer, the second by adding up its terms.
    """
    floor = np.floor(mean)
    rest = mean - floor
    counts = _poisson_of_integers(floor.astype(np.int64).ravel(), whole.ravel()).reshape(mean.shape)
    term = exp(-rest)
    cumulative = term.copy()
    j = 0
    while (above := fraction > cumulative).any() and j < 32:  # 1 / 32! is far below 2^-52
        counts += above
        j += 1
        term = term * rest / j
        cumulative += term
    return counts


def _poisson_of_integers(means: NDArray[np.int64], uniforms: Float64) -> NDArray[np.int64]:
    counts = np.zeros(means.shape, np.int64)
    order = np.argsort(means, kind="stable")
    levels, starts = np.unique(means[order], return_index=True)
    for level, members in zip(levels, np.split(order, starts[1:]), strict=True):
        if level > 0:
            first, cdf = _poisson_table(int(level))
            counts[members] = first + np.searchsorted(cdf, uniforms[members])
    return counts


@lru_cache(maxsize=4096)
def _poisson_table(mean: int) -> tuple[int, Float64]:
    """(first count, cumulative probabilities from it on) of an integer mean > 0.

    Terms are built outwards from the mode by p(j) = p(j - 1) mean / j and scaled to sum to one;
    10 deviations and 20 counts to each side leave out less than 2^-52.
    """
    reach = int(10.0 * np.sqrt(mean)) + 20
    first = max(mean - reach, 0)
    down = np.cumprod(np.arange(mean, first, -1, dtype=np.float64) / mean)[::-1]
    up = np.cumprod(mean / np.arange(mean + 1, mean + reach + 1, dtype=np.float64))
    cdf = np.cumsum(np.concatenate([down, [1.0], up]))
    return first, cdf / cdf[-1]
