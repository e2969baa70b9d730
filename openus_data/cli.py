"""The command `openus-data`: parse, call, print. No logic.

Each command imports its module when it is called, so that `--help` starts fast and loads nothing that is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from openus_data import __version__
from openus_data.commands import answer, invoke, run

app = typer.Typer(
    name="openus-data",
    help="Fetch, curate, de-identify, shard and audit ultrasound images. A research tool: no diagnosis.",
    epilog="First steps: openus-data list; openus-data fetch pydicom-us --root data; "
    "openus-data build pydicom-us --root data --out out; openus-data audit out --html audit.html",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Dataset ids, as in `openus-data list`.")]
Root = Annotated[Path, typer.Option("--root", help="Where downloads and unpacked datasets lie.")]
Cards = Annotated[
    list[Path] | None,
    typer.Option("--cards", help="A folder of your own cards beside the built-in ones (also OPENUS_CARDS)."),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `openus-data build` made.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="Secret key of private data; made on first use, readable by you only."),
]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"openus-data {__version__}")
        raise typer.Exit()


@app.command("list", epilog="Example: openus-data list --openus --organ breast --json")
def list_cards(
    openus: Annotated[bool, typer.Option("--openus", help="Only the 42 datasets of the OpenUS paper.")] = False,
    organ: Annotated[str | None, typer.Option(help="Only this organ.")] = None,
    access: Annotated[str | None, typer.Option(help="open | registration | data-use-agreement | request")] = None,
    license_class: Annotated[str | None, typer.Option("--license", help="Only this licence class.")] = None,
    cards: Cards = None,
    as_json: Json = False,
) -> None:
    """The datasets there are cards for."""

    def command() -> int:
        from openus_data.catalogue import list_datasets

        return answer(
            list_datasets(cards or [], openus=openus, organ=organ, access=access, license_class=license_class),
            as_json=as_json,
        )

    _exit(command)


@app.command(epilog="Example: openus-data show busi")
def show(
    dataset: Annotated[str, typer.Argument(metavar="ID", help="Id of a dataset.")],
    cards: Cards = None,
    as_json: Json = False,
) -> None:
    """A card whole: licence, citation, warnings, how to obtain the data by hand."""

    def command() -> int:
        from openus_data.catalogue import show_dataset

        return answer(show_dataset(dataset, cards or []), as_json=as_json)

    _exit(command)


@app.command("check-card", epilog="Example: openus-data check-card my.toml --files data/my/files")
def check_card(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A card.")],
    files: Annotated[Path | None, typer.Option("--files", help="A folder: what would each rule match there?")] = None,
    as_json: Json = False,
) -> None:
    """Validate a card strictly."""

    def command() -> int:
        from openus_data.catalogue import check_card as check

        return answer(check(file, files), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-data unpack archive.zip --out folder")
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make; must not exist yet.")],
    as_json: Json = False,
) -> None:
    """Unpack one archive safely: nothing leaves the folder, and it appears whole or not at all."""

    def command() -> int:
        from openus_data.archive import unpack as unpack_file

        return answer(unpack_file(file, out), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-data fetch busi bus_bra --root data --jobs 4")
def fetch(
    ids: Ids = None,
    root: Root = Path("data"),
    all_open: Annotated[bool, typer.Option("--all-open", help="Every dataset that needs no person.")] = False,
    from_path: Annotated[
        Path | None, typer.Option("--from", help="Take a folder or an archive that you already have.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Take files from BASE/<id>/<filename>, a URL or a folder.")] = None,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="Accept the terms of this dataset; see `openus-data show`.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Downloads at once.", min=1, max=32)] = 4,
    cards: Cards = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Download, resume, verify and unpack datasets."""

    def command() -> int:
        from openus_data.card import load_cards, open_cards, resolve_cards
        from openus_data.fetch import fetch as fetch_datasets

        known = load_cards(cards or [])

        return answer(
            fetch_datasets(
                open_cards(known) if all_open else resolve_cards(ids or [], known),
                root,
                from_path=from_path,
                mirror=mirror,
                accept=tuple(accept or ()),
                jobs=jobs,
                dry_run=dry_run,
                quiet=quiet or as_json,
            ),
            as_json=as_json,
        )

    _exit(command)


