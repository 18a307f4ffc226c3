"""Write a trained model to files that run without vaezoo: ONNX, ``torch.export`` and safetensors.

* ``preprocessing``: from the user's numbers to x and back;
* ``outputs``: the parameters of q(z | x) and p(x | z) by name;
* ``functions``: the encoder and the decoder as functions of tensors;
* ``files``: write the files and open them;
* ``comparison``: the largest difference between a file and the model;
* ``model``: all files of a model.
"""

from vaezoo.export.comparison import FileReport
from vaezoo.export.files import check_packages
from vaezoo.export.model import export_model

__all__ = ["FileReport", "check_packages", "export_model"]
