"""The plug-in in a real GIMP, with the real server in a process of its own: what it makes of images and layers."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from gimp.applying import APPLY, Apply, arrays, assert_added, by_client
from gimp.gimp import REPOSITORY, SHORTCUT, Gimp, Window
from gimp.server import listening
from PIL import Image

from dfi_server.photo.pixels import Patch, composite

pytestmark = pytest.mark.gimp
pytest_plugins = ["gimp.fixtures", "gimp.applying"]


@pytest.mark.data
def test_end_to_end(gimp: Gimp, real: str, unseen: np.ndarray) -> None:
    """A photo of LFW that the store has not seen gets a smile, and is untouched outside of the edited box."""
    gimp.server(real)
    Image.fromarray(unseen).save(gimp.share / "person.png")
    answer = gimp.run(
        f"image = load({gimp.path(gimp.share / 'person.png')!r})\nlayer = image.get_layers()[0]\n"
        f"values = {{'attribute': 'smiling', 'alpha': 0.4}}\n{APPLY}\n"
        "keep('visible', visible(image), \"R'G'B' u8\")"
    )
    assert_added(answer, "Smiling 0.4")
    new = answer["layers"][0]
    (x, y), (width, height) = new["offset"], new["size"]
    assert new["encoding"] == "R'G'B'A u8"
    assert width < 250 and height < 250

    seen = gimp.kept("visible", "uint8", (250, 250))
    outside = np.ones((250, 250), bool)
    outside[y : y + height, x : x + width] = False
    assert np.array_equal(seen[outside], unseen[outside])
    change = abs(seen.astype(int) - unseen).mean(axis=2)
    lips = change[150:170, 110:140].mean()
    assert lips > 5
    assert lips > 1.5 * change[~outside].mean()

    result = by_client(real, unseen, None, smiling=0.4)
    pixels, mask = arrays(result)
    assert (x, y, width, height) == (result.x, result.y, result.width, result.height)
    expected = composite(unseen, Patch(x, y, pixels, mask))
    assert abs(seen.astype(int) - expected).max() <= 1


CONVERT = "image.convert_precision(Gimp.Precision.{})"
GRAY = "image.convert_grayscale()"
ADOBE = (
    "image.convert_color_profile(Gimp.ColorProfile.new_rgb_adobe(), "
    "Gimp.ColorRenderingIntent.RELATIVE_COLORIMETRIC, True)"
)


@pytest.mark.every_gimp
@pytest.mark.parametrize(
    ("before", "wire", "encoding", "tolerance"),
    [
        pytest.param("", "R'G'B' u8", "R'G'B'A u8", 0, id="8 bits"),
        pytest.param(CONVERT.format("U16_NON_LINEAR"), "R'G'B' u16", "R'G'B'A u16", 1, id="16 bits"),
        pytest.param(CONVERT.format("FLOAT_LINEAR"), "R'G'B' u16", "RGBA float", 1, id="linear float"),
        pytest.param(GRAY, "Y' u8", "Y'A u8", 0, id="gray"),
        pytest.param(f"{GRAY}\n{CONVERT.format('U16_LINEAR')}", "Y' u16", "YA u16", 150, id="gray linear 16 bits"),
        pytest.param(ADOBE, "R'G'B' u16", "R'G'B'A u8", 400, id="Adobe RGB"),
        pytest.param(
            f"{ADOBE}\n{CONVERT.format('FLOAT_NON_LINEAR')}", "R'G'B' u16", "R'G'B'A float", 64, id="Adobe RGB float"
        ),
    ],
)
def test_pixel_formats(
    gimp: Gimp, apply: Apply, tiny: str, before: str, wire: str, encoding: str, tolerance: int
) -> None:
    """Whatever the image's own format, the layer holds what the server answers to the same pixels in sRGB.

    The pixels that were sent are listened to: babl takes the way that it measures to be quickest, so two processes may
    read them differently in the last digit, and the small store's solve makes much of that.
    """
    after = f'keep("source", layer, {wire!r})\nnew = image.get_layers()[0]\nkeep("new", new, {wire!r})'
    with listening(tiny) as (endpoint, edits):
        gimp.server(endpoint)
        answer = apply(before, f'{after}\nkeep("alpha", new, "A u8")')
    assert_added(answer, "Smiling 0.4")
    new = answer["layers"][0]
    assert new["encoding"] == encoding
    dtype = "uint8" if wire.endswith("u8") else "uint16"
    source = gimp.kept("source", dtype, (250, 250))
    (edit,) = edits
    sent = np.frombuffer(edit.pixels, dtype).reshape(source.shape)
    assert abs(sent.astype(int) - source).max() <= (0 if dtype == "uint8" else 2)

    pixels, mask = arrays(by_client(tiny, sent, None, smiling=0.4))
    assert new["size"] == [pixels.shape[1], pixels.shape[0]]
    assert np.array_equal(gimp.kept("alpha", "uint8", new["size"])[..., 0], mask)
    off = abs(gimp.kept("new", dtype, new["size"]).astype(int) - pixels)[mask > 0]
    assert off.max() <= tolerance


def test_high_dynamic_range_is_kept(gimp: Gimp, apply: Apply) -> None:
    """A highlight of 4 times white is not clipped to what the server saw."""
    before = (
        CONVERT.format("FLOAT_LINEAR")
        + "\nimport array\nbright = Gegl.Rectangle.new(120, 100, 8, 8)\nbuffer = layer.get_buffer()\n"
        "buffer.set(bright, 'RGB float', array.array('f', [4.0] * 192).tobytes())\nbuffer.flush()\n"
        "layer.update(120, 100, 8, 8)\nbuffer = None\nimage.clean_all()"
    )
    answer = apply(before, "keep('new', image.get_layers()[0], 'RGBA float')")
    assert_added(answer, "Smiling 0.4")
    new = gimp.kept("new", "float32", answer["layers"][0]["size"])
    x, y = answer["layers"][0]["offset"]
    highlight = new[100 - y : 108 - y, 120 - x : 128 - x]
    assert highlight[..., :3].min() > 2.9
    assert (highlight[..., 3] == 1).all()


@pytest.mark.every_gimp
def test_selection(gimp: Gimp, apply: Apply, tiny: str, face: np.ndarray) -> None:
    """A feathered selection on a layer that lies elsewhere: it says where the face is, and fades the layer."""
    before = (
        "image.resize(400, 300, 90, 20)\n"
        "Gimp.context_set_feather(True)\nGimp.context_set_feather_radius(20, 20)\n"
        "image.select_ellipse(Gimp.ChannelOps.REPLACE, 60, 50, 200, 170)\nimage.clean_all()\n"
        "box = list(layer.mask_intersect())[1:]"
    )
    after = (
        "answer['box'] = box\nnew = image.get_layers()[0]\n"
        "keep('new', new, \"R'G'B' u8\")\nkeep('alpha', new, 'A u8')\n"
        "keep('selection', image.get_selection(), 'Y u8')\nkeep('visible', visible(image), \"R'G'B' u8\")"
    )
    answer = apply(before, after)
    assert_added(answer, "Smiling 0.4")
    x, y, width, height = answer["box"]
    assert x == 0 and y > 0 and width < 250 and height < 250  # the selection goes beyond the layer's left side

    result = by_client(tiny, face, (x, y, width, height), smiling=0.4)
    pixels, mask = arrays(result)
    new = answer["layers"][0]
    assert new["offset"] == [90 + result.x, 20 + result.y]
    assert new["size"] == [result.width, result.height]
    left, top = new["offset"]
    selection = gimp.kept("selection", "uint8", (400, 300))[top:, left:][: result.height, : result.width, 0]
    alpha = gimp.kept("alpha", "uint8", new["size"])[..., 0]
    assert len(np.unique(selection)) > 50  # feathered
    assert abs(alpha - mask * (selection / 255.0)).max() <= 1
    assert np.array_equal(gimp.kept("new", "uint8", new["size"])[alpha > 0], pixels[alpha > 0])
    seen = gimp.kept("visible", "uint8", (400, 300))[20:270, 90:340]
    untouched = gimp.kept("selection", "uint8", (400, 300))[20:270, 90:340, 0] == 0
    assert np.array_equal(seen[untouched], face[untouched])


@pytest.mark.parametrize(("chosen", "name"), [("largest", ""), ("2", ", face 2"), ("all", ", all faces")])
def test_the_chosen_face_is_edited(gimp: Gimp, apply: Apply, two_faces: np.ndarray, chosen: str, name: str) -> None:
    Image.fromarray(two_faces).save(gimp.share / "two.png")
    two = f"image.delete()\nimage = load({gimp.path(gimp.share / 'two.png')!r})\nlayer = image.get_layers()[0]"
    answer = apply(two, face=chosen)
    assert_added(answer, f"Smiling 0.4{name}")
    left, width = answer["layers"][0]["offset"][0], answer["layers"][0]["size"][0]
    assert (left > 325) == (chosen == "largest")
    assert (left + width < 325) == (chosen == "2")


def test_layer_larger_than_the_image(apply: Apply, tiny: str, face: np.ndarray) -> None:
    """All of the layer is edited, what lies beyond the canvas too."""
    answer = apply("image.resize(100, 100, -70, -60)\nimage.clean_all()")
    assert_added(answer, "Smiling 0.4")
    result = by_client(tiny, face, None, smiling=0.4)
    assert answer["layers"][0]["offset"] == [result.x - 70, result.y - 60]
    assert answer["layers"][0]["size"] == [result.width, result.height]


@pytest.mark.every_gimp
def test_what_the_source_hides_stays_hidden(gimp: Gimp, apply: Apply) -> None:
    """Transparent pixels, and those that the source's layer mask hides, do not come back in the new layer."""
    before = (
        "layer.add_alpha()\nimage.select_rectangle(Gimp.ChannelOps.REPLACE, 100, 60, 20, 90)\nlayer.edit_clear()\n"
        "image.select_rectangle(Gimp.ChannelOps.REPLACE, 130, 0, 120, 250)\n"
        "layer.add_mask(layer.create_mask(Gimp.AddMaskType.SELECTION))\nGimp.Selection.none(image)\nimage.clean_all()\n"
        "mask = digest(layer.get_mask())"
    )
    after = "keep('alpha', image.get_layers()[0], 'A u8')\nanswer['mask same'] = digest(layer.get_mask()) == mask"
    answer = apply(before, after)
    assert_added(answer, "Smiling 0.4")
    assert answer["mask same"]
    x, y = answer["layers"][0]["offset"]
    alpha = np.zeros((250, 250), np.uint8)
    kept = gimp.kept("alpha", "uint8", answer["layers"][0]["size"])[..., 0]
    alpha[y : y + kept.shape[0], x : x + kept.shape[1]] = kept
    assert not alpha[60:150, 100:120].any()
    assert not alpha[:, :130].any()
    assert (alpha[60:150, 135:180] > 200).all()


