import openlepton
from openlepton.combine import combine

detect = openlepton.load("my-yolov5n")

in_tiles = combine(detect, tile=640, overlap=0.2)
print("in tiles:", in_tiles("photo.jpg"))

augmented = combine(detect, augment=True, merge="wbf")
print("in three variants:", augmented("photo.jpg"))

together = combine(detect, openlepton.load("yolov5n-bccd"))
print("two models:", together("photo.jpg"))
