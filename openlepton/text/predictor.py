"""What every predictor of texts does with one text, with many and with a stream of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

from openlepton.errors import OpenLeptonError, UsageError

Result = TypeVar("Result")


class TextPredictor(ABC, Generic[Result]):
    """Text in, `Result` out: call it with one text, with `batch`, or with `stream`."""

    TOGETHER: ClassVar[int] = 256
    """Texts that `stream` reads ahead, so that those of like length can be computed together."""

    def __call__(self, text: str) -> Result:
        """Return the result for one text.

        Raises:
            UsageError: It is not a string.
        """
        return self.batch([text])[0]

    @abstractmethod
    def batch(self, texts: Sequence[str]) -> list[Result]:
        """Return one result for each text, in order, each what the text gives alone.

        Raises:
            UsageError: One of them is not a string.
        """

    def stream(
        self, texts: Iterable[str | OpenLeptonError], *, together: int | None = None
    ) -> Iterator[Result | OpenLeptonError]:
        """Yield a result for each text, in order, or the error that it ended in.

        What comes as an error, as from a reader that met a broken line, goes through.

        Args:
            texts: Read as far ahead as is computed together, not further.
            together: How many that are; by default `TOGETHER`.
        """
        following: Iterator[Any] = iter(texts)  # what a caller gives, whatever the types say
        while group := list(islice(following, together or self.TOGETHER)):
            done = iter(self.batch([text for text in group if isinstance(text, str)]))
            for item in group:
                if isinstance(item, str):
                    yield next(done)
                elif isinstance(item, OpenLeptonError):
                    yield item
                else:
                    yield UsageError(f"text: expected a string, got {type(item).__name__}")
