"""Array types and thresholds that the scores share."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
MIN_EXAMPLES = 10  # of each value of each factor, so that both parts of a split hold some and spreads mean something
MIN_STD = 0.05  # below it a dimension has no vote in the FactorVAE score
MIN_KL = 0.01  # nats: with less KL a dimension does not count in the UDR
