"""The view loss on [CLS]: every student view predicts what the teacher says of every other large view.

    L = mean over (g, v), v != g, of  mean over images of  -q_g . log softmax(s_v / temperature)

Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), 2021,
https://arxiv.org/abs/2104.14294, section 3.1; as iBOT and OpenUS use it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def view_loss(teacher_GBK: Tensor, student_VBK: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between views.

    Args:
        teacher_GBK: teacher's probabilities of G large views, B images, K prototypes.
        student_VBK: student's logits of V views, the same G large views first.
        temperature: of the student's softmax.

    Returns:
        a scalar, the mean over the G * V - G pairs of different views.

    Raises:
        ValueError: there is no pair of different views, which would be 0 / 0.
    """
    large, views = teacher_GBK.shape[0], student_VBK.shape[0]
    pairs = large * views - large
    if pairs <= 0:
        raise ValueError(f"need two views that differ, got {large} of the teacher and {views} of the student")
    log_student_VBK = functional.log_softmax(student_VBK.float() / temperature, dim=-1)
    with torch.autocast(log_student_VBK.device.type, enabled=False):  # it would run the product in bfloat16
        # (G, B, K), (V, B, K) -> (G, V): no tensor of all pairs
        entropy_GV = -torch.einsum("gbk,vbk->gv", teacher_GBK.float(), log_student_VBK) / student_VBK.shape[1]
    same_GV = torch.eye(large, views, dtype=torch.bool, device=entropy_GV.device)
    return entropy_GV.masked_fill(same_GV, 0.0).sum() / pairs
