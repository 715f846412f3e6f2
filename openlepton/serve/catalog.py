"""Which models a server offers, and which one an address means; the weights themselves are the workers' business."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from openlepton.card import ModelCard
from openlepton.errors import ModelNotFound, UsageError
from openlepton.hub.index import DEFAULTS, find, models
from openlepton.serve.child import Share
from openlepton.serve.settings import Limits
from openlepton.serve.tasks import TASKS

if TYPE_CHECKING:
    from openlepton.serve.models import Models


@dataclass(frozen=True)
class ModelSetup:
    """Loads models in a worker, by the names or paths that `load` takes."""

    models: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    jobs: Path | None = None

    def __call__(self, share: Share) -> "Models":
        """Return the loaded models."""
        from openlepton.serve.models import Models  # the server itself needs no arrays and no engine

        return Models(self, share)


@dataclass(frozen=True)
class Catalog:
    """The models of a server, in the order in which they were named."""

    cards: Mapping[str, ModelCard]
    names: tuple[str, ...]
    """What `load` calls them, in the same order."""

    def get(self, name: str) -> ModelCard:
        """Return the card of the model of that name.

        Raises:
            ModelNotFound: It is not served.
        """
        if name not in self.cards:
            raise ModelNotFound(f"no such model here: there are {', '.join(self.cards)}")
        return self.cards[name]

    def default(self, address: str) -> ModelCard:
        """Return the card of the model that an address (`detect`, `sentiment`, ...) uses unless the query names one.

        Raises:
            ModelNotFound: No model for it is served.
        """
        for task in TASKS[address]:
            for card in self.cards.values():
                if card.task == task:
                    return card
        raise ModelNotFound(f"no model to {address} with is served here: there are {', '.join(self.cards)}")

    def pick(self, address: str, name: str | None) -> ModelCard:
        """Return the card of the model that a request to an address means.

        Raises:
            ModelNotFound: It is not served, or does something else.
        """
        card = self.default(address) if name is None else self.get(name)
        if card.task not in TASKS[address]:
            raise ModelNotFound(f"{card.name} is a model to {card.task} with, not to {address}")
        return card

    def addresses(self, card: ModelCard) -> tuple[str, ...]:
        """Return the addresses that use the model by default."""
        served = {task for one in self.cards.values() for task in TASKS if one.task in TASKS[task]}
        return tuple(task for task in TASKS if task in served and self.default(task) is card)


def catalog(names: Sequence[str] = ()) -> Catalog:
    """Return the models called `names`; without any, the default of every task, or the first that ships for it.

    Raises:
        ModelNotFound: There is no such model.
        UsageError: Two of them have the same name.
    """
    asked = tuple(names) or _usual()
    cards: dict[str, ModelCard] = {}
    for name in asked:
        card = find(name).card
        if card.name in cards:
            raise UsageError(f"{name}: two models are called {card.name}; give one of them another name in its card")
        cards[card.name] = card
    return Catalog(cards, asked)


def _usual() -> tuple[str, ...]:
    by_task: dict[str, str] = {}
    for folder in models():
        by_task.setdefault(folder.card.task, folder.card.name)
    return tuple((by_task | {task: name for task, name in DEFAULTS.items() if task in by_task}).values())
