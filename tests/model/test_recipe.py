"""Recipes are typed, strict and complete."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest
import yaml

from openus_model import cli
from openus_model.errors import RecipeError
from openus_model.recipe import PretrainRecipe, describe_keys, load_recipe, recipe_from_dict, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_comes_with_the_package_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert recipe_from_dict(recipe.to_dict()) == recipe
    assert recipe.name == name


def test_the_defaults_are_the_papers_recipe() -> None:
    assert load_recipe("openus_small") == PretrainRecipe()


def test_released_switches_every_departure_back_on() -> None:
    released, paper = load_recipe("openus_small_released"), load_recipe("openus_small")
    assert (released.masking.rule, released.masking.difficulty) == ("released", "previous_batch")
    assert (released.head.teacher, released.losses.local_cls) == ("released", "masked")
    assert (released.optimizer.decay, released.optimizer.clip_rule) == ("released", "per_tensor")
    assert released.views == paper.views


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("masking.ratoi=0.5", ("masking.ratoi", "did you mean ratio?")),
        ("maskin.ratio=0.5", ("maskin", "did you mean masking?")),
        ("masking.rule=papr", ("masking.rule", "did you mean paper?")),
        ("masking.ratio=3", ("masking.ratio", "[0, 1]", "3")),
        ("optimizer.lr=fast", ("optimizer.lr", "float", "fast")),
        ("views.global_size=100", ("views.global_size", "multiple of 32", "100")),
        ("engine.seed=true", ("engine.seed", "int")),
        ("views.global_scale=[0.5]", ("views.global_scale",)),
        ("engine.seed", ("section.key=value",)),
        ("engine.seed.deep=1", ("engine.seed.deep",)),
    ],
)
def test_a_wrong_override_is_refused_in_one_line_that_says_where(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("smoke", ("engine.seed=1", text))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_number_in_scientific_notation_is_a_number() -> None:
    assert load_recipe("smoke", ("optimizer.lr=1e-4",)).optimizer.lr == 1e-4


def test_later_overrides_win() -> None:
    assert load_recipe("smoke", ("engine.seed=1", "engine.seed=2")).engine.seed == 2


def test_extends_takes_the_rest_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: smoke\nengine: {seed: 7, batch_size: 2}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nengine: {batch_size: 3}\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.engine.seed, recipe.engine.batch_size) == ("mine", 7, 3)
    assert recipe.backbone.name == "vmamba_nano"


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["a: [", "just words", "data: 3"])
def test_a_file_that_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        load_recipe(tmp_path / "bad.yaml")


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean openus_small"):
        load_recipe("openus_smal")


def test_every_key_has_a_meaning_and_a_default_that_yaml_reads_back() -> None:
    described = {key: (default, meaning) for key, _, default, meaning in describe_keys()}
    tree = PretrainRecipe().to_dict()
    for section in dataclasses.fields(PretrainRecipe):
        if section.name == "name":
            continue
        for key, value in tree[section.name].items():
            default, meaning = described[f"{section.name}.{key}"]
            assert meaning.endswith((".", ")."))
            assert yaml.safe_load(default) == value


def test_the_help_names_every_recipe_that_comes_with_the_package() -> None:
    told = typing.get_args(cli.Recipe)[1].help
    assert set(recipe_names()) <= set(told.replace(",", "").split())


def test_a_wrong_override_is_not_blamed_on_the_file_alone() -> None:
    with pytest.raises(RecipeError, match=r"smoke\.yaml with overrides: unknown key optimiser"):
        load_recipe("smoke", ("optimiser.lr=1",))
