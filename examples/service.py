import openlepton
from openlepton.arrays import Image
from openlepton.serve import Service, endpoint


class Counter(Service):
    def __init__(self) -> None:
        self.detect = openlepton.load("yolov5n-bccd")

    @endpoint
    def count(self, image: Image, min_score: float = 0.25) -> dict[str, int]:
        """Count what an image shows."""
        found = self.detect(image)
        labels = found[found.scores > min_score].labels
        return {label: labels.count(label) for label in labels}


if __name__ == "__main__":
    Counter.run()
