"""Train the translator of the tests: sixty sentences about cats and houses, a minute on one core.

python tools/toy_translator.py tests/fixtures/translators/toy-en-zh
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from openlepton.card import open_folder
from openlepton.hub.folder import write_card
from openlepton.train.translator import TranslatorRun, train

WHO = {"I": "我", "You": "你", "We": "我们", "They": "他们"}
DO = {"see": "看见", "like": "喜欢", "have": "有"}
WHAT = {"a cat": "一只猫", "a dog": "一只狗", "a bird": "一只鸟", "a car": "一辆车", "a house": "一座房子"}


def main(out: Path) -> None:
    """Write the folder."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        rows = [{"en": f"{a} {v} {o}.", "zh": f"{WHO[a]}{DO[v]}{WHAT[o]}。"} for a in WHO for v in DO for o in WHAT]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (Path(name) / "train.jsonl").write_text(lines, encoding="utf-8")
        run = TranslatorRun(
            data=name, out=f"{name}/run", source="en", target="zh", vocabulary=400, width=32, encoder_layers=1,
            decoder_layers=1, batch_tokens=256, epochs=100, lr=3e-3, smoothing=0.0, name="toy-en-zh", licence="CC0-1.0",
        )  # fmt: skip
        best = train(run, tell=print).folder
        shutil.copytree(best, out, dirs_exist_ok=True)
    card = open_folder(out).card
    write_card(out, card.model_copy(update={"metrics": (), "source": "trained by tools/toy_translator.py"}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
