"""Convolutional Occupancy Networks (Peng et al. 2020), compatible with the original's weights."""

from convonet.conv_onet.network import ConvOnet, ConvOnetConfig
from convonet.conv_onet.originals import from_original
from convonet.conv_onet.patch_encoder import CropInputs
from convonet.conv_onet.presets import PRESETS

__all__ = ["PRESETS", "ConvOnet", "ConvOnetConfig", "CropInputs", "from_original"]
