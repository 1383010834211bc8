"""The pipeline as its callers see it: what comes back, what is reported on the way, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LFW_LIMIT
from safetensors.torch import save_file
from support.checks import refusal
from support.tiny import TINY_ATTRIBUTES, tiny_weights

from dfi_server import paths
from dfi_server.edit import Edit, Editor, Progress
from dfi_server.errors import ErrorCode
from dfi_server.face import choice, layout
from dfi_server.face.find import find_faces
from dfi_server.photo.pixels import composite, crop
from dfi_server.solver import reconstruct
from dfi_server.wire.limits import MAX_ITERATIONS, MAX_PIXELS

BOX = layout.FRAME_BOX
FEW = 3
"""Iterations: enough for a change that can be seen."""


@pytest.fixture
def editor(tiny_home: Path) -> Editor:
    return Editor("tiny", device="cpu")


def edited(pixels: np.ndarray, edit: Edit) -> np.ndarray:
    return composite(pixels, edit.patch)


def as_unit(pixels: np.ndarray) -> np.ndarray:
    scale = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return pixels.astype(np.float64) / scale


def in_dtype(face: np.ndarray, dtype: str) -> np.ndarray:
    """The 8-bit photo in another dtype."""
    return {
        "uint8": face,
        "uint16": face.astype(np.uint16) * 257,
        "float32": (face / 255).astype(np.float32),
    }[dtype]


def test_an_editor_says_what_it_holds(editor: Editor) -> None:
    assert editor.store_name == "tiny"
    assert editor.attributes == TINY_ATTRIBUTES
    assert editor.device_name in ("cpu (bfloat16)", "cpu (float32)")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_edit_comes_back_in_the_photos_own_kind(channels: int, editor: Editor, face: np.ndarray) -> None:
    """In every depth the same edit, and the photo that was given stays as it was."""
    source = face if channels == 3 else face.mean(axis=2, keepdims=True).round().astype(np.uint8)
    results = []
    for dtype in ("uint8", "uint16", "float32"):
        given = in_dtype(source, dtype)
        before = given.tobytes()
        edit = editor.edit(given, {"smiling": 0.5}, iterations=FEW)
        assert given.tobytes() == before
        assert edit.patch.pixels.dtype == given.dtype
        assert edit.patch.pixels.shape == (*edit.patch.mask.shape, channels)
        x, y, width, height = edit.patch.box
        assert 0 <= x < x + width <= 250
        assert 0 <= y < y + height <= 250
        results.append(as_unit(edited(given, edit)))
        assert np.abs(results[-1] - as_unit(source)).max() > 5 / 255
        assert np.abs(results[-1] - results[0]).mean() < 1 / 255


def test_an_edit_shows_no_edge(editor: Editor, face: np.ndarray) -> None:
    """It fades out before its rectangle ends."""
    edit = editor.edit(face, {"smiling": 2}, iterations=FEW)
    x, y, width, height = edit.patch.box
    change = np.abs(edited(face, edit).astype(int) - face)[y : y + height, x : x + width]
    border = np.concatenate([change[0], change[-1], change[:, 0], change[:, -1]])
    assert change.max() > 20
    assert border.max() <= 1


def test_the_same_edit_gives_the_same_pixels(editor: Editor, face: np.ndarray) -> None:
    first, second, third = (
        edited(face, each.edit(face, {"smiling": 0.4}, iterations=2)) for each in (editor, editor, Editor("tiny"))
    )
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


def test_in_a_photo_of_24_megapixels_that_was_seen_before_no_face_is_looked_for(
    editor: Editor, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is sent again with each edit; one pixel that changed makes it another photo."""
    searches: list[int] = []
    for name in ("find_largest", "find_faces"):
        find = getattr(choice, name)
        monkeypatch.setattr(choice, name, lambda *asked, find=find: searches.append(1) or find(*asked))
    large = np.full((4096, 5888, 3), 128, np.uint8)
    large[:, :4096] = portrait.repeat(8, axis=0).repeat(8, axis=1)
    first = editor.edit(large, {"senior": 0.4}, iterations=1).patch
    assert len(searches) == 1
    again = editor.edit(large.copy(), {"senior": 0.4}, iterations=1).patch
    assert len(searches) == 1
    assert first.box == again.box
    assert np.array_equal(first.pixels, again.pixels)
    large[-1, -1, -1] += 1
    editor.edit(large, {"senior": 0.4}, iterations=1)
    assert len(searches) == 2


