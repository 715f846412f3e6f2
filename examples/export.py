import openlepton
from openlepton.export import bench, export

card = export("yolov5n-bccd", "onnx", "exported/yolov5n-bccd", precision="int8", data="photos")
compared = card.forms[-1].compared
print(f"{compared.matched:.0%} of results in common; scores differ by {compared.scores:.2g} at most")

for row in bench("exported/yolov5n-bccd", size=128, seconds=0.2):
    print(row.form, row.latency_ms, row.images_per_s, row.accuracy, row.problem)

detect = openlepton.load("exported/yolov5n-bccd", runtime="auto")  # or "onnx-int8", "openvino", ...
print(detect.runtime, detect("photo.jpg"))
