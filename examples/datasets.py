from openlepton.data.convert import convert_dataset
from openlepton.data.datasets import open_dataset
from openlepton.data.doctor import check, write_report

dataset = open_dataset("my-data")
print(dataset)

sample = dataset["train"][0]
print(sample.image, sample.size_hw, sample.objects.boxes, sample.objects.class_ids)

report = check(dataset)
for problem in report.problems:
    print(problem)
write_report(report, dataset, "my-report")

written = convert_dataset(dataset, "my-data-coco", "coco")
print(written.images, written.objects, "objects")
