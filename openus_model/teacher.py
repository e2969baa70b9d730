"""The teacher: a copy of the student that follows it as a moving average and never sees a gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def matched_tensors(teacher: nn.Module, student: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of the teacher and those of the student with the same name, in one order."""
    of_student = dict(student.named_parameters())
    pairs = [(tensor, of_student[name]) for name, tensor in teacher.named_parameters() if name in of_student]
    return [t.data for t, _ in pairs], [s.data for _, s in pairs]


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, for every tensor that both have by name.

    Args:
        momentum: in [0, 1]; 1 leaves the teacher as it is.
    """
    of_teacher, of_student = matched_tensors(teacher, student)
    if of_teacher:
        torch._foreach_lerp_(of_teacher, of_student, 1.0 - momentum)


@torch.no_grad()
def start_from(teacher: nn.Module, student: nn.Module) -> None:
    """Copy every tensor of the student that the teacher also has, and turn the teacher's gradients off."""
    of_teacher, of_student = matched_tensors(teacher, student)
    for mine, theirs in zip(of_teacher, of_student, strict=True):
        mine.copy_(theirs)
    teacher.requires_grad_(False)
