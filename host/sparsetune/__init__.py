"""Fine-tune an int8 .tflite model on a microcontroller."""

__version__ = "0.1.0"
