"""OpenUS: one step of self-adaptive masked contrastive pretraining. Read `forward` beside the paper's figure.

    large views ----------> teacher ----> targets for [CLS] and patches
                               |  attention of its last scan
    the image's difficulty --> score per cell --> mask
    large views, masked ---> student ---> [CLS], patches, pixels of masked cells
    small views -----------> student ---> [CLS];  small views, masked --> pixels of masked cells
    losses: views agree on [CLS]; hidden patches; hidden pixels, large and small
    after the update: the teacher follows the student, its centres follow its targets

Source: OpenUS, https://arxiv.org/abs/2511.11510; docs/explain/method.md says what each part does and why.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from openus_model.contracts import Backbone, Batch, Losses
from openus_model.heads import PixelDecoder, ProjectionHead
from openus_model.losses.centring import Centring, MeanCentre, Sinkhorn
from openus_model.losses.koleo import koleo_loss
from openus_model.losses.patch import patch_loss
from openus_model.losses.reconstruction import cell_errors, reconstruction_loss
from openus_model.losses.view import view_loss
from openus_model.mask_policy import Looked, MaskPolicy
from openus_model.masking import Choice, normalise
from openus_model.network import Network, Shown
from openus_model.pixels import MEAN, STD
from openus_model.recipe import PretrainRecipe
from openus_model.schedules import Clock, cosine, linear_warmup, over_run
from openus_model.teacher import follow, start_from

logger = logging.getLogger(__name__)

PICTURES = 4
"""Images of a figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What the schedules say of a step."""

    alpha: float
    chosen_share: float
    patch_temperature: float
    ema_momentum: float
    prototypes_frozen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the teacher says of the large views."""

    cls_NK: Tensor
    patch_NLK: Tensor


