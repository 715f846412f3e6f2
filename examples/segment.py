import numpy as np

import openlepton

segment = openlepton.load("yolov5n-seg-nuclei", min_score=0.4)
found = segment("cells.jpg")

for row, one in enumerate(found):
    mask = found.mask(row)  # (H, W) bool, at the size of the picture
    outline = max(one.mask.polygons(), key=len, default=np.zeros((0, 2)))
    print(f"{one.label} {one.score:.2f}: {int(mask.sum())} pixels, {len(outline)} corners")

print(found.to_dict()["detections"][0]["mask"])  # COCO's compressed run lengths
openlepton.write_image("annotated.jpg", openlepton.draw(openlepton.read_image("photo.jpg"), segment("photo.jpg")))
