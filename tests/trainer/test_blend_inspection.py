"""`gristmill inspect` on what a training draws: the plan, samples with their documents, Megatron's
arguments."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.commands.arguments import InspectArguments
from gristmill.commands.blend_inspection import planned_blend
from gristmill.commands.inspection import answer
from gristmill.config import ConfigError
from gristmill.indexed_dataset import IndexedDatasetBuilder, IndexedDatasetError
from gristmill.trainer import pretrain

from .test_blend import config


def inspect(path: Path, **asked: Any) -> str:
    return answer(InspectArguments(path=str(path), **asked))


def write_config(path: Path, data: Path, more: str = "") -> Path:
    path.write_text(
        f'[run]\noutput = "{path.parent / "run"}"\n[pretrain.training]\nnum_steps = 6\n'
        f'global_batch_size = 8\n[pretrain.data]\npath = "{data}"\nsequence_length = 16\n{more}'
    )
    return path


PHASES = """
max_epochs_of = { ell_Grek = 0.01 }
[[pretrain.data.phases]]
until_tokens = 256
[[pretrain.data.phases]]
sequence_length = 32
alpha = 0.0
weights = { ell_Grek = 1, eng_Latn = 0, hin_Deva = 3 }
"""


def test_a_config_shows_epochs_caps_and_phases_of_the_planned_training(
    data_folder: Path, tmp_path: Path
) -> None:
    file = write_config(tmp_path / "c.toml", data_folder, PHASES)
    plan = inspect(file, plan=True)

    assert "phase 1 of 2: tokens 0 to 256, 16 samples of 16 from 3 groups" in plan
    assert "phase 2 of 2: tokens 256 to 1,280, 32 samples of 32 from 3 groups" in plan
    assert "ell_Grek reaches max_epochs = 0.01 at sample" in plan
    rows = {line.split()[0]: line.split() for line in plan.split("all phases")[1].splitlines()[2:]}
    assert rows["all"][3:5] == ["48", "1,280"]
    assert inspect(file).endswith(plan)  # under the text of the config
    longer = inspect(file, plan=True, num_samples=100)
    assert "84 samples of 32 from 3 groups" in longer


def test_a_data_folder_shows_one_epoch_of_its_languages(data_folder: Path) -> None:
    plan = inspect(data_folder, plan=True)

    for language in ("ell_Grek", "eng_Latn", "hin_Deva"):
        assert re.search(rf"^  {language} +\d+\.\d\d% ", plan, re.MULTILINE)
    assert plan in inspect(data_folder)


def test_a_sample_is_shown_with_the_text_of_its_documents(
    data_folder: Path, tmp_path: Path
) -> None:
    file = write_config(tmp_path / "c.toml", data_folder)
    planned = planned_blend(file)
    for position in (0, 9, 40):
        page = inspect(file, sample=position)
        sample = planned.blend.sample(position)
        head, *lines = page.splitlines()

        assert head.startswith(
            f"sample {position} (number {position % 8} of step {position // 8}): 16 tokens of "
            f"{planned.blend.names[sample['dataset_id']]}, "
        )
        found = [re.search(r"tokens ([\d,]+) to ([\d,]+) of", line) for line in lines[::2]]
        assert sum(int(m[2]) - int(m[1]) for m in found if m) == 16
        texts = "".join(ast.literal_eval(line.strip()) for line in lines[1::2])
        ids = [token for token in sample["tokens"].tolist() if token]
        if sample["dataset_id"] == 1:  # English: one byte a letter, and id 0 shows as a name
            assert len(texts.replace("<|end|>", "")) == len(ids)
    step = inspect(file, step=2)
    assert step.split("\n\n") == [inspect(file, sample=position) for position in range(16, 24)]


def test_samples_of_a_run_are_those_it_was_trained_on_even_after_its_blend_changed(
    data_folder: Path, tmp_path: Path
) -> None:
    import dataclasses

    first = config(data_folder)
    short = dataclasses.replace(
        first,
        training=dataclasses.replace(first.training, num_steps=3),
        schedule=dataclasses.replace(first.schedule, kind="constant"),
    )
    run = tmp_path / "run"
    pretrain(short, output=run)
    before = [inspect(run, sample=position) for position in (0, 23)]
    changed = dataclasses.replace(first.data, allow_changed_blend=True, alpha=0.0)
    pretrain(dataclasses.replace(short, training=first.training, data=changed), output=run)

    assert [inspect(run, sample=position) for position in (0, 23)] == before
    assert planned_blend(run, 23).blend.start.samples == 0
    assert planned_blend(run, 24).blend.start.samples == 24
    assert "24 samples of 16" in inspect(run, plan=True)


def test_a_document_is_shown_with_its_place_and_text(data_folder: Path) -> None:
    page = inspect(data_folder / "train" / "eng_Latn", document=1).splitlines()

    assert page[0].startswith("document 1 of 12 in ")
    assert "the" in page[2]
    with pytest.raises(ConfigError, match="document 99 was asked for, but there are 12"):
        inspect(data_folder / "train" / "eng_Latn", document=99)


def test_questions_that_a_path_cannot_answer_are_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--plan and --sample ask two things"):
        inspect(data_folder, plan=True, sample=3)
    with pytest.raises(ConfigError, match="train does not exist"):
        inspect(tmp_path, plan=True)
    with pytest.raises(ConfigError, match="there is no phase 2"):
        inspect(data_folder, megatron="data-args", phase=2)
    file = write_config(tmp_path / "c.toml", data_folder, "max_epochs = 0.01\n")
    with pytest.raises(ConfigError, match="every dataset has reached"):
        inspect(file, sample=10**6)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A data folder: a group of three unequal shards (one empty) and one of a single prefix."""
    sizes = {"deu-00000-of-00003": 40, "deu-00001-of-00003": 0, "deu-00002-of-00003": 120}
    for name, size in {**sizes, "eng": 480}.items():
        for split in ("train", "validation"):
            builder = IndexedDatasetBuilder(tmp_path / "data" / split / name, vocab_size=600)
            for start in range(0, size, 8):
                builder.add_document(np.arange(start, start + 8))
            builder.finalize(document_order="shuffled", group=name[:3])
    return tmp_path / "data"


