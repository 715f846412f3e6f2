import openlepton
from openlepton.train import fit, suited

config = suited("classify", data="my-classes", out="runs/few", freeze="backbone", licence="MIT")
trained = fit(config)
report = trained.report
print(f"top-1 {report.top1:.2f} of {report.images} images")
for name, precision, recall in zip(report.names, report.precision, report.recall, strict=True):
    print(f"{name}: precision {precision:.2f}, recall {recall:.2f}")
print(report.confusion)

classify = openlepton.load(trained.best)
print(classify("photo.jpg").label)
