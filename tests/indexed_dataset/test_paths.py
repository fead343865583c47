"""Which prefixes a folder holds."""

import pytest

from gristmill.indexed_dataset import IndexedDatasetError, PrefixNotFoundError, find_prefixes


def touch(folder, *names):
    for name in names:
        (folder / f"{name}.idx").touch()
        (folder / f"{name}.bin").touch()


def test_shards_are_grouped_in_their_order(tmp_path):
    touch(tmp_path, "eng_Latn-00001-of-00002", "eng_Latn-00000-of-00002", "deu_Latn", "x.v1")

    assert find_prefixes(tmp_path) == {
        "deu_Latn": [f"{tmp_path}/deu_Latn"],
        "eng_Latn": [f"{tmp_path}/eng_Latn-0000{i}-of-00002" for i in range(2)],
        "x.v1": [f"{tmp_path}/x.v1"],
    }


def test_an_empty_folder_has_none_and_no_folder_is_an_error(tmp_path):
    assert find_prefixes(tmp_path) == {}
    with pytest.raises(PrefixNotFoundError, match="no folder"):
        find_prefixes(tmp_path / "none")


def test_a_missing_shard_is_named(tmp_path):
    touch(tmp_path, "eng_Latn-00000-of-00003", "eng_Latn-00002-of-00003")

    with pytest.raises(PrefixNotFoundError, match="3 shards, but eng_Latn-00001-of-00003"):
        find_prefixes(tmp_path)


@pytest.mark.parametrize("other", ["eng_Latn", "eng_Latn-00000-of-00001"])
def test_a_group_in_two_versions_is_refused(tmp_path, other):
    touch(tmp_path, "eng_Latn-00000-of-00002", "eng_Latn-00001-of-00002", other)

    with pytest.raises(IndexedDatasetError, match="in several versions"):
        find_prefixes(tmp_path)
