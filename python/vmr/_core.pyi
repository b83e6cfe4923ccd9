import numpy as np
import numpy.typing as npt

def build_config() -> dict[str, str]:
    """What this build was made of (empty where a part is absent) and the CPU instruction set in use."""

def convolution_size(frames: int, kernel: int) -> int:
    """The FFT size that a convolution of maps of up to ``frames`` points an axis takes; 0: directly."""

def average_precisions(
    predictions: npt.NDArray[np.float64],
    prediction_offsets: npt.NDArray[np.int64],
    truths: npt.NDArray[np.float64],
    truth_offsets: npt.NDArray[np.int64],
    thresholds: npt.NDArray[np.float64],
    *,
    most_predictions: int,
    length_range: tuple[float, float] | None,
    as_published: bool,
    threads: int,
) -> npt.NDArray[np.float64]:
    """Average precision of each query's predictions at IoU thresholds, [Q, T]."""

def best_overlaps(
    predictions: npt.NDArray[np.float64],
    prediction_offsets: npt.NDArray[np.int64],
    truths: npt.NDArray[np.float64],
    truth_offsets: npt.NDArray[np.int64],
    tops: npt.NDArray[np.int64],
    *,
    length_range: tuple[float, float] | None,
    as_published: bool,
    threads: int,
) -> npt.NDArray[np.float64]:
    """Highest IoU among each query's first predictions, [Q, K]; 0 of ``tops`` means all."""

def highlight_precisions(
    scores: npt.NDArray[np.float64],
    score_offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float64],
    label_offsets: npt.NDArray[np.int64],
    levels: npt.NDArray[np.float64],
    *,
    threads: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Average precision and hit of clips at levels, each [Q, L]."""

def ranked_precisions(
    scores: npt.NDArray[np.float64],
    score_offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float64],
    label_offsets: npt.NDArray[np.int64],
    *,
    top: int,
    above_median: bool,
    threads: int,
) -> npt.NDArray[np.float64]:
    """Average precision over the clips ranked highest, [Q]; 0 of ``top`` means all."""
