"""
Whether a confidence of 0.8 is right in 8 cases of 10, and a temperature that makes it so.

The expected calibration error is that of Guo et al. (On calibration of modern neural networks,
ICML 2017, section 2) over pixels: 15 bins of equal width, in each the distance between the mean
confidence and the share of right pixels, weighted with the bin's share of the pixels. A
temperature divides the logits before the softmax (section 4.2 there): it changes no label.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from training.datasets import VOID

BINS = 15

#: Where a temperature is looked for; a useful network lies well within.
TEMPERATURES = (0.05, 20.0)


@dataclasses.dataclass(frozen=True)
class Bin:
    """Pixels whose confidence lies in (``low``, ``high``]; NaN where there is none."""

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


class Reliability:
    """
    How often a reported confidence was right.

    ``pixels`` and ``right`` are ``int64[256]``, by the reported ``uint8`` confidence. Void pixels,
    and those that the model left unlabeled, are not counted.

    """

    def __init__(self) -> None:
        self.pixels = np.zeros(256, np.int64)
        self.right = np.zeros(256, np.int64)

    def update(
        self, labels: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.uint8],
    ) -> None:
        """
        Count one frame.

        Parameters
        ----------
        labels, predicted : uint8[H, W]
            True and predicted class ids; 255 is void or unlabeled.
        confidence : uint8[H, W]
            Probability of the predicted class times 255.

        """
        judged = (labels != VOID) & (predicted != VOID)
        self.pixels += np.bincount(confidence[judged], minlength=256)
        self.right += np.bincount(confidence[judged & (labels == predicted)], minlength=256)

    def __iadd__(self, other: Reliability) -> Reliability:
        self.pixels += other.pixels
        self.right += other.right
        return self

    def bins(self) -> tuple[Bin, ...]:
        """Return the reliability diagram."""
        values = np.arange(256)
        # 255 = 15 * 17: bin edges fall on whole values; each belongs to the bin below it.
        places = np.maximum(values - 1, 0) * BINS // 255
        found = []
        for place in range(BINS):
            inside = places == place
            pixels = int(self.pixels[inside].sum())
            sums = (values[inside] * self.pixels[inside]).sum() / 255, self.right[inside].sum()
            confidence, accuracy = (
                float(value / pixels) if pixels else float('nan') for value in sums)
            found.append(Bin(place / BINS, (place + 1) / BINS, pixels, confidence, accuracy))
        return tuple(found)

    def ece(self) -> float:
        """Return the expected calibration error; NaN if nothing was counted."""
        return _ece(self.bins())


def _ece(bins: tuple[Bin, ...]) -> float:
    total = sum(part.pixels for part in bins)
    if not total:
        return float('nan')
    return sum(part.pixels * abs(part.confidence - part.accuracy)
               for part in bins if part.pixels) / total


@dataclasses.dataclass(frozen=True)
class TemperatureFit:
    """
    What a temperature does to the confidence, and how sure the choice is.

    ``ece`` and ``nll`` (mean negative log-likelihood in nats a pixel) are of temperature 1,
    ``ece_fitted`` and ``nll_fitted`` of ``temperature``.

    """

    temperature: float
    nll: float
    nll_fitted: float
    ece: float
    ece_fitted: float
    pixels: int


def reliability_of(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], temperature: float,
) -> tuple[float, float]:
    """
    Score logits at a temperature.

    Parameters
    ----------
    logits : float[N, C]
    labels : integer[N]
        True class ids below C.
    temperature : float

    Returns
    -------
    (float, float)
        Mean negative log-likelihood in nats, expected calibration error.

    """
    scaled = np.asarray(logits, np.float32) / np.float32(temperature)
    scaled -= scaled.max(-1, keepdims=True)
    total = np.exp(scaled).sum(-1)
    nll = float((np.log(total) - scaled[np.arange(len(labels)), labels]).mean())
    counted = Reliability()
    counted.update(
        np.asarray(labels, np.uint8), scaled.argmax(-1).astype(np.uint8),
        np.round(255 / total).astype(np.uint8))
    return nll, counted.ece()


def fit_temperature(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer],
) -> TemperatureFit:
    """
    Find the temperature of the least negative log-likelihood (Guo et al., section 4.2).

    Parameters
    ----------
    logits : float[N, C]
        Of pixels on which the model was not trained.
    labels : integer[N]
        True class ids below C.

    Returns
    -------
    TemperatureFit
        To two decimals.

    Raises
    ------
    ValueError
        If there are no pixels.

    """
    if not len(labels):
        raise ValueError('temperature: found no labelled pixels, expected at least one.')

    def nll(temperature: float) -> float:
        return reliability_of(logits, labels, temperature)[0]

    # The likelihood is unimodal in the temperature: golden section in its logarithm.
    low, high = (float(np.log(edge)) for edge in TEMPERATURES)
    golden = (np.sqrt(5) - 1) / 2
    inner = [high - golden * (high - low), low + golden * (high - low)]
    values = [nll(float(np.exp(point))) for point in inner]
    while high - low > 0.005:
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - golden * (high - low)
            values[0] = nll(float(np.exp(inner[0])))
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + golden * (high - low)
            values[1] = nll(float(np.exp(inner[1])))
    temperature = round(float(np.exp((low + high) / 2)), 2)
    before, after = (reliability_of(logits, labels, value) for value in (1.0, temperature))
    return TemperatureFit(
        temperature, before[0], after[0], before[1], after[1], len(labels))
