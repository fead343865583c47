"""A sample's costs in; what the whole run needs of each stage, and whether it fits, out.

What a stage costs once and what it costs for each byte of text follow from two samples of different
size. Where a sample cannot tell (copies are found more often in more text, a tokenizer trained on
little fits that too well) the allowance is on the side of more, and disk has a margin on top.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .config import PreprocessConfig
from .dedup_components import PARTITION_CANDIDATES, components_memory
from .dedup_exact import PART_DOCUMENTS
from .progress import size_text
from .unit_runs import UNIT_BYTES
from .units import ReadUnit

DISK_MARGIN = 1.25
"""On what the sample tells of the disk, which is drawn from a few places of the input."""

UNIT_DISK_BYTES = 50_000
"""Markers, and footers of files, of one unit."""

CANDIDATE_SHARE = 1 / 3
"""Documents that resemble another one, at most as a rule: their shingles lie on the disk."""

SHINGLE_TEXT_BYTES = 3
"""Text of one shingle, at least: a letter of Chinese."""

MORE_TOKENS = 1.5
"""A tokenizer that learns from all makes so many times the tokens of one that learnt from the
sample alone, at most."""

NOISE_SECONDS = 0.01
"""By which the time of a stage differs from one run to the next."""

WORKER_BYTES = 400_000_000
"""Memory of a worker with next to nothing to do."""

WORKER_BYTES_A_TEXT_BYTE = 12
"""And for each byte of a unit's text, until it is UNIT_BYTES in all."""

TRAINING_BYTES_A_TEXT_BYTE = 40
"""Memory that training the tokenizer takes for each byte of text that it learns from; a worker
gives little of it back. (Measured, with WORKER_BYTES: 1.06 GB for 20 MB.)"""

PARENT_BYTES = 300_000_000

_CANDIDATES_ON_DISK = {"shingles", "boilerplate", "verify"}
_TOKENS_ON_DISK = {"tokenize", "pack", "heldout", "summary", "pages"}


class NoRoomError(ValueError):
    """A run cannot fit on the disk or into memory; the message says what would help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one stage has cost."""

    seconds: float
    """Of one core."""
    units: int
    disk_bytes: Mapping[str, int]
    """Folder or file of the output -> bytes, when the stage had ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What came out of running parts of the input, and how much there is in all."""

    whole_text_bytes: float
    """Text of the whole input, by what was read of its units."""
    whole_documents: float
    """The same in documents."""
    text_bytes: tuple[int, int]
    """Text of the smaller and of the larger sample."""
    documents: int
    """Of the larger one, as its tokens and the seconds that it took to read."""
    tokens: int
    read_seconds: float
    stages: Mapping[str, tuple[Cost, Cost]]
    """Stage -> its costs for both samples, in the order of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageNeeds:
    """What one stage of the whole run needs."""

    name: str
    seconds: float
    processes: int
    memory_bytes: int
    """Of each process."""
    disk_bytes: int
    """Of the output folder, at the stage's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a run needs."""

    stages: Sequence[StageNeeds]
    stays: Mapping[str, int]
    """Folder of the output -> bytes that are there in the end."""

    @property
    def seconds(self) -> float:
        """Return the time of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def disk(self) -> StageNeeds:
        """Return the stage that needs most disk."""
        return max(self.stages, key=lambda stage: stage.disk_bytes)

    @property
    def memory(self) -> StageNeeds:
        """Return the stage that needs most memory in all its processes."""
        return max(self.stages, key=lambda stage: stage.processes * stage.memory_bytes)

    def refuse_without(self, room: Room, output: Path) -> None:
        """Do nothing if there is room for the run.

        Raises:
            NoRoomError: there is not.
        """
        disk = self.disk
        if disk.disk_bytes > room.disk_bytes:
            raise NoRoomError(
                f"this run needs about {size_text(disk.disk_bytes)} of disk in {output} (most in "
                f"stage {disk.name}), and there are {size_text(room.disk_bytes)}, its own files "
                "counted in: it would stop with a full disk. Free space, choose another --output "
                "or fewer sources, or go on all the same with --no-check-space (what is finished "
                "when the disk is full is kept)"
            )
        refuse_memory(self.memory.memory_bytes, self.memory.processes, room)


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What there is."""

    disk_bytes: int
    """Free for this user, and what the output folder holds already."""
    memory_bytes: int | None
    """That new processes can have; None: nobody knows."""

    @classmethod
    def of(cls, output: Path) -> Room:
        """Look at the disk that an output folder is, or would be, on, and at this machine."""
        place = output
        while not place.exists() and place != place.parent:
            place = place.parent
        own = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        return cls(disk_bytes=shutil.disk_usage(place).free + own, memory_bytes=free_memory())


