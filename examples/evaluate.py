import openlepton
from openlepton.data.datasets import open_dataset
from openlepton.train import evaluate

done = evaluate(openlepton.load("yolox-nano-voc20"), open_dataset("my-data")["val"])
print(f"AP {done.report.ap:.3f}, AP50 {done.report.ap50:.3f} on {done.report.images} images")
for one in done.report.classes:
    print(f"{one.name}: {one.objects} objects, {one.found} found, AP {one.ap:.3f}")
