"""A small CNN of PyTorch to a float .tflite. Run by convert.py: python from_torch.py OUTPUT"""

import sys

import litert_torch
import torch
from torch import nn


class Block(nn.Module):
    """Depthwise, batch norm, pointwise, shortcut."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.pointwise(torch.relu(self.norm(self.depthwise(x))))


torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
    *(Block(16), nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 32, 3, padding=1), nn.Hardswish()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)),
).eval()
channels_last = litert_torch.to_channel_last_io(model, args=[0])
litert_torch.convert(channels_last, (torch.randn(1, 32, 32, 3),)).export(sys.argv[1])
