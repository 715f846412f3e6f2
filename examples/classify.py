import openlepton

classify = openlepton.load("efficientnet-lite0")
result = classify("photo.jpg")

print(result.label, f"{result.score:.0%}")
for label, score in result.best(5):
    print(f"{score:6.1%}  {label}")
