import openlepton

sentiment = openlepton.load("sentiment")
for found in sentiment.batch(["A gripping, beautifully acted film.", "房间很脏，再也不会来了。"]):
    print(found.label, f"{found.score:.3f}")

topics = openlepton.load("topics")
print(topics("Oil prices rise as stocks fall").best(2))
