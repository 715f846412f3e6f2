import openlepton

translate = openlepton.load("my-en-zh")
found = translate("I see a cat. They like a house.")
print(found.text, f"{found.score:.0%}", found.complete)

for one in translate.stream(["We have a bird.", "", "You like a dog."]):
    print(one.text)