def test_what_is_kept_must_be_known_and_not_be_changed_too(editor: Editor, face: np.ndarray) -> None:
    for keep, code, word in (
        (["smiling"], ErrorCode.BAD_REQUEST, "'smiling' cannot be changed and kept"),
        (["seniour"], ErrorCode.UNKNOWN_ATTRIBUTE, "senior"),
    ):
        assert word in refusal(lambda keep=keep: editor.edit(face, {"smiling": 0.4}, keep=keep), code)  # type: ignore[misc]
    plain, kept = (
        editor.edit(face, {"smiling": 0.4}, keep=keep, iterations=3).patch.pixels.astype(int)
        for keep in ((), ["mouth_wide_open"])
    )
    assert (plain != kept).any()


def test_alpha_0_changes_nothing(editor: Editor, face: np.ndarray) -> None:
    assert np.array_equal(edited(face, editor.edit(face, {"smiling": 0, "senior": 0}, iterations=FEW)), face)


def test_a_larger_alpha_changes_more_and_a_negative_one_the_other_way(editor: Editor, face: np.ndarray) -> None:
    changes = {
        alpha: as_unit(edited(face, editor.edit(face, {"smiling": alpha}, iterations=FEW))) - as_unit(face)
        for alpha in (-0.4, 0.1, 0.4)
    }
    sizes = {alpha: np.abs(change).mean() for alpha, change in changes.items()}
    assert sizes[0.4] > 1.5 * sizes[0.1] > 0
    assert np.sum(changes[0.4] * changes[-0.4]) < 0
    assert np.sum(changes[0.4] * changes[0.1]) > 0


def test_several_attributes_act_together(editor: Editor, face: np.ndarray) -> None:
    one, other, both = (
        as_unit(edited(face, editor.edit(face, alphas, iterations=FEW))) - as_unit(face)
        for alphas in ({"smiling": 0.4}, {"senior": 0.4}, {"smiling": 0.4, "senior": 0.4})
    )
    assert not np.array_equal(one, other)
    total = one + other
    cosine = np.sum(both * total) / np.sqrt(np.sum(both**2) * np.sum(total**2))
    assert cosine > 0.7


@pytest.mark.parametrize("view", ["read-only", "mirrored", "strided"])
def test_any_array_of_pixels_will_do(view: str, editor: Editor, face: np.ndarray) -> None:
    given = {
        "read-only": face.copy(),
        "mirrored": face[:, ::-1],
        "strided": np.repeat(np.repeat(face, 2, axis=0), 2, axis=1)[::2, ::2],
    }[view]
    if view == "read-only":
        given.flags.writeable = False
    plain = np.ascontiguousarray(given)
    result, expected = (edited(x, editor.edit(x, {"smiling": 0.4}, iterations=1)) for x in (given, plain))
    assert np.array_equal(result, expected)


