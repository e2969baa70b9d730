"""The loss on masked patches: the student predicts what the teacher says of the patches it cannot see.

    L = mean over views and images of  sum_j m_j CE_j / max(1, sum_j m_j)

Source: Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022, https://arxiv.org/abs/2111.07832,
equation 2.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def patch_loss(teacher_BNK: Tensor, student_BNK: Tensor, mask_BN: Tensor, temperature: float) -> Tensor:
    """Cross-entropy on masked patches.

    Args:
        teacher_BNK: teacher's probabilities, from the same views unmasked; B counts views times images.
        student_BNK: student's logits.
        mask_BN: bool, True where the student saw the mask token.
        temperature: of the student's softmax.

    Returns:
        a scalar; 0 from a view whose mask is empty.
    """
    log_student_BNK = functional.log_softmax(student_BNK.float() / temperature, dim=-1)
    entropy_BN = -(teacher_BNK.float() * log_student_BNK).sum(-1)
    weight_BN = mask_BN.float()
    return ((entropy_BN * weight_BN).sum(1) / weight_BN.sum(1).clamp(min=1.0)).mean()
