"""What a build is asked to do, decided before anything is done: datasets, their terms, keys, and what is wrong with it.

plan = plan_build(request)
for source in plan.sources: source.list(pseudonymizer)
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from openus_data.card import Card, find_cards_dirs, load_card, load_cards
from openus_data.card_fields import LicenseClass
from openus_data.deid.pseudonym import Pseudonymizer, load_or_create_key, public_pseudonymizer
from openus_data.errors import UsageError
from openus_data.first_stage.candidate import settings_digest
from openus_data.first_stage.records import DatasetTerms, StageOne
from openus_data.items import folder_items, list_items
from openus_data.recipe import BuildRecipe, Policy, load_recipe
from openus_data.records import Item, Reject
from openus_data.schema import SAMPLE_ID_PATTERN

KEY_NAME: Final = "key"
LONGEST_NAME: Final = 60
OPENUS_SET: Final = "openus"
EXECUTOR_NAMES: Final = ("local", "ray")
T = TypeVar("T", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What the command line says.

    Args:
        out: folder of the corpus; one that holds an earlier build is added to.
        root: where fetched datasets and the secret key lie.
        cards: cards of the public datasets; empty: those that the recipe names, where there is no `images` either.
        images: a private folder without a card, or None.
        name: the private folder's dataset id.
        recipe: name of a built-in recipe, or a path.
        key_file: the secret key of private data; None for ROOT/key.
        policy: what happens to burned-in text; None for the recipe's.
        license_classes: keep datasets of these classes only; empty for the recipe's.
        workers: processes; None for one a core.
        executor: local or ray.
        limit: files of each dataset at most; None for all.
        dry_run: say what would be done.
        quiet: no progress.
    """

    out: Path
    root: Path = Path("data")
    cards: tuple[Card, ...] = ()
    images: Path | None = None
    name: str | None = None
    recipe: str = "openus"
    key_file: Path | None = None
    policy: str | None = None
    license_classes: tuple[str, ...] = ()
    workers: int | None = None
    executor: str = "local"
    limit: int | None = None
    dry_run: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One dataset of a build.

    Args:
        terms: what holds for its files.
        folder: where they lie. Never shown.
        limit: files at most, or None.
    """

    terms: DatasetTerms
    folder: Path = field(repr=False)
    limit: int | None = None

    def list(self) -> Iterator[Item | Reject]:
        """Its files in a fixed order, and a reject for each that no rule knows."""
        terms = self.terms
        if terms.card is None:
            entries = folder_items(self.folder, terms.dataset, terms.pseudonymizer)
        else:
            entries = list_items(terms.card, self.folder, terms.pseudonymizer)
        if self.limit is None:
            return entries
        return islice((e for e in entries if isinstance(e, Item)), self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """A request, decided.

    Args:
        request: as it came.
        recipe: with what the command line overrides.
        sources: the datasets that are built.
        refused: datasets left out for their licence: id and class.
        missing: datasets that are not there: id and what to do.
    """

    request: BuildRequest
    recipe: BuildRecipe
    sources: tuple[Source, ...]
    refused: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]

    def cards(self, datasets: Iterable[str]) -> dict[str, Card]:
        """The cards of these datasets, by id; those of private folders have none."""
        given = {str(card.id): card for card in self.request.cards}
        found = {name: given.get(name) or find_card(name) for name in datasets}
        return {name: card for name, card in found.items() if card is not None}

    @property
    def stage(self) -> StageOne:
        """What the first stage depends on."""
        return StageOne(recipe=self.recipe, datasets={s.terms.dataset: s.terms for s in self.sources})

    def recipe_json(self) -> dict[str, Any]:
        """The resolved recipe as it stands in build.json."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self.recipe)))
        return plain


def plan_build(request: BuildRequest) -> BuildPlan:
    """Decide what to build; opens no data.

    Raises:
        UsageError: nothing to build, a bad name, folder, key or option.
    """
    recipe = load_recipe(request.recipe)
    _check_folders(request)
    policy = _choice(request.policy, get_args(Policy), "policy") if request.policy else None
    if policy:
        recipe = replace(recipe, text=replace(recipe.text, policy=policy, private_policy=policy))
    _choice(request.executor, EXECUTOR_NAMES, "executor")
    classes = request.license_classes or recipe.license_classes
    for name in classes:
        _choice(name, get_args(LicenseClass), "license class")
    recipe = replace(recipe, license_classes=tuple(sorted(classes)))
    wanted = request.cards or (() if request.images else _recipe_cards(recipe))
    if request.name is not None and (find_card(request.name) or request.name in {c.id for c in wanted}):
        raise UsageError("the name is that of a public dataset", where=f"--name {request.name}")
    if not wanted and request.images is None:
        raise UsageError("nothing to build", next_step="name datasets, or give --images DIR --name ID")
    secret = _secret_key(request) if request.images or any(c.private for c in wanted) else None
    allowed = [c for c in wanted if not classes or c.license.class_ in classes]
    sources = [_card_source(c, request, recipe, secret) for c in allowed]
    present = tuple(s for s in sources if s.folder.is_dir())
    private = (_folder_source(request, recipe, secret),) if request.images and secret else ()
    return BuildPlan(
        request=request,
        recipe=recipe,
        sources=(*present, *private),
        refused=tuple((str(c.id), c.license.class_) for c in wanted if c not in allowed),
        missing=tuple((s.terms.dataset, f"openus-data fetch {s.terms.dataset}") for s in sources if s not in present),
    )


