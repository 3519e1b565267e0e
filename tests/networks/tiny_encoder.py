"""An encoder for MONAI's FlexibleUNet that is small enough for tests."""

from monai.networks.blocks import BaseEncoder
from torch import nn

CHANNELS = (8, 8, 16)


class TinyEncoder(nn.Module, BaseEncoder):
    """Three levels of a strided convolution, batch normalisation and ReLU each."""

    def __init__(self, spatial_dims, in_channels, pretrained):
        super().__init__()
        assert not pretrained
        convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[spatial_dims - 2]
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(before, after, 3, stride=2, padding=1), norm(after), nn.ReLU())
            for before, after in zip((in_channels, *CHANNELS), CHANNELS, strict=False)
        )

    def forward(self, image):
        maps = []
        for level in self.levels:
            image = level(image)
            maps.append(image)
        return maps

    @classmethod
    def get_encoder_parameters(cls):
        return [{"spatial_dims": 2, "in_channels": 1, "pretrained": True}]

    @classmethod
    def num_channels_per_output(cls):
        return [CHANNELS]

    @classmethod
    def num_outputs(cls):
        return [len(CHANNELS)]

    @classmethod
    def get_encoder_names(cls):
        return ["tiny"]
