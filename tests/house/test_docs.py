import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_models_is_what_the_cards_say():
    pages = {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("models*.md")}
    code = (
        "import sys; sys.path.insert(0, 'tools'); import render_models as page\n"
        "print(page.render([folder.card for folder in page.models()], sys.argv[1]), end='')"
    )
    for language, name in (("en", "models.md"), ("zh", "models.zh-CN.md")):
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code, language], cwd=ROOT, capture_output=True, check=True
        )
        assert done.stdout.decode("utf-8").replace("\r\n", "\n") == pages[ROOT / "docs" / name]
