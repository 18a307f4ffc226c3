"""Several named parts in one flat vector: the columns of a table by their kind, or several modalities."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from vaezoo.missing import to_float
from vaezoo.types import Shape

LARGEST_WHOLE = 2**24  # float32 holds all whole numbers up to this one


class Layout:
    """Names and shapes of the parts of a flat vector x (D,).

    x is one tensor of floats, so that it can be sliced, moved and stored like any other data. Whole numbers are exact
    up to 2^24 in float32.

    >>> layout = Layout({"image": (1, 2, 2), "caption": (3,)})
    >>> layout.size
    7
    >>> {name: part.shape for name, part in layout.split(torch.zeros(5, 7)).items()}
    {'image': torch.Size([5, 1, 2, 2]), 'caption': torch.Size([5, 3])}

    Args:
        shapes: the shape of each part, by name, in the order of the vector; () for one number.

    Raises:
        ValueError: there is no part, or a size is below 1.
    """

    def __init__(self, shapes: Mapping[str, Shape]):
        if not isinstance(shapes, Mapping) or not shapes:
            raise ValueError(f"a layout needs the shape of at least one part, by name, got {shapes}")
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        for name, shape in self.shapes.items():
            if not all(type(size) is int and size >= 1 for size in shape):
                raise ValueError(f"the part {name} of a layout needs integers >= 1 as its shape, got {list(shape)}")
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def __repr__(self) -> str:
        return f"Layout({self.shapes})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and list(self.shapes.items()) == list(other.shapes.items())

    def __hash__(self) -> int:
        return hash(tuple(self.shapes.items()))

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """Return views of the parts, (*batch, *shape) each, of x (*batch, D).

        Raises:
            ValueError: x has another size.
        """
        if x.shape[-1:] != (self.size,):
            raise ValueError(f"{self} has {self.size} numbers, but x has the shape {tuple(x.shape)}")
        parts = zip(self.shapes.items(), x.split(self.sizes, -1), strict=True)
        return {name: part.unflatten(-1, shape) if shape else part[..., 0] for (name, shape), part in parts}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return x (*batch, D) with these parts, (*batch, *shape) each. Missing whole numbers (-1) become NaN.

        The type is the widest of the parts' float types, and float32 at least.

        Raises:
            ValueError: the names or shapes are others, or a whole number is too large for the type.
        """
        if parts.keys() != self.shapes.keys():
            raise ValueError(f"{self} has the parts {list(self.shapes)}, got {list(parts)}")
        dtype = torch.float32
        for part in parts.values():
            dtype = torch.promote_types(dtype, part.dtype) if part.is_floating_point() else dtype
        flat = []
        for name, shape in self.shapes.items():
            part = parts[name]
            if part.shape[part.dim() - len(shape) :] != shape:
                raise ValueError(f"the part {name} needs the shape (*batch, {str(shape)[1:]}, got {tuple(part.shape)}")
            # An exported graph has no branch that depends on values.
            may_round = not part.is_floating_point() and dtype == torch.float32 and not torch.compiler.is_exporting()
            if may_round and (part > LARGEST_WHOLE).any():
                raise ValueError(
                    f"the part {name} has a whole number above 2^24, {part.max()}, which float32 rounds: use a part of "
                    f"real numbers, or smaller units"
                )
            flat.append(to_float(part, dtype).flatten(-len(shape)) if shape else to_float(part, dtype)[..., None])
        return torch.cat(flat, -1)
