"""A small CNN of Keras to a float .tflite. Run by convert.py: python from_keras.py OUTPUT"""

import sys

import tensorflow as tf

layers = tf.keras.layers
tf.keras.utils.set_random_seed(0)
image = layers.Input((32, 32, 3), batch_size=1)
x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image)
shortcut = x = layers.ReLU()(layers.BatchNormalization()(x))
x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))
x = layers.Add()([layers.Conv2D(16, 1)(x), shortcut])
x = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(x))
x = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))
model = tf.keras.Model(image, x)
with open(sys.argv[1], "wb") as file:
    file.write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