@pytest.mark.every_gimp
def test_layer_mask_to_paint_on(gimp: Gimp, apply: Apply) -> None:
    """It says what the layer's alpha says otherwise, and looks the same; the source keeps its own mask."""
    before = (
        "image.select_rectangle(Gimp.ChannelOps.REPLACE, 110, 0, 140, 250)\n"
        "layer.add_mask(layer.create_mask(Gimp.AddMaskType.SELECTION))\n"
        "Gimp.context_set_feather(True)\nGimp.context_set_feather_radius(20, 20)\n"
        "image.select_ellipse(Gimp.ChannelOps.REPLACE, 60, 50, 130, 170)\nimage.clean_all()\n"
        "own_mask = digest(layer.get_mask())"
    )
    after = (
        "answer['own mask same'] = digest(layer.get_mask()) == own_mask\nnew = image.get_layers()[0]\n"
        "keep('visible', visible(image), \"R'G'B'A u8\")\nkeep('alpha', new, 'A u8')\nmask = new.get_mask()\n"
        "answer['masked'] = mask is not None\nif mask:\n    keep('mask', mask, 'Y u8')\n"
        "    answer['painted on'] = [d.get_id() for d in image.get_selected_drawables()] == [mask.get_id()]"
    )
    plain = apply(before, after)
    assert plain["status"] == "success" and not plain["masked"]
    size = plain["layers"][0]["size"]
    alpha = gimp.kept("alpha", "uint8", size).astype(int)
    seen = gimp.kept("visible", "uint8", (250, 250)).astype(int)

    masked = apply(before, after, **{"layer-mask": True})
    assert_added(masked, "Smiling 0.4")
    assert masked["masked"] and masked["own mask same"] and masked["painted on"]
    assert masked["layers"][0]["size"] == size
    assert (gimp.kept("alpha", "uint8", size) == 255).all()
    mask = gimp.kept("mask", "uint8", size)
    assert abs(mask - alpha).max() <= 1
    assert len(np.unique(mask)) > 50
    assert abs(gimp.kept("visible", "uint8", (250, 250)) - seen).max() <= 2


