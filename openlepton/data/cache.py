"""A cache of what was read from disk, in memory and of a stated size."""

from collections.abc import Callable
from threading import Lock

from openlepton.data.warp import Labelled
from openlepton.errors import UsageError


class ImageCache:
    """Keeps labelled images in memory until `max_bytes` of pixels and labels are held; safe from any number of threads.

    Nothing is ever thrown out: an epoch visits every image once, so whatever is thrown out would be missed as soon as what
    replaced it. A data set twice as large as the cache is read half from memory and half from disk.

    Args:
        max_bytes: The most bytes to hold; 0 keeps nothing.

    Raises:
        UsageError: `max_bytes` is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise UsageError(f"max_bytes: expected 0 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self._items: dict[int, Labelled] = {}
        self._held = 0
        self._lock = Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels and labels held now."""
        return self._held

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<ImageCache: {len(self):,} images, {self._held / 1e6:,.1f} of {self.max_bytes / 1e6:,.1f} MB>"

    def get(self, index: int, read: Callable[[int], Labelled]) -> Labelled:
        """Return the image of an index, from memory or else from `read`; its pixels are kept only if there is room."""
        found = self._items.get(index)
        if found is not None:
            return found
        item = read(index)  # outside the lock: two threads may read one image, and both get the same pixels
        size = _bytes(item)
        with self._lock:
            if index not in self._items and self._held + size <= self.max_bytes:
                item.image.flags.writeable = False
                self._items[index] = item
                self._held += size
        return item


def _bytes(item: Labelled) -> int:
    outlines = sum(part.nbytes for outline in item.outlines or () for part in outline)
    classes = 0 if item.class_map is None else item.class_map.nbytes
    return item.image.nbytes + item.boxes.nbytes + item.class_ids.nbytes + outlines + classes
