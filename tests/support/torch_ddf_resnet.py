# SPDX-License-Identifier: Apache-2.0
"""DDF-ResNet as a PyTorch module whose state has the names of the authors' states; filters images by `unfold`."""

import math

import torch
from torch import nn
from torch.nn import functional


class FilterNorm(nn.Module):
    def __init__(self, channels=None):
        super().__init__()
        deviation = math.sqrt(2) / 3
        self.std = nn.Parameter(torch.randn(channels * 9) * deviation) if channels else deviation

    def forward(self, filters):
        groups = filters.unflatten(1, (-1, 9))
        centred = groups - groups.mean(2, keepdim=True)
        normalized = (centred / (groups.std(2, keepdim=True) + 1e-10)).flatten(1, 2)
        scale = self.std if isinstance(self.std, float) else self.std[:, None, None]
        return normalized * scale


class DDF(nn.Module):
    def __init__(self, channels, stride, combine):
        super().__init__()
        self.stride, self.combine = stride, combine
        squeezed = max(int(0.2 * channels), 1)
        self.spatial_branch = nn.Sequential(nn.Conv2d(channels, 9, 1, stride), FilterNorm())
        self.channel_branch = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels * 9, 1),
            FilterNorm(channels),
        )

    def forward(self, maps):
        spatial, channel = self.spatial_branch(maps), self.channel_branch(maps)
        batch, channels = maps.shape[:2]
        columns = functional.unfold(maps, 3, padding=1, stride=self.stride).view(batch, channels, 9, -1)
        spatial, channel = spatial.flatten(2)[:, None], channel.view(batch, channels, 9, 1)
        filters = spatial * channel if self.combine == "mul" else spatial + channel
        size = [-(-side // self.stride) for side in maps.shape[2:]]
        return (columns * filters).sum(2).view(batch, channels, *size)


class Block(nn.Module):
    def __init__(self, inputs, width, stride, combine):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = DDF(width, stride, combine), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = nn.Identity()
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, maps):
        inner = functional.relu(self.bn1(self.conv1(maps)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


class ResNet(nn.Module):
    def __init__(self, blocks, combine="mul", classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate(blocks):
            width, stage_blocks = 64 * 2**stage, []
            for block in range(count):
                stage_blocks.append(Block(channels, width, 2 if stage and not block else 1, combine))
                channels = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*stage_blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images):
        maps = functional.relu(self.bn1(self.conv1(images)))
        maps = functional.max_pool2d(maps, 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
        return self.fc(maps.mean((2, 3)))
