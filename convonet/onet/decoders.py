"""Decoders: a query position, the shape's features and its latent to one occupancy logit.

`cbatchnorm` is the paper's decoder; the others are the variants that the original offers. They differ in
how the shape enters: added to the first layer (`simple`, `batchnorm`) or as the affine map of every
normalization (`cbatchnorm`, `cbatchnorm2`, `cbatchnorm_noresnet`).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from convonet.layers.additive_decoder import AdditiveDecoder, CodeDecoder, DecoderSizes
from convonet.layers.conditional_batch_norm import ConditionalBatchNorm, PointBatchNorm
from convonet.layers.conditional_decoder import ConditionalDecoder, NormResnetBlock

DecoderKind = Literal["simple", "batchnorm", "cbatchnorm", "cbatchnorm2", "cbatchnorm_noresnet"]


class BatchNormDecoder(AdditiveDecoder):
    """Kind `batchnorm`: as `simple`, with plain batch normalization in the blocks and before the logit."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__(sizes)
        self.norm = PointBatchNorm(sizes.hidden_size)

    @staticmethod
    def make_block(width: int) -> nn.Module:
        return NormResnetBlock(PointBatchNorm, width, width, width)

    def last_norm(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]


class ConditionalPlainDecoder(CodeDecoder):
    """Kind `cbatchnorm_noresnet`: conditional normalization between layers without shortcuts."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__(sizes)
        width = sizes.hidden_size
        if sizes.latent_size:
            self.fc_z = nn.Linear(sizes.latent_size, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(sizes.blocks))
        self.norms = nn.ModuleList(
            ConditionalBatchNorm(sizes.feature_size, width) for _ in range(sizes.blocks + 1)
        )

    def forward(self, queries: Tensor, features: Tensor, latent: Tensor) -> Tensor:
        """(B, Q, 3) queries, (B, C) features and (B, Z) latent to (B, Q) logits."""
        x = self.fc_p(queries)
        if self.sizes.latent_size:
            x = x + self.fc_z(latent)[:, None]
        x = self.activation(self.norms[0](x, features))
        for layer, norm in zip(self.layers, list(self.norms)[1:], strict=True):
            x = self.activation(norm(layer(x), features))
        return self.fc_out(x).squeeze(-1)  # type: ignore[no-any-return]


def build_decoder(kind: DecoderKind, sizes: DecoderSizes) -> nn.Module:
    """The decoder of a kind; its `forward` maps queries, features and latent to logits."""
    match kind:
        case "simple":
            return AdditiveDecoder(sizes)
        case "batchnorm":
            return BatchNormDecoder(sizes)
        case "cbatchnorm":
            return ConditionalDecoder(sizes)
        case "cbatchnorm2":
            return ConditionalDecoder(sizes, latent_joins_features=True)
        case "cbatchnorm_noresnet":
            return ConditionalPlainDecoder(sizes)
