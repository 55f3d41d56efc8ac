"""A null for directions: words that mean something else.

A head may well treat every relation word differently and yet know nothing of space: a network with
random weights does. So what is drawn at random is what the words mean. The vectors are regressed on
the presence of each direction word; every word's coefficient, the way the map moves when the word
is there, is turned by an independent uniform angle. Phrases share words ("left of", "to the upper
left of"), which is why labels of phrases may not be shuffled as if they were independent: that
would call random networks significant.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def random_meaning(
    values: Floats, target: Floats, words: Floats, draws: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """The part of a covariance with the target that words make, [unit], and its null [draw, unit].

    `values` [prompt, unit, xy] are vectors, `target` [prompt, xy] where they should point, `words`
    [prompt, word] how much of each word is in the prompt.
    """
    design = words - words.mean(axis=0)
    flat = (values - values.mean(axis=0)).reshape(len(values), -1)
    inverse = np.linalg.pinv(design)
    coefficient = (inverse @ flat).reshape(design.shape[1], -1, 2)
    pull = design.T @ target / len(values)
    # Turning a coefficient by an angle mixes its dot and cross product with the pull.
    dot = np.einsum("whc,wc->wh", coefficient, pull)
    cross = coefficient[:, :, 0] * pull[:, None, 1] - coefficient[:, :, 1] * pull[:, None, 0]
    angle = generator.uniform(0, 2 * np.pi, (draws, design.shape[1]))
    # Words that always come one or the other are known only up to a constant, which makes their
    # coefficients too short; without this the null would be too narrow.
    leverage = np.diag(inverse @ design)
    length = np.where(leverage > 1e-9, leverage, 1) ** -0.5
    null = np.cos(angle) @ (dot * length[:, None]) + np.sin(angle) @ (cross * length[:, None])
    return dot.sum(axis=0), null


def random_meaning_p(
    values: Floats, target: Floats, words: Floats, draws: int, generator: np.random.Generator
) -> Floats:
    """Two-sided p-value [...] of vectors [prompt, ..., xy]; the rest as in `random_meaning`."""
    flat = values.reshape(len(values), -1, 2)
    observed, null = random_meaning(flat, target, words, draws, generator)
    exceeded = (np.abs(null) >= np.abs(observed)).sum(axis=0)
    return ((exceeded + 1) / (draws + 1)).reshape(values.shape[1:-1])


def token_positions(grid: tuple[int, int]) -> Floats:
    """Positions r [token, xy] of the image tokens in [-1, 1], row-major."""
    height, width = grid
    y, x = np.meshgrid(
        (2 * np.arange(height) + 1 - height) / height,
        (2 * np.arange(width) + 1 - width) / width,
        indexing="ij",
    )
    return np.stack([x.ravel(), y.ravel()], axis=-1)
