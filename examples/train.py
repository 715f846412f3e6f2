import openlepton
from openlepton.train import TrainConfig, fit

config = TrainConfig(data="my-data", out="runs/mine", model="yolov5n", epochs=2, size=64, licence="MIT")
trained = fit(config)
print(f"AP50 {trained.report.ap50:.3f} after {len(trained.history)} epochs")

detect = openlepton.load(trained.best)
print(detect("photo.jpg"))
