import cv2

from openlepton.yolov5 import detect

model = detect()
image = cv2.imread("photo.jpg")

results = model.detect(image)

cv2.imwrite("annotated.jpg", results["img"])
print(results["detections"])
