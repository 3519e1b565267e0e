import pytest

from segkit.configuration.tree import Tree, config_dir, read_config_file
from segkit.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "recipe").mkdir()
    (tmp_path / "main.yaml").write_text(
        "# First line.\n#\n# More.\n"
        "defaults:\n  - _self_\n  - net: small\n  - recipe: null\n"
        "seed: 0  # int >= 0. Key of all\n"
        "         # that is random.\n"
        "# a remark of nobody\n"
        "paths:\n  runs: 'a # b'  # path. Where.\n"
        "extra: {}  # dict. Anything.\n"
    )
    (tmp_path / "net" / "small.yaml").write_text(
        "width: 8  # int >= 1, channels. Width.\nlist: [1, 2]  # list of int. L.\n"
    )
    (tmp_path / "net" / "large.yaml").write_text("defaults: [small, _self_]\nwidth: 64  # Wider.\n")
    (tmp_path / "recipe" / "best.yaml").write_text(
        "# @package _global_\n# Why.\ndefaults:\n  - override /net: large\nseed: 3  # Lucky.\n"
    )
    return tmp_path


def test_header_leaves_and_comments_are_read(folder):
    file = read_config_file(folder / "main.yaml")
    assert file.header.splitlines() == ["First line.", "", "More."]
    leaves = {leaf.key: leaf for leaf in file.leaves}
    assert list(leaves) == ["seed", "paths.runs", "extra"]
    assert leaves["seed"].text == "int >= 0. Key of all that is random."
    assert leaves["seed"].where.endswith("main.yaml:8")
    assert leaves["paths.runs"].default == "'a # b'"
    assert leaves["extra"].is_open
    assert not leaves["seed"].is_open


def test_choices_follow_the_defaults_the_user_and_the_recipe(folder):
    tree = Tree((folder,))
    assert tree.choices("main", {}) == {"net": "small", "recipe": None}
    assert tree.choices("main", {"recipe": "best"}) == {"net": "large", "recipe": "best"}
    assert tree.choices("main", {"recipe": "best", "net": "small"})["net"] == "small"


def test_a_key_set_again_keeps_its_first_comment(folder):
    tree = Tree((folder,))
    leaves = tree.leaves("main", tree.choices("main", {"recipe": "best"}))
    assert leaves["net.width"].default == "64"
    assert leaves["net.width"].comment.type.text == "int >= 1"
    assert leaves["seed"].default == "3"
    assert leaves["seed"].comment.meaning == "Key of all that is random."
    assert "net.list" in leaves


def test_a_choice_below_a_section_brings_its_keys_there(folder):
    (folder / "net" / "two.yaml").write_text(
        "defaults: [small@parts.left, _self_]\nparts:\n  left:\n    width: 2  # Thin.\n"
    )
    tree = Tree((folder,))
    leaves = tree.leaves("main", {"net": "two", "net@net.parts.right": "small"})
    assert [key for key in leaves if key.startswith("net.")] == [
        "net.parts.left.width",
        "net.parts.left.list",
        "net.parts.right.width",
        "net.parts.right.list",
    ]
    assert leaves["net.parts.left.width"].default == "2"
    assert leaves["net.parts.left.width"].comment.type.text == "int >= 1"


def test_the_first_folder_wins_and_all_offer_choices(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "net").mkdir()
    (other / "net" / "mine.yaml").write_text("width: 1\n")
    (other / "net" / "small.yaml").write_text("width: 2\n")
    tree = Tree((folder, other))
    assert tree.names("net") == ("large", "mine", "small")
    assert tree.leaves("main", {"net": "small"})["net.width"].default == "8"


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n"])
def test_what_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        read_config_file(path)


def test_the_tree_of_segkit_is_found():
    assert (config_dir() / "train.yaml").is_file()
