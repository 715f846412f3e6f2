"""Training and evaluation: `fit` and `evaluate`. Importing this package needs the extra `train`."""

from openlepton.errors import missing_extra

try:
    import safetensors
    import torch
except ModuleNotFoundError as error:
    raise missing_extra(error.name, "train") from None

from openlepton.train.config import LossConfig, TrainConfig
from openlepton.train.evaluate import Evaluation, evaluate
from openlepton.train.lessons import suited
from openlepton.train.run import Trained, fit, resume

__all__ = ["Evaluation", "LossConfig", "TrainConfig", "Trained", "evaluate", "fit", "resume", "suited"]

del safetensors, torch