def free_memory() -> int | None:
    """Return the memory that is available here: the machine's, capped by the cgroup's limit."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    except (OSError, ValueError):
        pass  # not Linux
    try:
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no cgroup v2
    return min(found, default=None)


def worker_memory(text_bytes: float, learnt_bytes: float = 0) -> int:
    """Return the memory that a worker needs.

    Args:
        text_bytes: text of the largest unit.
        learnt_bytes: text that the tokenizer is trained on there.
    """
    reading = min(UNIT_BYTES, WORKER_BYTES + WORKER_BYTES_A_TEXT_BYTE * text_bytes)
    return int(max(reading, WORKER_BYTES + TRAINING_BYTES_A_TEXT_BYTE * learnt_bytes))


def refuse_memory(memory_bytes: int, processes: int, room: Room) -> None:
    """Do nothing if there is memory for so many processes and their parent.

    Raises:
        NoRoomError: there is not.
    """
    needed = processes * memory_bytes + (PARENT_BYTES if processes > 1 else 0)
    if room.memory_bytes is None or needed <= room.memory_bytes:
        return
    fewer = max(1, (room.memory_bytes - PARENT_BYTES) // memory_bytes)
    remedy = f"Take --workers {fewer}" if fewer < processes else "Free memory"
    raise NoRoomError(
        f"this run needs about {size_text(needed)} of memory ({processes} processes of "
        f"{size_text(memory_bytes)}), and {size_text(room.memory_bytes)} are available: "
        f"processes would be killed. {remedy}, or go on all the same with --no-check-space"
    )


def needs_of(
    config: PreprocessConfig, sample: Sample, units: Sequence[ReadUnit], workers: int
) -> Needs:
    """Return what the whole run needs, by the costs of its samples."""
    whole, size_bytes = sample.whole_text_bytes, sum(unit.size_bytes for unit in units)
    largest = max(unit.size_bytes for unit in units) / max(1, size_bytes) * whole
    candidates = CANDIDATE_SHARE * sample.whole_documents
    processes = {
        "exact": -(-sample.whole_documents // PART_DOCUMENTS),
        "components": 1,
        "boilerplate": 1 + candidates // PARTITION_CANDIDATES,
        "verify": max(16, candidates // PARTITION_CANDIDATES),
        "train_tokenizer": 2,  # ours, and GPT-2's splitting beside it
        "pages": 1,
        "heldout": 1,
    }
    learnt = 0.0
    stages, stays = [], dict.fromkeys(list(sample.stages.values())[-1][1].disk_bytes, 0)
    for name, (small, large) in sample.stages.items():
        is_by_unit = name not in processes and small.units == large.units == 1
        busy = int(min(workers, processes.get(name, max(len(units), large.units))))
        text = whole
        if name == "train_tokenizer":
            text = learnt = min(whole, config.tokenizer.train_bytes)
        slope, once = _line(
            small.seconds, max(small.seconds, large.seconds - NOISE_SECONDS), sample.text_bytes
        )
        if name == "clean":
            slope += sample.read_seconds / sample.text_bytes[1]
        memory = worker_memory(largest, learnt)
        if name == "components":
            memory = max(memory, components_memory(int(sample.whole_documents)))
        disk = {
            folder: _whole_disk(folder, name, small, large, sample, config)
            + UNIT_DISK_BYTES * len(units)
            for folder in large.disk_bytes
        }
        if name == "tokenize" and "work" in disk:
            # A unit's tokens lie there twice while they are sorted.
            disk["work"] += min(1.0, busy / len(units)) * disk["work"]
        stages.append(
            StageNeeds(
                name=name,
                seconds=(slope * text + once * (len(units) if is_by_unit else 1)) / busy,
                processes=busy,
                memory_bytes=memory,
                disk_bytes=int(sum(disk.values())),
            )
        )
        stays = {folder: int(size) for folder, size in disk.items()}
    return Needs(stages=stages, stays=stays)


def _whole_disk(
    folder: str, stage: str, small: Cost, large: Cost, sample: Sample, config: PreprocessConfig
) -> float:
    sizes = small.disk_bytes.get(folder, 0), large.disk_bytes[folder]
    slope, once = _line(*sizes, sample.text_bytes)
    if folder in ("work", "data") and stage in _TOKENS_ON_DISK and not config.tokenizer.path:
        slope *= MORE_TOKENS
    if folder == "work" and stage in _CANDIDATES_ON_DISK:
        slope += 8 * CANDIDATE_SHARE / SHINGLE_TEXT_BYTES
    return DISK_MARGIN * (slope * sample.whole_text_bytes + once)


def _line(small: float, large: float, sizes: tuple[int, int]) -> tuple[float, float]:
    """Return the slope and the beginning of a line through two points, neither below zero."""
    slope = max(0.0, (large - small) / max(1, sizes[1] - sizes[0]))
    slope = min(slope, large / max(1, sizes[1]))
    return slope, large - slope * sizes[1]


def show_needs(
    needs: Needs, sample: Sample, room: Room, workers: int, num_units: int, console: Console
) -> None:
    """Print the needs of each stage, in a table of 80 columns."""
    tokens = sample.tokens * sample.whole_text_bytes / sample.text_bytes[1]
    console.print(
        f"{sample.whole_documents:,.0f} documents, {size_text(sample.whole_text_bytes)} of text"
        + (f", {tokens:,.0f} tokens" if tokens else "")
        + f"; {workers} workers, {num_units:,} units. Estimates from {sample.documents:,} "
        f"documents ({size_text(sample.text_bytes[1])}) run on this machine:",
        highlight=False,
    )
    table = Table(header_style="bold")
    for name in ("stage", "time", "processes", "memory each", "disk in use"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in needs.stages:
        table.add_row(
            stage.name,
            _time(stage.seconds),
            str(stage.processes),
            f"< {size_text(stage.memory_bytes)}",
            size_text(stage.disk_bytes),
        )
    table.add_section()
    memory = needs.memory
    table.add_row(
        "in all",
        _time(needs.seconds),
        str(memory.processes),
        f"< {size_text(memory.processes * memory.memory_bytes + PARENT_BYTES)}",
        size_text(needs.disk.disk_bytes),
        style="bold",
    )
    available = "" if room.memory_bytes is None else size_text(room.memory_bytes)
    table.add_row("there is", "", str(os.cpu_count() or ""), available, size_text(room.disk_bytes))
    console.print(table)
    stays = ", ".join(
        f"{name} {size_text(size)}"
        for name, size in sorted(needs.stays.items(), key=lambda item: -item[1])
        if "." not in name
    )
    console.print(f"In the end there are: {stays} (work may be deleted then).", highlight=False)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
