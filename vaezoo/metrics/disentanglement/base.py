"""Array types and thresholds that the scores share."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
MIN_EXAMPLES = 10  # per value of each factor: enough for both parts of a split and for standard deviations
MIN_STD = 0.05  # dimensions with a smaller standard deviation have no vote in the FactorVAE score
MIN_KL = 0.01  # nats; dimensions with a smaller KL are ignored by the UDR