class OpenUSMethod(nn.Module):
    """Student, teacher, masks and losses; see `openus_model.contracts.Method`.

    Args:
        backbone: of the student; the teacher gets a copy.
        recipe: the whole recipe; sections data and optimizer are not read.
        clock: steps to epochs.
        samples: images in the corpus, for the difficulty table.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, recipe: PretrainRecipe, *, clock: Clock, samples: int) -> None:
        super().__init__()
        self.recipe, self.clock = recipe, clock
        described = cast(Backbone, backbone)
        self.stride = described.stride
        head = _head(described.embed_dim, recipe, separate=recipe.head.separate)
        decoder = PixelDecoder(described.embed_dim, stride=self.stride, channels=described.in_channels)
        self.student = Network(backbone, head, decoder)
        self.teacher = _teacher_of(self.student, described.embed_dim, recipe)
        self.centre_cls, self.centre_patch = _centring(recipe), _centring(recipe)
        self.masks = MaskPolicy(
            recipe.masking,
            seed=recipe.engine.seed,
            samples=samples,
            large_views=recipe.engine.batch_size * recipe.views.global_count,
            large_cells=(recipe.views.global_size // self.stride) ** 2,
        )
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self._noted_step = -1
        self._said = False
        self.train()

    def train(self, mode: bool = True) -> OpenUSMethod:
        """Training mode of the student; the teacher is deterministic unless the recipe says otherwise (D5)."""
        super().train(mode)
        self.teacher.train(mode and self.recipe.backbone.teacher_drop_path)
        return self

    def step(self, batch: Batch, step: int, *, pictures: bool = False) -> Losses:
        """One forward pass, before any update."""
        losses: Losses = self(batch, step, pictures=pictures)
        return losses

    def forward(self, batch: Batch, step: int, *, pictures: bool = False) -> Losses:
        """What `step` does; DDP wraps the method and calls this."""
        self._forget_unless(step)
        now = self.now(step)
        large_NCHW, small_NCHW = self._normalised(batch.global_BVCHW), self._normalised(batch.local_BVCHW)

        targets, looked = self._ask_teacher(batch, large_NCHW, now)
        choice = self._mask_large(large_NCHW, looked, now, step)
        mask_NHW = choice.mask_BN.view(-1, *looked.grid)

        self.student.head.freeze_prototypes(now.prototypes_frozen)
        large: Shown = self.student(large_NCHW, mask_NHW, patches=True, pixels=True)
        small, drawn_NCHW, small_mask_NHW = self._show_small(batch, small_NCHW, step)

        terms = {"cls": self._view_term(targets, large, small, len(batch.sample_ids))}
        terms["patch"] = self._patch_term(batch, targets, large, choice, step)
        errors_NHW = cell_errors(_have(large.pixels_NCHW), large_NCHW, self.stride)
        terms["reconstruct_global"] = reconstruction_loss(errors_NHW, mask_NHW, self.stride)
        if drawn_NCHW is not None:
            small_errors_NHW = cell_errors(drawn_NCHW, small_NCHW, self.stride)
            terms["reconstruct_local"] = reconstruction_loss(small_errors_NHW, small_mask_NHW, self.stride)
        if self.recipe.losses.koleo:
            by_view = large.pooled_ND.chunk(looked.views)
            terms["koleo"] = torch.stack([koleo_loss(vectors_BD) for vectors_BD in by_view]).mean()

        self.masks.note(looked, errors_NHW, mask_NHW)
        return Losses(
            total=self._weighted(terms),
            terms={name: value.detach() for name, value in terms.items()} | self._health(choice, targets),
            facts={name: getattr(now, name) for name in ("alpha", "chosen_share", "ema_momentum", "patch_temperature")},
            pictures=self._pictures(large_NCHW, looked, choice, errors_NHW, large) if pictures else {},
        )

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """The teacher follows; centres and difficulties take in what this step saw."""
        follow(self.teacher, self.student, self.now(step).ema_momentum)
        for part in (self.centre_cls, self.centre_patch, self.masks):
            part.commit()

    def trainable(self) -> nn.Module:
        """The student."""
        return self.student

    def now(self, step: int) -> Now:
        """What the schedules say of a step."""
        epoch, epochs = self.clock.epoch(step), self.clock.epochs
        masking, losses, schedule = self.recipe.masking, self.recipe.losses, self.recipe.schedule
        return Now(
            alpha=over_run(
                epoch, start=masking.alpha_start, end=masking.alpha_end, epochs=epochs, shape=masking.alpha_shape
            ),
            chosen_share=over_run(
                epoch, start=masking.chosen_start, end=masking.chosen_end, epochs=epochs, shape="linear"
            ),
            patch_temperature=linear_warmup(
                epoch,
                start=losses.patch_temperature_start,
                end=losses.patch_temperature_end,
                epochs=losses.patch_temperature_epochs,
            ),
            ema_momentum=cosine(step, start=schedule.momentum_start, end=schedule.momentum_end, steps=self.clock.steps),
            prototypes_frozen=step < self.clock.steps_of(schedule.freeze_prototypes_epochs),
        )

    # ---- the parts of a step, in the order of `forward`

    def _forget_unless(self, step: int) -> None:
        """A step that was skipped leaves no trace; the parts of an accumulated step share one."""
        if step != self._noted_step:
            for part in (self.centre_cls, self.centre_patch, self.masks):
                part.forget()
        self._noted_step = step

    def _normalised(self, pixels_BVCHW: Tensor) -> Tensor:
        """uint8 with one or three channels -> float32 with three, view-major."""
        image_NCHW = (_view_major(pixels_BVCHW).float() - self.mean) / self.std
        if self.recipe.engine.channels_last and image_NCHW.is_cuda:
            image_NCHW = image_NCHW.contiguous(memory_format=torch.channels_last)
        return image_NCHW

    @torch.no_grad()
    def _ask_teacher(self, batch: Batch, large_NCHW: Tensor, now: Now) -> tuple[Targets, Looked]:
        features, attention_NLL = cast(Backbone, self.teacher.backbone).attend(large_NCHW)
        cls_NK, patch_NLK = self.teacher.head(features.pooled_BD, features.tokens_BND)
        eligible_NHW = self._eligible(batch.global_valid_BVHW)
        eligible_NL = None if eligible_NHW is None else eligible_NHW.flatten(1)
        looked = Looked(
            attention_NL=attention_NLL.float().mean(1),  # over queries: how much each cell is looked at
            eligible_NL=eligible_NL,
            sample_N=batch.sample_index_B.repeat(batch.global_BVCHW.shape[1]),
            box_N4=_view_major(self._boxes(batch)),
            views=batch.global_BVCHW.shape[1],
            grid=features.grid,
        )
        weight_M = None if eligible_NL is None else eligible_NL.flatten()
        patch_MK = self.centre_patch.targets(_have(patch_NLK).flatten(0, 1), now.patch_temperature, weight_M)
        cls_NK = self.centre_cls.targets(cls_NK, self.recipe.losses.teacher_temperature)
        return Targets(cls_NK=cls_NK, patch_NLK=patch_MK.view_as(_have(patch_NLK))), looked

    def _boxes(self, batch: Batch) -> Tensor:
        """Crops (B, V, 4) of the large views as shares of the image; the whole image where the batch does not say."""
        boxes_BV4 = batch.global_box_BV4
        if boxes_BV4 is not None:
            return boxes_BV4
        if self.masks.memory is not None and not self._said:
            logger.warning("batches do not say where their crops lie: difficulties are kept by place in the view")
            self._said = True
        whole_4 = batch.global_valid_BVHW.new_tensor([0.0, 0.0, 1.0, 1.0])
        return whole_4.expand(*batch.global_BVCHW.shape[:2], 4)

    def _eligible(self, valid_BVHW: Tensor) -> Tensor | None:
        """Cells with enough of the scan area inside, (N, H, W); None where the recipe does not ask."""
        least = self.recipe.masking.inside_share
        return _view_major(valid_BVHW) >= least if least else None

    @torch.no_grad()
    def _mask_large(self, large_NCHW: Tensor, looked: Looked, now: Now, step: int) -> Choice:
        def redraw(mask_NHW: Tensor) -> Tensor:
            training = self.student.training
            self.student.eval()
            error_NHW = cell_errors(self.student.redraw(large_NCHW, mask_NHW), large_NCHW, self.stride)
            self.student.train(training)
            return error_NHW

        return self.masks.large(looked, redraw, alpha=now.alpha, chosen_share=now.chosen_share, step=step)

    def _show_small(self, batch: Batch, small_NCHW: Tensor, step: int) -> tuple[Shown | None, Tensor | None, Tensor]:
        """[CLS] of the small views; their pixels and masks from a masked pass, which as released is the same (D6)."""
        views, (rows, columns) = batch.local_BVCHW.shape[1], batch.local_valid_BVHW.shape[2:]
        eligible_NHW = self._eligible(batch.local_valid_BVHW)
        mask_NHW = self.masks.blocks(
            batch.sample_ids, views, (rows, columns), step=step, stream="small", eligible_NHW=eligible_NHW
        ).to(small_NCHW.device)
        if not views:
            return None, None, mask_NHW
        wanted = self.recipe.losses.reconstruct_local > 0
        if self.recipe.losses.local_cls == "masked":
            shown: Shown = self.student(small_NCHW, mask_NHW, pixels=wanted)
            return shown, shown.pixels_NCHW, mask_NHW
        drawn_NCHW = self.student.redraw(small_NCHW, mask_NHW) if wanted else None
        return self.student(small_NCHW), drawn_NCHW, mask_NHW

    def _view_term(self, targets: Targets, large: Shown, small: Shown | None, images: int) -> Tensor:
        logits_NK = large.cls_NK if small is None else torch.cat([large.cls_NK, small.cls_NK])
        prototypes = logits_NK.shape[1]
        return view_loss(
            targets.cls_NK.view(-1, images, prototypes),
            logits_NK.view(-1, images, prototypes),
            self.recipe.losses.student_temperature,
        )

    def _patch_term(self, batch: Batch, targets: Targets, large: Shown, choice: Choice, step: int) -> Tensor:
        mask_NL = choice.mask_BN
        if self.recipe.masking.loss_mask == "blocks":  # the released default: not the mask that was applied (D2)
            views, (rows, columns) = batch.global_BVCHW.shape[1], batch.global_valid_BVHW.shape[2:]
            blocks_NHW = self.masks.blocks(
                batch.sample_ids, views, (rows, columns), step=step, stream="large", eligible_NHW=None
            )
            mask_NL = blocks_NHW.flatten(1).to(mask_NL.device)
        temperature = self.recipe.losses.student_temperature
        return patch_loss(targets.patch_NLK, _have(large.patch_NLK), mask_NL, temperature)

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.recipe.losses, name) * value.float() for name, value in terms.items()]).sum()

    def _health(self, choice: Choice, targets: Targets) -> dict[str, Tensor]:
        """Numbers that tell a collapse from progress: entropy in nats, at most log(prototypes)."""
        entropy = -(targets.cls_NK * targets.cls_NK.clamp(min=1e-12).log()).sum(-1).mean()
        return {"mask_ratio": choice.mask_BN.float().mean(), "teacher_entropy": entropy}

    @torch.no_grad()
    def _pictures(
        self, large_NCHW: Tensor, looked: Looked, choice: Choice, errors_NHW: Tensor, large: Shown
    ) -> dict[str, Tensor]:
        """First large view of the first images, in [0, 1], and its maps on the mask's grid."""
        some = slice(0, min(PICTURES, len(large_NCHW) // looked.views))
        difficulty_NL = errors_NHW.flatten(1)
        if self.masks.memory is not None:
            difficulty_NL = self.masks.memory.read(looked.sample_N, looked.box_N4, *looked.grid).score_BN
        maps = {"attention": looked.attention_NL, "difficulty": difficulty_NL, "mask": choice.mask_BN.float()}
        images = {"image": large_NCHW, "reconstruction": _have(large.pixels_NCHW).float()}
        return {name: normalise(map_NL[some]).view(-1, *looked.grid) for name, map_NL in maps.items()} | {
            name: ((image_NCHW[some] * self.std + self.mean) / 255).clamp(0, 1) for name, image_NCHW in images.items()
        }


def _head(dim: int, recipe: PretrainRecipe, *, separate: bool) -> ProjectionHead:
    head = recipe.head
    return ProjectionHead(
        dim, hidden=head.hidden, bottleneck=head.bottleneck, prototypes=head.prototypes, separate=separate
    )


def _teacher_of(student: Network, dim: int, recipe: PretrainRecipe) -> Network:
    """A copy of the student without its decoder; as released, with one set of prototypes (D8, D9)."""
    released = recipe.head.teacher == "released"
    head = _head(dim, recipe, separate=False) if released else copy.deepcopy(student.head)
    teacher = Network(copy.deepcopy(student.backbone), head, None)
    start_from(teacher, student)
    if released:  # the released copy ends with the student's patch prototypes, whose tensor the teacher shares
        teacher.head.last_layer.weight_v.data.copy_(student.head.last_layer2.weight_v.data)
    return teacher


def _centring(recipe: PretrainRecipe) -> Centring:
    if recipe.losses.centring == "sinkhorn":
        return Sinkhorn(recipe.losses.sinkhorn_iterations)
    return MeanCentre(recipe.head.prototypes, recipe.losses.centre_momentum)


def _view_major(x_BV: Tensor) -> Tensor:
    """(B, V, ...) -> (V * B, ...)."""
    return x_BV.transpose(0, 1).flatten(0, 1)


def _have(value: Tensor | None) -> Tensor:
    if value is None:
        raise AssertionError("asked for what was not computed")
    return value
