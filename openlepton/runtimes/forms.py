"""The ways to run a model: which engines its card names files for, in which precision, and which of them to take."""

from collections.abc import Sequence
from typing import get_args

from openlepton.card import Form, ModelCard, ModelFolder, Precision
from openlepton.errors import ModelFormatRefused, UsageError
from openlepton.runtimes import ENGINES, installed

GRAPH = "model.onnx"

SPEED: Sequence[str] = (
    "openvino-int8",
    "litert-int8",
    "openvino-bfloat16",
    "onnx-float32",
    "onnx-int8",
    "onnx-float16",
    "openvino-float32",
    "openvino-float16",
    "litert-float32",
    "savedmodel-float32",
    "torchscript-float32",
)
"""Fastest first, as measured on two cores of a server processor (docs/runtimes.md); `openlepton bench` measures on yours."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""Most exact first."""


def name_of(form: Form) -> str:
    """Return how the form is called on the command line, such as `openvino-int8`."""
    return f"{form.engine}-{form.precision}"


def forms_of(card: ModelCard) -> tuple[Form, ...]:
    """Return every way to run the model: those that the card lists, and those that its ONNX graphs allow unlisted.

    OpenVINO reads ONNX as well, and computes what is float32 there in bfloat16 if told to.
    """
    known = {(form.engine, form.precision): form for form in card.forms}
    taken = {file for form in card.forms if form.engine == "onnx" for file in form.files}
    if GRAPH in card.files and GRAPH not in taken:
        known.setdefault(("onnx", "float32"), Form(engine="onnx", precision="float32", files=(GRAPH,)))
    for form in [form for form in known.values() if form.engine == "onnx"]:
        for precision in (form.precision, "bfloat16") if form.precision == "float32" else (form.precision,):
            known.setdefault(("openvino", precision), Form(engine="openvino", precision=precision, files=form.files))
    return tuple(known.values())


def form_of(card: ModelCard, engine: str, precision: str | None = None) -> Form:
    """Return the form for that engine: of that precision, or else the most exact there is.

    Raises:
        UsageError: There is none; the message says what there is, and how to make one.
    """
    forms = forms_of(card)
    own = sorted((form for form in forms if form.engine == engine), key=lambda form: PRECISIONS.index(form.precision))
    for form in own:
        if precision in (None, form.precision):
            return form
    wanted = engine if precision is None else f"{engine}-{precision}"
    to = f" --precision {precision}" if precision else ""
    raise UsageError(
        f"{card.name}: has no form for {wanted}; it has {', '.join(map(name_of, forms)) or 'none'}: "
        f"openlepton export {card.name} --to {engine}{to}"
    )


def chosen(card: ModelCard, runtime: str | None = None, *, remembered: str | None = None) -> Form:
    """Return the form to run the model in.

    Args:
        card: The model's.
        runtime: An engine (`openvino`), a form (`openvino-int8`), or `auto` for the fastest one that is installed and of which
            the card says that it keeps the accuracy; by default the first that the card lists, or ONNX Runtime.
        remembered: The form that was measured to be the fastest on this machine, which `auto` then takes.

    Raises:
        UsageError: There is no such form or engine.
        ModelFormatRefused: No runtime takes any of the model's files.
    """
    forms = forms_of(card)
    if not forms:
        raise ModelFormatRefused(f"{card.name}: no runtime takes any of its files: {', '.join(card.files)}")
    if runtime is None:
        plain = [form for form in forms if name_of(form) == "onnx-float32"]
        return plain[0] if plain else forms[0]
    if runtime != "auto":
        engine, _, precision = runtime.partition("-")
        if engine not in ENGINES or (precision and precision not in PRECISIONS):
            raise UsageError(
                f"runtime: expected auto, {', '.join(ENGINES)}, or one of {', '.join(SPEED)}; got {runtime!r}"
            )
        return form_of(card, engine, precision or None)
    ready = {name_of(form): form for form in forms if exact(form) and installed(form.engine)}
    order = [name for name in (remembered, *SPEED, *ready) if name in ready]
    return ready[order[0]] if order else chosen(card)


def exact(form: Form) -> bool:
    """Return whether the form keeps the model's accuracy: its card says so, or it computes the same graph in float32."""
    return form.compared.keeps if form.compared is not None else form.precision == "float32"


def read_form(folder: ModelFolder, form: Form) -> tuple[bytes, ...]:
    """Return the form's files, each verified against the card.

    Raises:
        ModelCorrupt: One differs from its card.
    """
    return tuple(folder.read(file) for file in form.files)
