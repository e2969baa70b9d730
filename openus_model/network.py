"""A backbone with its heads: what the student and the teacher each are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from openus_model.contracts import Features
from openus_model.heads import PixelDecoder, ProjectionHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a network says of a group of N views with L cells each.

    Args:
        cls_NK: logits of [CLS].
        patch_NLK: logits of patches, None where not asked for.
        pooled_ND: the vectors below [CLS].
        pixels_NCHW: reconstruction, None where not asked for.
    """

    cls_NK: Tensor
    patch_NLK: Tensor | None
    pooled_ND: Tensor
    pixels_NCHW: Tensor | None


class Network(nn.Module):
    """A backbone, a projection head and, on the student, a decoder."""

    def __init__(self, backbone: nn.Module, head: ProjectionHead, decoder: PixelDecoder | None) -> None:
        super().__init__()
        self.backbone, self.head, self.decoder = backbone, head, decoder

    def forward(
        self, image_NCHW: Tensor, mask_NHW: Tensor | None = None, *, patches: bool = False, pixels: bool = False
    ) -> Shown:
        """Logits, vectors and, on request, patches and pixels of one group of views."""
        features: Features = self.backbone(image_NCHW, mask_NHW)
        cls_NK, patch_NLK = self.head(features.pooled_BD, features.tokens_BND if patches else None)
        drawn_NCHW = self.decoder(features.stages[-1]) if pixels and self.decoder is not None else None
        return Shown(cls_NK=cls_NK, patch_NLK=patch_NLK, pooled_ND=features.pooled_BD, pixels_NCHW=drawn_NCHW)

    def redraw(self, image_NCHW: Tensor, mask_NHW: Tensor) -> Tensor:
        """Pixels of masked views, without the projection head.

        Raises:
            RuntimeError: the network has no decoder, as a teacher.
        """
        if self.decoder is None:
            raise RuntimeError("only a student draws pixels")
        drawn_NCHW: Tensor = self.decoder(self.backbone(image_NCHW, mask_NHW).stages[-1])
        return drawn_NCHW
