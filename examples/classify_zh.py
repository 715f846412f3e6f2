import openlepton

classify = openlepton.load("efficientnet-lite0", language="zh")
result = classify("photo.jpg")

print(result.label, f"{result.score:.0%}")
openlepton.write_image("annotated.jpg", openlepton.draw(openlepton.read_image("photo.jpg"), result))
