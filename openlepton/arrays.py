"""Names for arrays, and the legend of the letters in their shapes.

=======  ==========================================================
letter   meaning
=======  ==========================================================
B        images in a batch
C        classes, or channels where a layout such as CHW says so
H, W     height and width in pixels
h, w     height and width of a coarser grid, in cells
N        boxes, detections, rows
=======  ==========================================================
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""`(H, W, 3)` RGB, 0 to 255."""

ClassMap = NDArray[np.uint8]
"""`(H, W)` the class id of each pixel; in labels, `UNKNOWN` where it is not known."""

UNKNOWN = 255
"""What a class map says where the class of a pixel is not known: neither learned from nor counted."""

Boxes = NDArray[np.float32]
"""`(N, 4)` x1, y1, x2, y2 in pixels of the original image; other forms are named (`boxes_cxcywh`)."""

Floats = NDArray[np.float32]
"""Single-precision numbers of any shape; the docstring says which."""

Ints = NDArray[np.int64]
"""Indices or class ids, `(N,)` unless said otherwise."""

Bools = NDArray[np.bool_]
"""Flags of any shape; the docstring says which."""

Array = NDArray[Any]
"""An array of any type."""

Tensors = dict[str, Array]
"""What goes into a runtime and what comes out: arrays by name."""