def test_layer_mask_hides_no_transparency(gimp: Gimp, apply: Apply) -> None:
    """Where the source is transparent, the result is, however its mask is painted."""
    before = (
        "layer.add_alpha()\nimage.select_rectangle(Gimp.ChannelOps.REPLACE, 100, 60, 20, 90)\nlayer.edit_clear()\n"
        "Gimp.Selection.none(image)\nimage.clean_all()"
    )
    after = "new = image.get_layers()[0]\nkeep('alpha', new, 'A u8')\nkeep('mask', new.get_mask(), 'Y u8')"
    answer = apply(before, after, **{"layer-mask": True})
    assert_added(answer, "Smiling 0.4")
    (x, y), size = answer["layers"][0]["offset"], answer["layers"][0]["size"]
    hole = (slice(60 - y, 150 - y), slice(100 - x, 120 - x))
    assert not gimp.kept("alpha", "uint8", size)[hole].any()
    assert (gimp.kept("mask", "uint8", size)[hole] > 0).any()


def test_locks(apply: Apply) -> None:
    """A source that must not be changed is not, and its locks are not the result's."""
    before = (
        "layer.add_alpha()\nlayer.set_lock_alpha(True)\nlayer.set_lock_content(True)\nlayer.set_lock_position(True)\n"
        "layer.set_lock_visibility(True)\nimage.clean_all()"
    )
    after = (
        "new = image.get_layers()[0]\nanswer['locks'] = [[l.get_lock_alpha(), l.get_lock_content(), "
        "l.get_lock_position(), l.get_lock_visibility()] for l in (new, layer)]"
    )
    answer = apply(before, after)
    assert_added(answer, "Smiling 0.4")
    assert answer["locks"] == [[False] * 4, [True] * 4]