def test_nothing_changes_outside_the_box_around_a_face(editor: Editor, portrait: np.ndarray) -> None:
    """Also where the face that is found in it reaches beyond."""
    x, y, width, height = find_faces(portrait, editor.store.canonical_landmarks)[0].box
    box = (x + width // 5, y + height // 4, width // 2, height // 2)
    result = edited(portrait, editor.edit(portrait, {"smiling": 1}, box=box, iterations=FEW))
    changed = (result != portrait).any(axis=2)
    assert crop(changed, box).mean() > 0.2
    crop(changed, box)[:] = False
    assert not changed.any()


def test_every_iteration_is_reported(editor: Editor, face: np.ndarray) -> None:
    seen: list[Progress] = []
    edit = editor.edit(face, {"smiling": 0.4}, iterations=7, progress=seen.append)
    assert [(state.iteration, state.iterations) for state in seen] == [(i, 7) for i in range(1, 8)]
    losses = [state.loss for state in seen]
    assert losses == sorted(losses, reverse=True)
    assert edit.loss == losses[-1]
    assert edit.iterations == 7
    assert edit.evaluations > 7
    assert 0 < edit.seconds < 600


def test_an_edit_takes_no_more_iterations_than_it_needs_unless_told_to(editor: Editor, face: np.ndarray) -> None:
    most = editor.store.info.iterations
    enough = editor.edit(face, {"smiling": 0.4})
    all_of_them = editor.edit(face, {"smiling": 0.4}, iterations=most)
    assert enough.iterations < all_of_them.iterations == most
    assert np.abs(change_of(face, enough) - change_of(face, all_of_them)).mean() < 0.005


def test_an_edit_is_cancelled_between_iterations(editor: Editor, face: np.ndarray) -> None:
    seen: list[Progress] = []
    refusal(
        lambda: editor.edit(face, {"smiling": 0.4}, progress=seen.append, cancelled=lambda: len(seen) == 2),
        ErrorCode.CANCELLED,
    )
    assert [(state.iteration, state.iterations) for state in seen] == [
        (1, reconstruct.ITERATIONS),
        (2, reconstruct.ITERATIONS),
    ]
    editor.edit(face, {"smiling": 0.4}, iterations=1)  # and the editor goes on working


def test_what_progress_raises_reaches_the_caller(editor: Editor, face: np.ndarray) -> None:
    def progress(state: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        editor.edit(face, {"smiling": 0.4}, progress=progress)


def change_of(pixels: np.ndarray, edit: Edit) -> np.ndarray:
    return as_unit(edited(pixels, edit)) - as_unit(pixels)


@pytest.mark.slow
def test_a_sweep_gives_what_single_edits_give_for_less_than_two_of_them(editor: Editor, face: np.ndarray) -> None:
    alphas = [0.1, 0.2, 0.3, 0.4, 0.5]
    states: list[Progress] = []
    sweep = editor.sweep(face, [{"smiling": alpha} for alpha in alphas], progress=states.append)
    singles = [editor.edit(face, {"smiling": alpha}) for alpha in alphas]
    assert sum(edit.evaluations for edit in sweep) < 2 * singles[-1].evaluations
    assert [edit.loss for edit in sweep] == sorted(edit.loss for edit in sweep)  # in the order asked for
    for ours, single in zip(sweep, singles, strict=True):
        assert ours.loss < 1.3 * single.loss
        one, other = change_of(face, ours), change_of(face, single)
        cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine > 0.7, cosine
    assert [state.iteration for state in states] == sorted(state.iteration for state in states)
    assert states[-1].iteration <= states[-1].iterations


def test_settings_of_a_sweep_that_have_nothing_in_common_are_solved_in_full(editor: Editor, face: np.ndarray) -> None:
    settings = [{"smiling": -0.4}, {"smiling": 0.4}, {"eyeglasses": 0.4}, {"smiling": 0.0}]
    sweep = editor.sweep(face, settings, iterations=FEW)
    for setting, edit in zip(settings, sweep, strict=True):
        alone = editor.edit(face, setting, iterations=FEW)
        np.testing.assert_array_equal(edited(face, edit), edited(face, alone))


PHOTO = np.full((250, 250, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"alphas": {}}, ErrorCode.BAD_REQUEST, "smiling=0.4"),
        ({"alphas": {"smiling": float("nan")}}, ErrorCode.BAD_ALPHA, "'smiling'"),
        ({"alphas": {"smiling": 2.5}}, ErrorCode.BAD_ALPHA, "from -2 to 2"),
        ({"alphas": {"smiling": 0.4, "smilling": 0.4}}, ErrorCode.UNKNOWN_ATTRIBUTE, "did you mean smiling"),
        ({"iterations": 0}, ErrorCode.BAD_REQUEST, f"from 1 to {MAX_ITERATIONS}"),
        ({"iterations": MAX_ITERATIONS + 1}, ErrorCode.BAD_REQUEST, f"from 1 to {MAX_ITERATIONS}"),
        ({"box": (-90, 0, 100, 100)}, ErrorCode.BAD_BOX, "not inside the photo of 250 x 250"),
        ({"box": (251, 0, 51, 100)}, ErrorCode.BAD_BOX, "not inside the photo of 250 x 250"),
        ({"box": (0, 0, 100, 0)}, ErrorCode.BAD_BOX, "at least"),
        ({"box": (0, 0, -100, 100)}, ErrorCode.BAD_BOX, "at least"),
        ({"photo": PHOTO[:, :150]}, ErrorCode.NO_FACE, "box"),
        ({"photo": PHOTO[:0]}, ErrorCode.BAD_IMAGE, "no pixels"),
        ({"photo": PHOTO[..., 0]}, ErrorCode.BAD_IMAGE, "height x width"),
        ({"photo": PHOTO[..., :2]}, ErrorCode.BAD_IMAGE, "height x width"),
        ({"photo": PHOTO.astype(np.float64)}, ErrorCode.BAD_IMAGE, "float64"),
        ({"photo": np.full((250, 250, 3), np.nan, np.float32)}, ErrorCode.BAD_IMAGE, "not finite"),
        ({"photo": np.broadcast_to(PHOTO[:1, :1], (1, MAX_PIXELS + 1, 3))}, ErrorCode.TOO_LARGE, "megapixels"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_any_work(
    change: dict[str, Any], code: ErrorCode, says: str, editor: Editor
) -> None:
    def progress(state: Progress) -> None:
        pytest.fail("the solver was started")

    request = {"photo": PHOTO, "alphas": {"smiling": 0.4}, "progress": progress} | change
    assert says in refusal(lambda: editor.edit(**request), code)


def test_a_store_that_cannot_be_used_is_refused(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = tiny_home / "stores" / "tiny" / "vectors.safetensors"
    monkeypatch.setenv("DFI_HOME", str(tmp_path))
    assert "dfi setup" in refusal(lambda: Editor("lfw"), ErrorCode.NO_STORE)
    assert Editor().store.is_starter
    folder = tmp_path / "stores" / paths.FULL_STORE
    folder.mkdir(parents=True)
    refusal(Editor, ErrorCode.BAD_STORE)
    (folder / vectors.name).write_bytes(vectors.read_bytes())
    refusal(Editor, ErrorCode.BAD_STORE)
    save_file(tiny_weights(seed=3), folder / "network.safetensors")
    assert "other network weights" in refusal(Editor, ErrorCode.BAD_STORE)
    save_file(tiny_weights(), folder / "network.safetensors")
    assert Editor().attributes == TINY_ATTRIBUTES
    refusal(lambda: Editor(device="tpu"), ErrorCode.BAD_REQUEST)


PARTS = {  # rows and columns of LFW's layout
    "forehead": (slice(55, 85), slice(95, 155)),
    "eyes": (slice(98, 128), slice(85, 165)),
    "mouth": (slice(150, 180), slice(95, 155)),
}


@pytest.mark.data
def test_attributes_change_their_own_part_of_unseen_faces(
    lfw_home: Path, lfw_photo: Callable[[str], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smiling acts at the mouth, eyeglasses at the eyes; the faces come late in the archive, the store has seen none.

    From 300 photos the vectors are rough, so this compares the attributes with each other, over both faces.
    """
    monkeypatch.setenv("DFI_HOME", str(lfw_home))
    editor = Editor()
    assert editor.store.info.photos == LFW_LIMIT
    change = {(name, part): 0.0 for name in ("smiling", "eyeglasses") for part in PARTS}
    for key in ("Rubens_Barrichello_0011", "Rupert_Grint_0002"):
        face = lfw_photo(key)
        for name in ("smiling", "eyeglasses"):
            result = edited(face, editor.edit(face, {name: 0.4}, iterations=15))
            difference = np.abs(result.astype(int) - face)
            assert not difference[:10].any()
            for part, place in PARTS.items():
                change[name, part] += difference[place].mean()
    assert change["smiling", "mouth"] > 4
    assert change["smiling", "mouth"] > change["smiling", "eyes"]
    assert change["smiling", "mouth"] > change["smiling", "forehead"]
    assert change["smiling", "mouth"] > 1.3 * change["eyeglasses", "mouth"]
    assert change["eyeglasses", "eyes"] > change["eyeglasses", "mouth"]
    assert change["eyeglasses", "eyes"] > change["eyeglasses", "forehead"]
    assert change["eyeglasses", "eyes"] > 1.15 * change["smiling", "eyes"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_black_and_white_photo_stays_exactly_gray(dtype: str, editor: Editor, face: np.ndarray) -> None:
    """Stored as RGB, as most scans are."""
    photo = in_dtype(np.repeat(face.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2), dtype)
    result = edited(photo, editor.edit(photo, {"smiling": 1, "eyeglasses": 0.5}, iterations=FEW))
    assert (result == result[..., :1]).all()
    assert (result != photo).any()


def test_a_sepia_photo_stays_on_its_tone(editor: Editor, face: np.ndarray) -> None:
    tone = np.array([1.0, 0.89, 0.69])
    photo = np.rint(face.mean(axis=2, keepdims=True) * tone).astype(np.uint8)
    result = edited(photo, editor.edit(photo, {"smiling": 1, "eyeglasses": 0.5}, iterations=FEW))
    assert np.abs(result - result[..., :1] * tone).max() <= 2
    assert np.abs(as_unit(result) - as_unit(photo)).max() > 5 / 255
