"""Image classification: the central square before the graph, named probabilities after it."""

from dataclasses import dataclass

from openlepton.arrays import Image, Tensors
from openlepton.card import ImageInput
from openlepton.errors import UsageError
from openlepton.images import LIMITS, Limits, Source, read_scaled
from openlepton.ops.geometry import Frame, center_crop, resize, to_tensor
from openlepton.results import Classification


@dataclass(frozen=True)
class Classify:
    """What surrounds the graph of an image classifier.

    Raises:
        UsageError: `top` is less than 1, or `min_score` is out of range.
    """

    input: ImageInput
    names: tuple[str, ...]
    top: int = 5
    """How many classes a result lists when it is printed."""
    min_score: float | None = None
    """What classes that are there score more than, for a model that reports any number of them; None where one is right."""
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"top: expected 1 or more, got {self.top}")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score: expected 0 to 1, got {self.min_score}")

    def prepare(self, source: Source) -> tuple[Tensors, Frame]:
        """Return what the graph takes, `images (3,S,S)` float32 0..1, and the frame that says how large the image was.

        Args:
            source: Whatever `read_image` reads.
        """
        image, image_hw = read_scaled(source, long_side=4 * self.input.size, limits=self.limits)
        return {"images": to_tensor(self._shape(image))}, Frame(image_hw)

    def finish(self, outputs: Tensors, frame: Frame) -> Classification:
        """Return the probability of every class, from `scores (C,)`."""
        return Classification(outputs["scores"], self.names, frame.image_hw, self.top, self.min_score)

    def _shape(self, image: Image) -> Image:
        size, facts = self.input.size, self.input
        if facts.resize == "crop":
            return center_crop(image, size, fraction=facts.crop_fraction, interpolation=facts.interpolation)
        return resize(image, (size, size), facts.interpolation)