def test_more_than_20_megapixels(gimp: Gimp, apply: Apply) -> None:
    """The face of a 25 megapixel photo is edited at its own size; the new layer is no larger than the change."""
    answer = apply("image.scale(5000, 5000)\nimage.clean_all()", "keep('alpha', image.get_layers()[0], 'A u8')")
    assert_added(answer, "Smiling 0.4")
    assert answer["layers"][1]["size"] == [5000, 5000]
    size = answer["layers"][0]["size"]
    assert 1000 < size[0] < 5000 and 1000 < size[1] < 5000
    assert (gimp.kept("alpha", "uint8", size) > 200).mean() > 0.1


def test_group_and_several_attributes(apply: Apply) -> None:
    """In a group the new layer stands right above the source; a list of attributes has alphas of its own."""
    before = (
        "group = Gimp.GroupLayer.new(image, 'group')\nimage.insert_layer(group, None, 0)\n"
        "image.reorder_item(layer, group, 0)\n"
        "image.insert_layer(Gimp.Layer.new(image, 'top', 9, 9, 0, 100, 0), group, 0)\nimage.clean_all()\n"
        "image.set_selected_layers([layer])"
    )
    after = "answer['names'] = [child.get_name() for child in group.get_children()]"
    answer = apply(before, after, attribute="smiling=0.2 mouth_wide_open eyeglasses=-.3", alpha=0.1)
    assert answer["status"] == "success", answer
    assert answer["names"] == ["top", "Smiling 0.2, Mouth wide open 0.1, Eyeglasses -0.3", "Background"]
    assert answer["source same"] and answer["selected"] == answer["names"][1:2]


@pytest.mark.parametrize(
    ("keep", "attribute", "kept"),
    [
        ("age eyeglasses", "smiling", ["senior", "eyeglasses"]),
        ("sex skin", "smiling", []),  # the tiny store knows nothing of these
        ("age", "senior", []),  # it is what is to change
    ],
)
def test_what_is_kept(
    gimp: Gimp, apply: Apply, tiny: str, face: np.ndarray, keep: str, attribute: str, kept: list[str]
) -> None:
    answer = apply(after="keep('visible', visible(image), \"R'G'B' u8\")", attribute=attribute, keep=keep)
    assert answer["status"] == "success", answer
    pixels, mask = arrays(result := by_client(tiny, face, None, kept, **{attribute: 0.4}))
    expected = composite(face, Patch(result.x, result.y, pixels, mask)).astype(int)
    assert np.abs(gimp.kept("visible", "uint8", (250, 250)) - expected).max() <= 1