def find_card(name: str) -> Card | None:
    """The card of one dataset in the known folders, without loading the others."""
    for folder in reversed(find_cards_dirs()):
        path = folder / f"{name}.toml"
        if path.is_file():
            return load_card(path)
    return None


def _recipe_cards(recipe: BuildRecipe) -> tuple[Card, ...]:
    known = load_cards() if recipe.datasets else {}
    chosen: dict[str, Card] = {}
    for name in recipe.datasets:
        if name == OPENUS_SET:
            chosen.update({k: c for k, c in known.items() if c.is_openus})
        else:
            chosen[_choice(name, tuple(known), "dataset id")] = known[name]
    return tuple(chosen.values())


def _card_source(card: Card, request: BuildRequest, recipe: BuildRecipe, secret: Pseudonymizer | None) -> Source:
    names = secret if card.private and secret else public_pseudonymizer()
    terms = DatasetTerms(
        dataset=str(card.id),
        role=card.role,
        license=card.license.name,
        redistributable=card.license.redistributable,
        card_sha256=card.sha256,
        is_private=card.private,
        header_subject=card.subject.header,
        family=card.leak_family,
        policy=_policy(recipe, is_private=card.private),
        pseudonymizer=names,
        card=card,
    )
    terms = replace(terms, settings=settings_digest(recipe, terms))
    return Source(terms=terms, folder=request.root / str(card.id) / "files", limit=request.limit)


def _folder_source(request: BuildRequest, recipe: BuildRecipe, secret: Pseudonymizer) -> Source:
    name = request.name or ""
    role = recipe.split.role_of_private
    options = json.dumps({"name": name, "role": role}, sort_keys=True)
    terms = DatasetTerms(
        dataset=name,
        role=role,
        license=None,
        redistributable=False,
        card_sha256=hashlib.sha256(options.encode()).hexdigest(),
        is_private=True,
        header_subject=True,
        family=None,
        policy=_policy(recipe, is_private=True),
        pseudonymizer=secret,
    )
    terms = replace(terms, settings=settings_digest(recipe, terms))
    return Source(terms=terms, folder=request.images or Path(), limit=request.limit)


def _policy(recipe: BuildRecipe, *, is_private: bool) -> Policy:
    return (recipe.text.private_policy if is_private else None) or recipe.text.policy


def _secret_key(request: BuildRequest) -> Pseudonymizer:
    path = request.key_file or request.root / KEY_NAME
    if path.resolve().is_relative_to(request.out.resolve()):
        raise UsageError(
            "the key would lie inside the output, beside what it protects",
            where=path.name,
            next_step="keep it elsewhere with --key-file",
        )
    if request.dry_run and not path.exists():
        return public_pseudonymizer()  # names are not written anywhere, and a dry run makes no key
    try:
        return load_or_create_key(path)
    except OSError as error:
        raise unwritable("--key-file" if request.key_file else "--root", error) from error


def unwritable(option: str, error: OSError) -> UsageError:
    """What to say of a folder that cannot be made or written; the error's own text holds its path."""
    return UsageError(
        "cannot be written", where=option, got=os.strerror(error.errno or 0), next_step="name a folder that is yours"
    )


def _check_folders(request: BuildRequest) -> None:
    if request.out.exists() and not request.out.is_dir():
        raise UsageError("not a folder", where="--out", next_step="name a folder, or one that is not there yet")
    if request.images is None:
        if request.name is not None:
            raise UsageError("--name belongs to --images", next_step="give the folder with --images DIR")
        return
    if not request.images.is_dir():
        raise UsageError("not a folder", where="--images", next_step="name the folder that holds the private pictures")
    out, images = request.out.resolve(), request.images.resolve()
    if out.is_relative_to(images) or images.is_relative_to(out):
        raise UsageError("--out and --images lie inside each other", next_step="choose another --out")
    name = request.name
    if name is None or not SAMPLE_ID_PATTERN.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UsageError(
            "a private folder needs a name",
            where="--name",
            expected=f"1 to {LONGEST_NAME} of a-z, 0-9, _ and -",
            got=repr(name)[:80],
        )


def _choice(raw: str, choices: tuple[T, ...], what: str) -> T:
    if raw in choices:
        return next(c for c in choices if c == raw)
    near = difflib.get_close_matches(raw, choices, n=1)
    step = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices)}"
    raise UsageError(f"unknown {what}", where=raw, next_step=step)