@app.command(epilog="Example: openus-data build --images scans --name clinic --root data --out out --recipe private")
def build(
    ids: Ids = None,
    root: Root = Path("data"),
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the corpus; may hold an earlier build to add to.")
    ] = ...,  # type: ignore[assignment]
    images: Annotated[Path | None, typer.Option("--images", help="A private folder without a card.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Id for the private folder.")] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="openus | quickstart | private, or a file.")] = "openus",
    key_file: KeyFile = None,
    policy: Annotated[str | None, typer.Option(help="Burned-in text: mask | quarantine | keep.")] = None,
    license_class: Annotated[
        str | None, typer.Option("--license-class", help="Keep only these licence classes, with commas.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.", min=1)] = None,
    executor: Annotated[str, typer.Option(help="local | ray")] = "local",
    limit: Annotated[int | None, typer.Option(help="At most this many files per dataset.", min=1)] = None,
    cards: Cards = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decode, de-identify, crop, de-duplicate, split and shard."""

    def command() -> int:
        from openus_data.build import BuildRequest
        from openus_data.build import build as build_corpus
        from openus_data.card import named_cards

        return answer(
            build_corpus(
                BuildRequest(
                    cards=named_cards(ids or [], cards or []),
                    root=root,
                    out=out,
                    images=images,
                    name=name,
                    recipe=recipe,
                    key_file=key_file,
                    policy=policy,
                    license_classes=tuple(license_class.split(",")) if license_class else (),
                    workers=workers,
                    executor=executor,
                    limit=limit,
                    dry_run=dry_run,
                    quiet=quiet or as_json,
                )
            ),
            as_json=as_json,
        )

    _exit(command)


@app.command(epilog="Example: openus-data audit out --html audit.html --by organ,device_manufacturer --strict")
def audit(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="One or several corpora.")],
    by: Annotated[str | None, typer.Option(help="Columns to count by, with commas.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition: audit only these rows.")] = None,
    compare: Annotated[Path | None, typer.Option(help="An earlier build: what came, went, changed?")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained HTML file.")] = None,
    bibtex: Annotated[Path | None, typer.Option(help="Write the citations of every dataset included.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Thresholds for --strict.")] = None,
    images: Annotated[str, typer.Option(help="Look at pixels again: none | sample | all.")] = "sample",
    sources: Annotated[
        Path | None, typer.Option(help="DICOM it was built from: no name, number, date or UID of it may be in OUT.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on any finding.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """What is in here, may I use it, is it clean: composition, leaks, residual identity, licences."""

    def command() -> int:
        from openus_data.audit import AuditRequest
        from openus_data.audit import audit as audit_corpora

        return answer(
            audit_corpora(
                AuditRequest(
                    outs=tuple(outs),
                    by=tuple(by.split(",")) if by else (),
                    where=where,
                    compare=compare,
                    html=html,
                    bibtex=bibtex,
                    recipe=recipe,
                    images=images,
                    sources=sources,
                    strict=strict,
                    quiet=quiet or as_json,
                )
            ),
            as_json=as_json,
        )

    _exit(command)


@app.command(epilog="Example: openus-data verify out")
def verify(out: Out, quiet: Quiet = False, as_json: Json = False) -> None:
    """Hold the manifest against the shards: missing, torn, flipped, orphaned."""

    def command() -> int:
        from openus_data.verify import verify as verify_corpus

        return answer(verify_corpus(out, quiet=quiet or as_json), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-data preview out --out sheet.png --by organ -n 24")
def preview(
    corpus: Out,
    out: Annotated[Path, typer.Option("--out", help="FILE.png or FILE.html")],
    by: Annotated[str | None, typer.Option(help="Group by a manifest column.")] = None,
    count: Annotated[int, typer.Option("-n", help="Images shown.", min=1)] = 24,
    as_json: Json = False,
) -> None:
    """A contact sheet with scan areas and removed text drawn."""

    def command() -> int:
        from openus_data.preview import preview as draw_preview

        return answer(draw_preview(corpus, out, by=by, count=count), as_json=as_json)

    _exit(command)


@app.command(epilog='Example: openus-data query out "select organ, count(*) from manifest group by organ"')
def query(
    out: Out,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A query over the tables manifest and rejects.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Read-only SQL over the manifest."""

    def command() -> int:
        from openus_data.query import query as run_query

        return answer(run_query(out, sql, as_csv=as_csv), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-data cone scan.png clip.mp4 --overlay overlays --json")
def cone(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Images, videos, DICOM files or folders.")],
    overlay: Annotated[Path | None, typer.Option(help="Folder for pictures with the outline drawn.")] = None,
    as_json: Json = False,
) -> None:
    """Find the scan area, one detection per file."""

    def command() -> int:
        from openus_data.detect import detect_paths

        return answer(detect_paths(paths, overlay=overlay), as_json=as_json)

    _exit(command)


@app.command(epilog="Example: openus-data deid archive clean --key-file archive.key")
def deid(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A DICOM file or a folder of them.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the de-identified copies.")],
    key_file: KeyFile = None,
    dates: Annotated[str, typer.Option(help="remove | shift (one offset per patient, intervals exact)")] = "remove",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """DICOM in, de-identified DICOM out: headers by allow-list, pixels cleaned and checked."""

    def command() -> int:
        from openus_data.deidentify import deidentify

        return answer(
            deidentify(source, target, key_file=key_file, dates=dates, quiet=quiet or as_json), as_json=as_json
        )

    _exit(command)


def _exit(command: Callable[[], int]) -> None:
    raise typer.Exit(run(command))


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(invoke(app))


if __name__ == "__main__":
    main()
