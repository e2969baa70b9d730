"""The teacher follows the student by name and sees no gradient."""

from __future__ import annotations

import torch
from torch import nn

from openus_model.teacher import follow, start_from


def test_the_teacher_moves_a_share_of_the_way() -> None:
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    before = teacher.weight.detach().clone()
    follow(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight, 0.9 * before + 0.1 * student.weight)


def test_a_momentum_of_one_leaves_the_teacher_to_the_bit() -> None:
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    before = teacher.weight.detach().clone()
    follow(teacher, student, 1.0)
    assert teacher.weight.equal(before)


def test_only_tensors_with_a_common_name_take_part() -> None:
    teacher = nn.ModuleDict({"shared": nn.Linear(2, 2)})
    student = nn.ModuleDict({"shared": nn.Linear(2, 2), "own": nn.Linear(2, 2)})
    start_from(teacher, student)
    assert teacher["shared"].weight.equal(student["shared"].weight)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    follow(teacher, student, 0.5)
    assert teacher["shared"].weight.equal(student["shared"].weight)
