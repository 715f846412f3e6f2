"""Vision tasks: each prepares an image for its graph, and finishes what comes out of it."""
