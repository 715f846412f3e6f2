import openlepton

detect = openlepton.load("yolox-nano-voc20", min_score=0.4)
found = detect("photo.jpg")

for one in found[found.scores > 0.5]:
    x1, y1, x2, y2 = one.box
    print(f"{one.label} {one.score:.2f} at {x1:.0f},{y1:.0f} to {x2:.0f},{y2:.0f}")

people = found.named("person")
print(len(people), "people")

image = openlepton.read_image("photo.jpg")
openlepton.write_image("annotated.jpg", openlepton.draw(image, found))
