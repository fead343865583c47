"""Phases and changed blends: each source goes on where it was, nothing twice within an epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    BlendState,
    DataChangedError,
    IndexedDatasetError,
    Phase,
    PhasedBlend,
    SampleDataset,
    describe_phases,
)
from gristmill.indexed_dataset.split import TokenSplit

LENGTHS = (4, 8, 24)
SIZES = {"tiny": 3, "short": 17, "middle": 120, "long": 700}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Four sources whose tokens are all different, so that a token says where it stood."""
    from gristmill.indexed_dataset import IndexedDatasetBuilder

    folder = tmp_path_factory.mktemp("phases")
    for name, size in SIZES.items():
        with IndexedDatasetBuilder(folder / name, vocab_size=60_000) as builder:
            for start in range(0, size, 7):
                builder.add_document(np.arange(start, min(start + 7, size)))
            builder.finalize(document_order="shuffled", group=name, eod_id=None)
    return [TokenSplit(folder / name) for name in SIZES]


WEIGHTS = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)


@st.composite
def courses(draw):
    """Return phases that follow each other, the last one without end."""
    phases, until = [], 0
    for _ in range(draw(st.integers(0, 3))):
        until += draw(st.integers(150, 900))  # more than one batch
        phases.append((draw(st.sampled_from(LENGTHS)), draw(WEIGHTS), until))
    phases.append((draw(st.sampled_from(LENGTHS)), draw(WEIGHTS), None))
    return [Phase(sequence_length=s, weights=w, until_tokens=u) for s, w, u in phases]


def given_tokens(blend, first, last):
    """Return {(source, epoch): tokens given}, and how often the sequence length grew."""
    found: dict[tuple[int, int], list[int]] = {}
    for position in range(first, last):
        number, index = blend.locate(position)
        dataset = blend.phase_at(position).blend.datasets[number]
        epoch = index // dataset.samples_per_epoch
        spans = dataset.spans(index)
        tokens = [token for start, stop in spans for token in range(start, stop)]
        if dataset.num_tokens >= dataset.sequence_length:
            tokens = tokens[:-1]  # the last label
        found.setdefault((number, epoch), []).extend(tokens)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(phases=courses(), change=st.integers(1, 150), weights=WEIGHTS, batch=st.integers(1, 5))
