"""The GIMP filter's catalogues: complete, in step with the source, and compiled as they are."""

import ast
import gettext
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from gimp.gimp import REPOSITORY

from dfi_server import paths
from dfi_server.vectors.store import open_store

PLUGIN = REPOSITORY / "gimp_plugin"
CATALOGUES = sorted((PLUGIN / "po").glob("*.po"))
REMEDY = "run gimp_plugin/po/update, fill in the .po files, and run it again"


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=path.stem)


def mnemonic(text: str) -> list[str]:
    return re.findall(r"_(\w)", text.upper())


def test_there_is_a_translation() -> None:
    assert [path.stem for path in CATALOGUES] == ["ja"]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_catalogue(path: Path) -> None:
    catalogue = read(path)
    texts = {message.id: message.string for message in catalogue if message.id}
    marked = {text for _, _, text, _, _ in extract_from_dir(PLUGIN / "dfi", keywords={"_": None})}
    assert len(marked) > 80
    assert set(texts) == marked, REMEDY
    for text, translation in texts.items():
        assert translation, f"{text!r} has no translation: {REMEDY}"
        assert set(re.findall(r"{\w+[^}]*}", text)) == set(re.findall(r"{\w+[^}]*}", translation)), text
        if not text.startswith("An attribute of"):  # which names some, with underscores
            assert mnemonic(text) == mnemonic(translation) or text == "_Deep Feature Interpolation...", text

    compiled = gettext.translation("dfi", PLUGIN / "dfi" / "locale", [path.stem])
    assert {text: compiled.gettext(text) for text in texts} == texts, REMEDY


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_every_attribute_of_the_starter_is_translated(path: Path) -> None:
    """GIMP's Python runs names.py, which nothing here can import: its table is read instead."""
    (table,) = (
        node.value
        for node in ast.parse((PLUGIN / "dfi" / "names.py").read_text("utf-8")).body
        if isinstance(node, ast.Assign)
    )
    assert isinstance(table, ast.Dict)
    titles = {ast.literal_eval(key): marked.args[0].value for key, marked in zip(table.keys, table.values, strict=True)}
    names = open_store(paths.STARTER.name).info.attributes
    assert set(titles) == set(names)
    translations = {message.id: message.string for message in read(path)}
    translated = [translations[title] for title in titles.values()]
    assert not set(translated) & set(titles.values())
    assert len(set(translated)) == len(names)  # no two that a user could not tell apart
