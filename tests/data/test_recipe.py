"""Recipes are strict: what is misspelt, out of range or of the wrong kind names its file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from openus_data.errors import RecipeError
from openus_data.recipe import BuildRecipe, built_in_recipes, load_recipe, recipe_reference


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_every_built_in_recipe_loads() -> None:
    assert set(built_in_recipes()) >= {"openus", "quickstart", "private"}
    for name in built_in_recipes():
        assert isinstance(load_recipe(name), BuildRecipe)


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "")) == BuildRecipe()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imagee: {}", "did you mean 'image'"),
        ("image: {codc: png}", "mine.yaml.image.codc: unknown key; did you mean 'codec'"),
        ("image: {codec: pgn}", "did you mean 'png'"),
        ("image: {jpeg_quality: 101}", "expected 1 to 100"),
        ("image: {jpeg_quality: high}", "expected a whole number"),
        ("split: {val: 0.6, test: 0.6}", "out of range"),
        ("split: {val: .nan}", "out of range"),
        ("frames: {policy: every 0}", "unknown frame policy"),
        ("- 1", "expected a table"),
        ("image: [", "not a YAML file"),
        ("image: {codec: png}\nimage: {codec: webp}", "stands twice"),
        ("a: &x {}\nimage: *x", "aliases"),
        ("text: !!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_a_fault_is_named_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    assert words in str(caught.value) and "mine.yaml" in str(caught.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'openus'"):
        load_recipe("opnus")


def test_every_key_is_documented() -> None:
    assert all(doc.meaning for doc in recipe_reference())
