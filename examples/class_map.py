import openlepton

paint = openlepton.load("unet-lite0-nuclei")
found = paint("cells.jpg")

for name, pixels in zip(found.names, found.areas, strict=True):
    print(f"{name}: {pixels / found.class_map.size:.1%}")

nuclei = found.mask("nucleus")  # (H, W) bool; found.class_map is (H, W) class ids
print(nuclei.shape, int(nuclei.sum()), "pixels of nuclei")
openlepton.write_image("painted.jpg", openlepton.draw(openlepton.read_image("cells.jpg"), found))
