from openlepton.data.crops import CropConfig
from openlepton.train import LossConfig, fit, suited

config = suited(
    "classify",
    "efficientnet-lite0",
    data="my-classes",
    out="runs/whole",
    pretrained="efficientnet-lite0",
    epochs=2,
    batch=4,
    size=96,
    augment=CropConfig(mixup=0.2, cutmix=1.0),
    loss=LossConfig(smoothing=0.1),
)
trained = fit(config)
print(trained.best, trained.report.summary())
