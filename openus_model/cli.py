"""The command `openus-model`: parse, call, print. No logic.

Each command imports its module when it is called, so that `--help` needs neither torch nor time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from openus_model import __version__
from openus_model.commands import answer, invoke, run

app = typer.Typer(
    name="openus-model",
    help="Pretrain, evaluate, embed and export vision-Mamba backbones for ultrasound. A research tool: no diagnosis.",
    epilog="First steps: openus-model pretrain quickstart --data out --out run; "
    "openus-model embed --weights run --data out --out embeddings.parquet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No live display.")]
WeightsOrHub = Annotated[
    str, typer.Option("--weights", help="A run, a folder that export or import-weights made, or `hf:owner/name`.")
]
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="quickstart | openus_small | openus_small_released | openus_plus | smoke, or a YAML file.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be given several times."),
]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"openus-model {__version__}")
        raise typer.Exit()


@app.command(epilog="Example: openus-model pretrain openus_small --data out --out run --set optimizer.lr=2e-4 --resume")
def pretrain(
    recipe: Recipe,
    data: Annotated[str, typer.Option("--data", help="A folder that `openus-data build` made, or a URL of one.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    overrides: Overrides = None,
    where: Annotated[
        str | None, typer.Option("--where", help="Train on the rows that satisfy this SQL condition: data.where.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last sound checkpoint.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Pretrain a backbone; also under `torchrun` for several GPUs or hosts."""

    def command() -> int:
        from openus_model.pretrain import pretrain as start

        settings = (*(overrides or ()), *((f"data.where={json.dumps(where)}",) if where else ()))
        report = start(recipe, data, out, overrides=settings, resume=resume, quiet=quiet or as_json)
        return answer(report, as_json=as_json and report.is_main)

    _exit(command)


@app.command(epilog="Example: openus-model evaluate knn --weights run --data out --dataset busi --out scores --folds 5")
def evaluate(
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL", help="knn | linear | finetune | segment")],
    weights: Annotated[
        str,
        typer.Option(
            "--weights", help="A run or exported folder, `hf:owner/name`, `random:NAME`, or `adapter:MODULE:NAME`."
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="A folder that `openus-data build` made.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Id of the dataset to evaluate on.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for scores.json, figures and the page.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="An evaluation recipe; default is the protocol's own.")
    ] = None,
    overrides: Overrides = None,
    target: Annotated[str | None, typer.Option("--target", help="Label or manifest column to predict.")] = None,
    label_fraction: Annotated[
        float, typer.Option("--label-fraction", help="Share of training subjects used.", min=0.0, max=1.0)
    ] = 1.0,
    folds: Annotated[
        int, typer.Option("--folds", help="Cross-validate by subject; 1 uses the published split.", min=1)
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of sampling and training.")] = 0,
    allow_contaminated: Annotated[
        bool, typer.Option("--allow-contaminated", help="Go on although the weights have seen these images.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and tested, and compute nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score weights on a labelled dataset, with confidence intervals by subject."""

    def command() -> int:
        from openus_model.evaluate import EvaluateRequest, rehearse
        from openus_model.evaluate import evaluate as score

        request = EvaluateRequest(
            protocol=protocol,
            weights=weights,
            data=data,
            dataset=dataset,
            out=out,
            recipe=recipe,
            overrides=tuple(overrides or ()),
            target=target,
            label_fraction=label_fraction,
            folds=folds,
            seed=seed,
            allow_contaminated=allow_contaminated,
            quiet=quiet or as_json,
        )
        return answer(rehearse(request) if dry_run else score(request), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-model embed --weights run --images scans --out embeddings.parquet")
def embed(
    weights: WeightsOrHub,
    out: Annotated[Path, typer.Option("--out", help="FILE.parquet")],
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder that `openus-data build` made; or else --images.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="A folder of pictures; or else --data.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images at once.", min=1)] = 32,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """An embedding per image, as Parquet."""

    def command() -> int:
        from openus_model.embed import embed as write_embeddings
        from openus_model.hub import locate

        report = write_embeddings(
            locate(weights), out, data=data, images=images, batch_size=batch_size, quiet=quiet or as_json
        )
        return answer(report, as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-model masks --weights run --images scans --out masks.png")
def masks(
    weights: Annotated[
        Path, typer.Option("--weights", help="A run, or one of its checkpoints; exports lack the decoder.")
    ],
    images: Annotated[Path, typer.Option("--images", help="A folder of pictures; the first eight are drawn.")],
    out: Annotated[Path, typer.Option("--out", help="FILE.png")],
    as_json: Json = False,
) -> None:
    """The paper's figure for your own images: input, teacher attention, difficulty, mask."""

    def command() -> int:
        from openus_model.masks import draw_masks

        return answer(draw_masks(weights, images, out), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-model export --weights run --out openus-small --onnx 224")
def export(
    weights: WeightsOrHub,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    onnx: Annotated[
        int | None, typer.Option("--onnx", help="Also write ONNX for square inputs of this many pixels.")
    ] = None,
    push: Annotated[str | None, typer.Option("--push", help="Also upload to this Hugging Face repository.")] = None,
    as_json: Json = False,
) -> None:
    """Weights as safetensors with config and model card."""

    def command() -> int:
        from openus_model.export import export as write_export
        from openus_model.hub import locate

        return answer(write_export(locate(weights), out, onnx_size=onnx, push=push), as_json=as_json)

    _exit(command)


@app.command(
    "import-weights",
    epilog="Example: openus-model import-weights vssm_small_0229_ckpt_epoch_222.pth --out vmamba-small",
)
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE.pth", help="A public VMamba or OpenUS checkpoint.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    as_json: Json = False,
) -> None:
    """Take over a public checkpoint, its pickle not run; every tensor is placed or named as unused."""

    def command() -> int:
        from openus_model.weights import import_weights as take_over

        return answer(take_over(file, out), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-model describe vmamba_small --json")
def describe(
    backbone: Annotated[
        str | None, typer.Argument(metavar="BACKBONE", help="vmamba_nano | vmamba_small | ...; default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Parameters, multiply-adds and stage shapes of a backbone."""

    def command() -> int:
        from openus_model.describe import describe as measure

        return answer(measure(backbone), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-model plan openus_small --gpus 4 --gpu h100")
def plan(
    recipe: Recipe,
    gpus: Annotated[int, typer.Option("--gpus", help="How many; they share the recipe's batch.", min=1)] = 1,
    gpu: Annotated[
        str, typer.Option("--gpu", help="a100 | h100 | h200 | ..., or `here` to time steps on this machine.")
    ] = "h100",
    images: Annotated[int, typer.Option("--images", help="Images in the corpus.", min=1)] = 308_000,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Time, memory and I/O of a run before one pays for it, and what the estimate rests on."""

    def command() -> int:
        from openus_model.plan import plan as estimate

        return answer(
            estimate(recipe, gpus=gpus, gpu=gpu, images=images, overrides=tuple(overrides or ())), as_json=as_json
        )

    _exit(command)


@app.command(epilog="Example: openus-model bench scan --json")
def bench(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="scan: the selective scan on the CPU; step: a backbone's forward and backward; stream: JPEG to views.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Time a part on one CPU core, each figure as a ratio against its named baseline; up to two minutes."""

    def command() -> int:
        from openus_model.bench import bench as time_it

        return answer(time_it(what), as_json=as_json)

    _exit(command)


def _exit(command: Callable[[], int]) -> None:
    raise typer.Exit(run(command))


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(invoke(app))


if __name__ == "__main__":
    main()
