"""Which models a server offers, and which one an address means; the weights themselves are the workers' business."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from openlepton.card import ModelCard
from openlepton.errors import ModelNotFound, RequestInvalid, UsageError
from openlepton.hub.index import DEFAULTS, find, models
from openlepton.serve.child import Share
from openlepton.serve.settings import Limits
from openlepton.serve.tasks import TASKS, serves

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
        fitting = [card for card in self.cards.values() if serves(address, card)]
        if not fitting:
            raise ModelNotFound(f"no model to {address} with is served here: there are {', '.join(self.cards)}")
        return min(fitting, key=lambda card: len(addresses(card)))  # topics rather than sentiment; else the first

    def pick(self, address: str, name: str | None) -> ModelCard:
        """Return the card of the model that a request to an address means.

        Raises:
            ModelNotFound: It is not served, or does something else.
        """
        card = self.default(address) if name is None else self.get(name)
        if not serves(address, card):
            raise ModelNotFound(f"{card.name} is a model to {card.task} with, not to {address}")
        return card

    def translator(self, source: str | None, target: str | None) -> ModelCard:
        """Return the card of the first model that translates between these languages, of which either may be left open.

        Raises:
            RequestInvalid: None of them does.
        """
        pairs = []
        for card in self.cards.values():
            if card.translate is not None:
                if source in (None, card.translate.source) and target in (None, card.translate.target):
                    return card
                pairs.append(f"{card.translate.source} to {card.translate.target}")
        raise RequestInvalid(f"source, target: translated here is {', '.join(pairs)}")

    def usual(self, card: ModelCard) -> bool:
        """Return whether an address uses the model unless the query names another."""
        return any(self.default(address) is card for address in addresses(card))


def addresses(card: ModelCard) -> tuple[str, ...]:
    """Return the addresses that take the model."""
    return tuple(address for address in TASKS if serves(address, card))


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
    """Return the default of every address, or the first that ships for it, and a translator for every pair of languages."""
    found: dict[object, str] = {}
    for address in TASKS:
        fitting = [folder.card for folder in models() if serves(address, folder.card)]
        for card in sorted(fitting, key=lambda card: (card.name != DEFAULTS.get(address), len(addresses(card)))):
            pair = card.translate and (card.translate.source, card.translate.target)
            found.setdefault((address, pair), card.name)
    return tuple(dict.fromkeys(found.values()))