def test_no_token_is_given_twice_in_an_epoch_whatever_the_phases_and_changes(
    sources, phases, change, weights, batch
):
    first = PhasedBlend(sources, phases, seed=5, batch_size=batch, block_length=24)
    state = BlendState.from_dict(first.state(change).to_dict())
    reweighted = [Phase(sequence_length=phases[-1].sequence_length, weights=weights)]
    second = PhasedBlend(
        sources[::-1], reweighted, seed=5, start=state, batch_size=batch, block_length=24
    )
    end = change + 60
    before, after = given_tokens(first, 0, change), given_tokens(second, change, end)
    last = second.phases[0].blend.datasets

    together = {key: list(tokens) for key, tokens in before.items()}
    for (number, epoch), tokens in after.items():
        together.setdefault((3 - number, epoch), []).extend(tokens)
    for tokens in together.values():
        assert max(Counter(tokens).values()) == 1
    for number in range(4):
        dataset = last[3 - number]
        epochs = sorted(epoch for source, epoch in together if source == number)
        # Left out: less than one longest sample for each of at most 4 changes of length.
        for epoch in epochs[:-1]:
            assert len(together[number, epoch]) > dataset.tokens_per_epoch - 4 * LENGTHS[-1]
        if len({phase.sequence_length for phase in phases}) == 1:
            assert epochs == list(range(len(epochs)))
            for epoch in epochs[:-1]:
                full = dataset.samples_per_epoch * dataset.sequence_length
                assert len(together[number, epoch]) == min(full, dataset.num_tokens)
    assert second.state(end).samples == end
    assert second.num_tokens(end) == second.state(end).tokens


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(phases=courses(), number=st.integers(0, 250), world=st.integers(1, 6))
def test_any_position_and_state_is_known_without_walking_and_ranks_partition_the_samples(
    sources, phases, number, world
):
    blend = PhasedBlend(sources, phases)
    walked = [blend.locate(position) for position in range(number + 1)]
    jumped = PhasedBlend(sources, phases)

    assert jumped.locate(number) == walked[-1]
    assert jumped.state(number) == blend.state(number)
    lengths = [blend.phase_at(position).blend.sequence_length for position in range(number)]
    assert blend.num_tokens(number) == sum(lengths)
    shards = [[blend.locate(p) for p in range(rank, number + 1, world)] for rank in range(world)]
    joined = [shards[position % world][position // world] for position in range(number + 1)]
    assert joined == walked


@pytest.mark.parametrize("until", [1, 700, 10**9])
def test_a_longer_length_later_changes_nothing_before_it(sources, until):
    short = Phase(sequence_length=8)
    alone = PhasedBlend(sources, [short], block_length=24)
    both = PhasedBlend(
        sources, [Phase(sequence_length=8, until_tokens=until), Phase(sequence_length=24)]
    )
    count = both.phases[0].num_samples

    assert count == -(-until // 8)
    for position in range(min(count, 300)):
        np.testing.assert_array_equal(
            alone.sample(position)["tokens"], both.sample(position)["tokens"]
        )
    assert both.sample(count)["tokens"].shape == (24,)


def test_samples_of_all_lengths_are_parts_of_the_same_blocks(sources):
    """Two samples of 12, or three of 8, are one of 24: the order is one of tokens."""
    long = SampleDataset(sources[3].shards, 24, seed=9)
    for size in (4, 8, 12):
        parts = SampleDataset(sources[3].shards, size, seed=9, block_length=24)
        assert parts.tokens_per_epoch == long.tokens_per_epoch
        for block in range(2 * long.samples_per_epoch):
            cut = [parts.sample(block * 24 // size + part) for part in range(24 // size)]
            for key in ("tokens", "labels"):
                joined = np.concatenate([part[key] for part in cut])
                np.testing.assert_array_equal(joined, long.sample(block)[key])


def test_phases_end_with_whole_batches(sources):
    phases = [Phase(sequence_length=8, until_tokens=801), Phase(sequence_length=24)]
    blend = PhasedBlend(sources, phases, batch_size=16)

    assert [placed.num_samples for placed in blend.phases] == [112, None]
    assert blend.phases[1].first_token == 896
    resumed = PhasedBlend(sources, phases, batch_size=16, start=blend.state(50))
    assert resumed.phases[1].first_sample == 112


def test_a_source_may_join_leave_and_come_back(sources):
    phase = [Phase(sequence_length=8)]
    two = PhasedBlend(sources[2:], phase)
    one = PhasedBlend(sources[3:], phase, start=two.state(40))
    back = PhasedBlend(sources, phase, start=one.state(60))
    counts = two.phases[0].blend.consumed(40)

    assert back.phases[0].blend.starts == [0, 0, counts[0], counts[1] + 20]
    assert back.start.samples == 60
    with pytest.raises(IndexError, match="took over at sample 60"):
        back.sample(59)
    assert back.sample(60)["tokens"].shape == (8,)


def test_other_blocks_are_another_order_that_begins_with_the_next_epoch(sources):
    before = PhasedBlend(sources[3:], [Phase(sequence_length=8)])
    longer = PhasedBlend(sources[3:], [Phase(sequence_length=24)], start=before.state(10))

    assert longer.phases[0].blend.starts == [700 // 24]


def test_changed_bytes_are_refused(sources, write_prefix):
    state = PhasedBlend(sources[3:], [Phase(sequence_length=8)]).state(10)
    other = write_prefix([[1, 2, 3]] * 100, "other", group="long", eod_id=None)

    with pytest.raises(DataChangedError, match="long has other tokens than those that were read"):
        PhasedBlend([other], [Phase(sequence_length=8)], start=state)


def test_caps_count_over_all_phases(sources):
    phases = [
        Phase(sequence_length=8, weights=[0, 0, 1, 1], max_epochs=2, until_tokens=640),
        Phase(sequence_length=8, weights=[0, 0, 1, 1], max_epochs=2),
    ]
    blend = PhasedBlend(sources, phases)
    ends = sum(2 * dataset.samples_per_epoch for dataset in blend.phases[0].blend.datasets[2:])

    assert blend.epochs(ends)[2:] == [2, 2]
    with pytest.raises(IndexError, match="reached its largest number of epochs"):
        blend.locate(ends)
    assert "middle reaches max_epochs = 2 at sample" in describe_phases(blend, ends)


@pytest.mark.parametrize(
    ("phases", "options", "message"),
    [
        ([], {}, "one phase or more"),
        ([Phase(sequence_length=8), Phase(sequence_length=8)], {}, "says no until_tokens"),
        (
            [Phase(sequence_length=8, until_tokens=64), Phase(sequence_length=8, until_tokens=64)],
            {},
            "phase 2 of 2 ends at 64 tokens, but 64 are consumed before it begins",
        ),
        (
            [Phase(sequence_length=8, until_tokens=64), Phase(sequence_length=12)],
            {},
            "12 is not a multiple of 8",
        ),
        ([Phase(sequence_length=24)], {"block_length": 8}, "Raise it"),
        (
            [Phase(sequence_length=8, max_epochs=1, until_tokens=10**6)],
            {},
            "phase 1 needs 125,000 samples to reach 1,000,000 tokens, but max_epochs leaves 105",
        ),
    ],
)
def test_phases_that_cannot_be_are_refused(sources, phases, options, message):
    with pytest.raises(IndexedDatasetError, match=message):
        PhasedBlend(sources, phases, **options)


def test_two_sources_of_one_name_and_blocks_that_do_not_fit_are_refused(sources):
    with pytest.raises(IndexedDatasetError, match="two sources have the name long"):
        PhasedBlend([sources[3], sources[3]], [Phase(sequence_length=8)])
    for block, order in ((12, "stable"), (4, "stable"), (1000, "stable"), (24, "sequential")):
        with pytest.raises(IndexedDatasetError, match=f"block_length is {block}"):
            SampleDataset(sources[3].shards, 8, order=order, block_length=block)


def test_the_end_of_the_last_phase_is_the_end(sources):
    blend = PhasedBlend(sources, [Phase(sequence_length=8, until_tokens=80)])

    assert len(blend) == 10
    np.testing.assert_array_equal(blend[-1]["tokens"], blend.sample(9)["tokens"])
    with pytest.raises(IndexError, match="the last phase ends after 10"):
        blend.sample(10)
    assert len(PhasedBlend(sources, [Phase(sequence_length=8)])) == 105
