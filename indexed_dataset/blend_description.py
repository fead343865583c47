"""A blend in; what each source and language will give, with epochs and repeats, as text out.

It opens no more than the indexes and manifests, so it comes before any accelerator is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .blend import BlendedDataset
from .phases import PhasedBlend, PlacedPhase
from .samples import SampleDataset
from .weights import language_of

_HEAD = ("", "share", "tokens", "samples", "drawn tokens", "epochs", "repeats")


@dataclass(frozen=True, slots=True)
class _Row:
    """What one dataset gives over some positions of a blend."""

    name: str
    language: str
    weight: float
    num_tokens: int
    samples: int
    tokens: int
    epochs_before: float
    """Epochs given before these positions."""
    epochs: float
    """Epochs given at their end."""

    @property
    def repeated(self) -> float:
        """Tokens drawn here after the first epoch."""
        if self.epochs <= self.epochs_before:
            return 0.0
        later = max(self.epochs - max(self.epochs_before, 1), 0)
        return self.tokens * later / (self.epochs - self.epochs_before)


def describe_blend(blend: BlendedDataset, num_samples: int) -> str:
    """Return a table of the datasets and languages of a blend over its first `num_samples`."""
    num_tokens = sum(dataset.num_tokens for dataset in blend.datasets)
    lines = [
        f"blend of {len(blend.datasets)}: {num_tokens:,} tokens, {num_samples:,} samples of "
        f"{blend.sequence_length:,} = {num_samples * blend.sequence_length:,} tokens to draw"
    ]
    rows = _rows(blend, blend.names, num_samples)
    notes = (*_padding(blend, rows), *_caps(blend, blend.names, num_samples, 0))
    return "\n".join((*lines, *_table(rows), *notes))


def describe_phases(blend: PhasedBlend, num_samples: int) -> str:
    """Return a table for each phase of the first `num_samples`, and one of all if there are two.

    Args:
        num_samples: counted from the first sample of all; a blend that took over from another one
            begins where that one ended.
    """
    spans = [span for placed in blend.phases if (span := _span(placed, num_samples))]
    parts = []
    for number, (placed, count) in enumerate(spans, 1):
        size = placed.blend.sequence_length
        end = placed.first_token + count * size
        name = f"phase {number} of {len(blend.phases)}" if len(blend.phases) > 1 else "blend"
        lines = [
            f"{name}: tokens {placed.first_token:,} to {end:,}, {count:,} samples of {size:,} "
            f"from {len(blend.names)} groups"
        ]
        rows = _rows(placed.blend, blend.names, count)
        lines += [*_table(rows), *_padding(placed.blend, rows)]
        lines += _caps(placed.blend, blend.names, count, placed.first_sample)
        parts.append("\n".join(lines))
    if len(spans) > 1:
        parts.append("\n".join(("all phases", *_table(_sum_of_phases(blend, spans)))))
    unused = len(blend.phases) - len(spans)
    if unused:
        parts.append(f"{unused} of {len(blend.phases)} phases begin after the last sample")
    return "\n\n".join(parts)


def _span(placed: PlacedPhase, num_samples: int) -> tuple[PlacedPhase, int] | None:
    """Return a phase with its samples among the first `num_samples`; None if it has none."""
    count = num_samples - placed.first_sample
    if placed.num_samples is not None:
        count = min(count, placed.num_samples)
    return (placed, count) if count > 0 else None


def _rows(blend: BlendedDataset, names: Sequence[str], num_samples: int) -> list[_Row]:
    consumed = blend.consumed(num_samples)
    return [
        _Row(
            name,
            language_of(name, dataset.split.manifests),
            weight,
            dataset.num_tokens,
            count - start,
            (count - start) * blend.sequence_length,
            start / dataset.samples_per_epoch,
            count / dataset.samples_per_epoch,
        )
        for name, dataset, weight, count, start in zip(
            names, blend.datasets, blend.tree.weights, consumed, blend.starts, strict=True
        )
    ]


def _sum_of_phases(blend: PhasedBlend, spans: Sequence[tuple[PlacedPhase, int]]) -> list[_Row]:
    tables = [_rows(placed.blend, blend.names, count) for placed, count in spans]
    placed, count = spans[-1]
    epochs = blend.epochs(placed.first_sample + count)
    return [
        _Row(
            row.name,
            row.language,
            sum(table[number].tokens for table in tables),
            row.num_tokens,
            sum(table[number].samples for table in tables),
            sum(table[number].tokens for table in tables),
            row.epochs_before,
            epochs[number],
        )
        for number, row in enumerate(tables[0])
    ]


def _table(rows: Sequence[_Row]) -> list[str]:
    """Return lines: each language, under it its datasets where it has several or other names."""
    languages: dict[str, list[_Row]] = {}
    for row in rows:
        languages.setdefault(row.language, []).append(row)
    total = sum(row.weight for row in rows)
    cells: list[Sequence[str]] = [_HEAD]
    for language, members in languages.items():
        cells.append(_cells(f"  {language}", members, total))
        if len(members) > 1 or members[0].name != language:
            cells += [_cells(f"    {row.name}", [row], total) for row in members]
    if len(languages) > 1:
        cells.append(_cells("  all", rows, total))
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    return [
        "  ".join((line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:]))).rstrip()
        for line in cells
    ]


def _cells(name: str, rows: Sequence[_Row], total: float) -> Sequence[str]:
    """Return one line of the table; repeats: share of what is drawn beyond the first epoch."""
    num_tokens, drawn = sum(row.num_tokens for row in rows), sum(row.tokens for row in rows)
    epochs = sum(row.epochs * row.num_tokens for row in rows) / num_tokens
    repeated = sum(row.repeated for row in rows)
    return (
        name,
        f"{sum(row.weight for row in rows) / total:.2%}",
        f"{num_tokens:,}",
        f"{sum(row.samples for row in rows):,}",
        f"{drawn:,}",
        f"{epochs:.2f}",
        f"{repeated / drawn:.0%}" if drawn else "-",
    )


def _padding(blend: BlendedDataset, rows: Sequence[_Row]) -> Iterable[str]:
    """Say how much of what is drawn is padding, where bins are."""
    shares = [dataset.padding_share for dataset in blend.datasets]
    drawn = sum(row.tokens for row in rows)
    if drawn and any(dataset.order == "best_fit" for dataset in blend.datasets):
        padded = sum(row.tokens * share for row, share in zip(rows, shares, strict=True))
        worst = max(range(len(rows)), key=lambda number: shares[number])
        yield (
            f"  padding: {padded / drawn:.2%} of the drawn tokens; most in {rows[worst].name}, "
            f"{shares[worst]:.2%}"
        )


def _caps(
    blend: BlendedDataset, names: Sequence[str], num_samples: int, first_sample: int
) -> Iterable[str]:
    """Say where each cap binds."""
    for position, number in blend.tree.limits_reached(num_samples):
        yield (
            f"  {names[number]} reaches max_epochs = {blend.max_epochs[number]:g} at sample "
            f"{first_sample + position:,} ({position / num_samples:.1%} of the way): the others go "
            "on without it"
        )


def sample_line(dataset: SampleDataset, num_samples: int) -> str:
    """Return one line about what a single dataset gives."""
    epochs = num_samples / dataset.samples_per_epoch
    padding = f", {dataset.padding_share:.2%} padding" if dataset.order == "best_fit" else ""
    return (
        f"{dataset.name}: {num_samples:,} samples of {dataset.sequence_length:,} = "
        f"{epochs:.2f} epochs of {dataset.num_tokens:,} tokens "
        f"({dataset.order}, {dataset.documents}{padding})"
    )