def test_megatron_reads_our_blend_with_shards_sharing_by_tokens(
    sharded: Path, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("megatron.core.datasets.utils")
    file = write_config(tmp_path / "c.toml", sharded, "weights = { deu = 3.0, eng = 1.0 }\n")

    words = inspect(file, megatron="data-args").split()
    prefixes, weights = datasets.get_blend_from_list(words)

    names = [Path(prefix).name for prefix in prefixes]
    assert names == ["deu-00000-of-00003", "deu-00002-of-00003", "eng"]
    assert weights == pytest.approx([3 / 4 * 40 / 160, 3 / 4 * 120 / 160, 1 / 4])
    splits = json.loads(inspect(file, megatron="per-split"))
    assert splits["train"] == words
    prefixes, weights = datasets.get_blend_from_list(splits["valid"])
    assert [Path(prefix).parent.name for prefix in prefixes] == ["validation"] * 3
    assert weights == pytest.approx([40 / 640, 120 / 640, 480 / 640])


def test_megatrons_blending_gives_each_group_its_share(sharded: Path, tmp_path: Path) -> None:
    helpers = pytest.importorskip("megatron.core.datasets.helpers_cpp")
    file = write_config(tmp_path / "c.toml", sharded, "alpha = 0.5\n")
    words = inspect(file, megatron="data-args").split()
    weights = np.array([float(word) for word in words[::2]])
    index, sample_index = np.zeros(1000, np.int16), np.zeros(1000, np.int64)
    helpers.build_blending_indices(index, sample_index, weights / weights.sum(), 3, 1000, False)

    german = int((index < 2).sum())
    blend = planned_blend(file).blend
    ours = sum(blend.locate(position)[0] == 0 for position in range(1000))
    assert abs(german - ours) <= 3


def test_paths_that_megatron_would_cut_are_refused(tmp_path: Path, write_data: Any) -> None:
    data = write_data(tmp_path / "my data")

    with pytest.raises(IndexedDatasetError, match="white space"):
        inspect(data, megatron="data-args")
