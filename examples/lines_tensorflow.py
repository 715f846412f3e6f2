import tensorflow as tf

from openlepton.nets.losses import LossConfig
from openlepton.tf import network

images = tf.random.uniform((2, 3, 320, 320))
targets = tf.constant([[0, 0, 100, 100, 60, 80], [1, 1, 200, 150, 90, 40.0]])  # image, class, centre, size in pixels

twin = network("yolov5n", classes=2)
criterion = twin.criterion(LossConfig(), 320)
optimizer = tf.keras.optimizers.SGD(0.01, momentum=0.9)

with tf.GradientTape() as tape:
    loss, parts = criterion(twin.raw(images, training=True), targets)
weights = twin.raw.trainable_variables
optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

found = twin.model(images)
print(dict(zip(criterion.parts, parts.numpy(), strict=True)), found["boxes"].shape, found["scores"].shape)