@pytest.mark.every_gimp
def test_the_readme_s_example_can_be_pasted(gimp: Gimp, tiny: str, two_faces: np.ndarray) -> None:
    """As a user's shell takes it, in a folder with a photo.jpg: GIMP without a window writes the result."""
    gimp.server(tiny)
    (example,) = re.findall(r"```sh\n(gimp-console .*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    Image.fromarray(two_faces).save(gimp.share / "photo.jpg", quality=95)
    done = gimp.shell(example)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = gimp.run(
        f"image = load({gimp.path(gimp.share / 'photo.xcf')!r})\n"
        "answer = [[l.get_name(), l.get_mask() is not None] for l in image.get_layers()]\nimage.delete()"
    )
    name, masked = answer[0]
    assert "Smiling 0.4" in name and masked
    assert len(answer) == 2

    broken = gimp.shell(example.replace("smiling=0.4", "smilling=0.4"))
    assert broken.returncode != 0
    assert "There is no attribute 'smilling'" in broken.stdout + broken.stderr


def test_japanese(gimp_root: Path, tiny: str, face: np.ndarray, screenshots: Path) -> None:
    """Menu, arguments, errors and the dialog, in the language of GIMP's user."""
    window = Window(gimp_root)
    try:
        window.server(tiny)
        window.start(LANG="ja_JP.UTF-8")
        Image.fromarray(face).save(window.share / "face.png")
        label, alpha, refused = window.run(
            f"image = load({window.path(window.share / 'face.png')!r})\nlayer = image.get_layers()[0]\n"
            "procedure = Gimp.get_pdb().lookup_procedure('plug-in-dfi')\n"
            "answer = [procedure.get_menu_label(), procedure.find_argument('alpha').nick,\n"
            "          call(image, [layer], face='left')]\nGimp.Display.new(image)\nGimp.displays_flush()"
        )
        window.key(SHORTCUT)
        dialog = window.window("^Deep Feature Interpolation$")
        window.focus(dialog)
        time.sleep(3)
        window.screenshot(screenshots / "japanese.png", dialog)
    finally:
        window.stop()
    assert label == "顔の属性を変える (_Deep Feature Interpolation)..."
    assert alpha == "アルファ(_P)"
    sentence = "「left」は顔の指定ではありません。「largest」、「all」、または 1 からの番号を書いてください。"
    assert refused == ["execution-error", sentence]


@pytest.mark.every_gimp
def test_a_result_is_edited_again_from_its_source(apply: Apply) -> None:
    """Run on the new layer, the filter takes the layer that it was made of, and hides the earlier result."""
    after = """
first = image.get_layers()[0]
answer["again"] = call(image, [first], attribute="smiling", alpha=-0.3, **{"layer-mask": True})
answer["now"] = [[l.get_name(), l.get_visible()] for l in image.get_layers()]
answer["source kept"] = digest(layer) == before
answer["told"] = bytes(first.get_parasite("dfi-edit").get_data()).decode()
second = image.get_selected_layers()[0]
answer["by its mask"] = call(image, [second.get_mask()], attribute="smiling", alpha=0.2)
answer["in the end"] = [l.get_name() for l in image.get_layers() if l.get_visible()]
image.remove_layer(layer)
answer["alone"] = call(image, [first], attribute="smiling", alpha=0.3)[0]
"""
    answer = apply(after=after)
    assert answer["again"] == ["success", ""]
    assert sorted(answer["now"]) == [["Background", True], ["Smiling -0.3", True], ["Smiling 0.4", False]]
    assert answer["by its mask"] == ["success", ""]
    assert sorted(answer["in the end"]) == ["Background", "Smiling 0.2"]
    assert answer["source kept"]
    assert '"attribute": "smiling=0.4"' in answer["told"]
    assert '"face": "largest"' in answer["told"]
    assert answer["alone"] == "success"  # its source is gone: the result itself is edited, as any layer
