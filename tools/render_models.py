"""Write docs/models.md and docs/models.zh-CN.md from the cards of the models that ship: `python tools/render_models.py`."""

from pathlib import Path

from openlepton.card import ModelCard
from openlepton.hub.index import models

DOCS = Path(__file__).resolve().parent.parent / "docs"

WORDS = {
    "en": {
        "title": "Models that ship",
        "switch": "**English** | [简体中文](models.zh-CN.md)",
        "lead": "Rendered from the cards by `python tools/render_models.py`; `openlepton models` prints the same.",
        "facts": "| | |",
        "task": "task",
        "classes": "classes",
        "input": "input",
        "licence": "licence",
        "source": "source",
        "files": "files",
        "metrics": "| number | value | on | command | note |",
        "others": "Trained, not shipped",
        "why": "The older networks by the losses of their papers, YOLOv3-tiny from nothing, YOLOv1-tiny with its body; "
        "the floor is what was asked of them. YOLOv1 finds one object a cell of its grid, and blood has more.",
        "trained": "| network | on | floor, AP50 | AP50 | AP50-95 | recipe |",
        "val": "val, {} images",
    },
    "zh": {
        "title": "自带的模型",
        "switch": "[English](models.md) | **简体中文**",
        "lead": "由 `python tools/render_models.py` 从卡片生成；`openlepton models` 打印同样的内容。",
        "facts": "| | |",
        "task": "任务",
        "classes": "类别数",
        "input": "输入",
        "licence": "许可证",
        "source": "来源",
        "files": "文件",
        "metrics": "| 指标 | 数值 | 数据 | 命令 | 说明 |",
        "others": "训练过但不随包发布",
        "why": "较早的网络，用各自论文的损失训练：YOLOv3-tiny 从零开始，YOLOv1-tiny 从前者的主干开始；"
        "下限是对它们的要求。YOLOv1 每个网格单元只找一个目标，而血液中更密。",
        "trained": "| 网络 | 数据 | AP50 下限 | AP50 | AP50-95 | 配方 |",
        "val": "val，{} 张图片",
    },
}

TRAINED = (
    (
        "yolov1-tiny",
        "bccd",
        49,
        0.3,
        0.3162,
        0.0942,
        "yolov1-tiny-bccd --data bccd --out runs/yolov1-tiny-bccd --body runs/yolov3-tiny-bccd/best",
    ),
    ("yolov3-tiny", "bccd", 49, 0.5, 0.8873, 0.5109, "yolov3-tiny-bccd --data bccd --out runs/yolov3-tiny-bccd"),
)
"""Network, data set, images of its split val, the least AP50 that was asked for, AP50, AP50-95, and what the recipe was told; the
numbers are those of the cards that it wrote."""


def render(cards: list[ModelCard], language: str) -> str:
    """Return the page in `language`, `en` or `zh`."""
    words = WORDS[language]
    lines = [f"# {words['title']}", "", words["switch"], "", words["lead"]]
    for card in cards:
        files = ", ".join(f"`{name}` {facts.size / 1e6:.1f} MB" for name, facts in card.files.items())
        rows = {
            "task": card.task,
            "classes": len(card.labels),
            "input": _input(card),
            "licence": card.licence,
            "source": card.source,
            "files": files,
        }
        lines += ["", f"## {card.name} {card.version}", "", card.description, "", words["facts"], "|---|---|"]
        lines += [f"| {words[key]} | {_cell(value)} |" for key, value in rows.items()]
        if card.metrics:
            lines += ["", words["metrics"], "|---|---|---|---|---|"]
        for metric in card.metrics:
            command = f"`{metric.command}`" if metric.command else ""
            cells = [metric.name, f"{metric.value:g}", metric.data, command, metric.note]
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += ["", f"## {words['others']}", "", words["why"], "", words["trained"], "|---|---|---|---|---|---|"]
    for network, data, images, floor, ap50, ap, command in TRAINED:
        shown = f"{data} {words['val'].format(images)}"
        recipe = f"`python recipes/train_detectors.py {command}`"
        lines.append(f"| {network} | {shown} | {floor:.2f} | {ap50:.3f} | {ap:.3f} | {recipe} |")
    return "\n".join(lines) + "\n"


def _input(card: ModelCard) -> str:
    if card.text is None:
        return f"{card.image_input.size} px, {card.image_input.resize}"
    return ", ".join(card.text.languages) + (f", {card.text.max_tokens} tokens" if card.text.max_tokens else "")


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def main() -> None:
    """Write both pages."""
    cards = [folder.card for folder in models()]
    for language, name in (("en", "models.md"), ("zh", "models.zh-CN.md")):
        (DOCS / name).write_text(render(cards, language), encoding="utf-8")


if __name__ == "__main__":
    main()
