"""The best epoch as a model folder whose card says how good it is, on what, and which command measures that again."""

from pathlib import Path
from typing import Any

from openlepton import __version__
from openlepton.card import CONTRACT, Metric, ModelCard, file_facts, open_folder
from openlepton.data.samples import Dataset, Split
from openlepton.hub.convert import model_name
from openlepton.hub.folder import GRAPH, write_card, write_model
from openlepton.predictor import load
from openlepton.train.checkpoint import Progress
from openlepton.train.config import TrainConfig
from openlepton.train.lesson import Lesson, Measured


def publish(
    out: Path,
    lesson: Lesson,
    network: Any,
    config: TrainConfig,
    dataset: Dataset,
    val: Split,
    progress: Progress,
    *,
    how: str = "",
) -> Measured:
    """Write `network` to the model folder `out`, evaluate its graph, and write what came out into its card.

    Args:
        out: The folder.
        lesson: Of the network's task.
        network: In evaluation mode, on the processor.
        config: Of the training.
        dataset: What it was trained on.
        val: What it is evaluated on.
        progress: How far the training went.
        how: What was done, for the card; by default so many epochs, and which was the best.
    """
    images = len(dataset[config.train_split])
    how = how or f"for {progress.epoch} epochs at {config.size} px, the best being {progress.best_epoch + 1}"
    command = f"; made by: {config.command}" if config.command else ""
    draft = ModelCard(
        contract=CONTRACT,
        name=model_name(config.name or Path(config.out).resolve().name),
        version="1",
        architecture=config.model,
        description=f"{config.model} for {', '.join(dataset.classes[:8])}{' and more' if len(dataset.classes) > 8 else ''}",
        licence=config.licence,
        source=(
            f"{progress.source} on {dataset.name} (split {config.train_split}, {images:,} images) {how}, "
            f"by OpenLepton {__version__}{' in TensorFlow' * (config.framework == 'tensorflow')}{command}"
        ),
        labels=dataset.classes,
        files={GRAPH: file_facts(b"?")},
        **lesson.facts(config, network, dataset.classes),
    )
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    card = write_model(out, network, draft, tensors, weights_type=config.store)
    measured = lesson.evaluate(load(out), val, batch=8, workers=config.workers)
    where = f"{dataset.name} {val.name}, {measured.images:,} images"
    # A model with a name is meant for others, who have it and the data set elsewhere.
    model, data = (card.name, dataset.name) if config.name else (out.as_posix(), config.data)
    measure = f"openlepton evaluate {model} {data} --split {val.name}"
    metrics = tuple(
        Metric(name=name, value=round(value, 4), data=where, command=measure)
        for name, value in measured.metrics.items()
    )
    write_card(out, card.model_copy(update={"metrics": metrics}))
    open_folder(out)  # what was written is what can be read
    return measured
