"""TOML in, typed config objects out, and back: the one place that reads and writes config files.

One file serves every command: `[run]` for all, `[preprocess.*]`, `[pretrain.*]`, `[finetune.*]`
for one command each. A command reads its own section and ignores the others'; a key that no class
knows is an error with a suggestion. The classes live in the rooms (`pipeline/config.py`,
`trainer/config.py`): plain dataclasses whose field documentation becomes `--help` and the comments
of `gristmill init`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import json
import textwrap
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

SECTIONS = ("run", "preprocess", "pretrain", "finetune")
"""Top-level tables of a config file."""

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A config file or value cannot be used; the message names the file, the key and a remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where a run writes and with how many processes; changes no result."""

    output: str = "runs/gristmill"
    """Folder for everything that is written; run again with the same folder to resume."""
    workers: int = 0
    """Worker processes of preprocess; 0: one for each usable CPU. With ray: units at a time in the
    cluster; 0: one for each of its CPUs."""
    executor: Literal["local", "ray"] = "local"
    """Where units of preprocess run: processes of this machine, or a Ray cluster whose machines see
    the same folders."""
    ray_address: str = ""
    """Ray cluster to join (HOST:PORT, ray://HOST:PORT); empty: that of RAY_ADDRESS, else one is
    started on this machine."""
    keep: bool = False
    """Keep the files in work/ that only later stages of preprocess read; else they are removed as
    soon as these are done. A run with other settings then has less to do again."""
    check_space: bool = True
    """Refuse to begin a run of preprocess that needs more disk or memory than there is, by an
    estimate (`--plan` shows it); --no-check-space goes on all the same."""
    max_failed_units: int = 10
    """Units of reading that may fail three times each: they are set aside, the run goes on, and it
    ends with exit status 3. 0: stop at the first."""


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML config file.

    Raises:
        ConfigError: no such file, not TOML (with line and column), or an unknown top-level table.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
        hint = f"; {path.parent / near[0]} exists" if near else ""
        raise ConfigError(
            f"config file {path} does not exist{hint}. `gristmill init` prints one to start from"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not valid TOML: {error}") from error
    for key in tables:
        if key not in SECTIONS:
            raise ConfigError(_unknown_key(str(path), key, SECTIONS))
    return tables


def build(
    kind: type[Config], table: dict[str, Any], where: str, default: Config | None = None
) -> Config:
    """Return a `kind` (a dataclass) filled from a TOML table.

    Args:
        kind: the config class; its fields' types are enforced.
        table: the values; missing ones keep their defaults.
        where: how messages name the table, e.g. `demo.toml [pretrain]`.
        default: what missing values are; None: those of the class.

    Raises:
        ConfigError: an unknown key (with a suggestion) or a value of the wrong type.
    """
    import msgspec

    _check_keys(kind, table, where)
    if default is not None:
        table = _overlaid(dataclasses.asdict(default), table)  # type: ignore[call-overload]
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return the values of both, those of `above` where both have one."""
    merged = below | above
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict) and below[key]:
            merged[key] = _overlaid(below[key], value)
    return merged


def to_toml(sections: dict[str, Any], *, comments: bool = True) -> str:
    """Return config objects as TOML, each field under its documentation when `comments`.

    Args:
        sections: table name -> config dataclass, in the order to be written.
    """
    lines: list[str] = []
    for name, config in sections.items():
        _write_table(name, config, lines, comments)
    return "\n".join(lines).strip() + "\n"


def save_config(path: Path, run: RunConfig, **sections: Any) -> None:
    """Write the resolved config beside what it produced."""
    from .indexed_dataset.atomic import write_atomically

    write_atomically(path, to_toml({"run": run, **sections}).encode())


def _check_keys(kind: Any, table: Any, where: str) -> None:
    if not isinstance(table, dict) or not dataclasses.is_dataclass(kind):
        return
    known = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in known:
            raise ConfigError(_unknown_key(where, key, list(known)))
        inner = known[key]
        arguments = [part for part in typing.get_args(inner) if dataclasses.is_dataclass(part)]
        if isinstance(value, list) and arguments:
            for number, item in enumerate(value):
                _check_keys(arguments[0], item, f"{where}, {key} number {number + 1}")
        else:
            if isinstance(inner, types.UnionType) and arguments:
                inner = arguments[0]
            _check_keys(inner, value, f"{where}, {key}")


def _unknown_key(where: str, key: str, known: typing.Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
    return f"{where}: unknown key `{key}`; {hint}"


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _write_table(name: str, config: Any, lines: list[str], comments: bool) -> None:
    documentation = field_documentation(type(config))
    tables: list[tuple[str, Any]] = []
    lines += ["", f"[{name}]"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) or _is_list_of_tables(value):
            tables.append((f"{name}.{field.name}", value))
            continue
        if comments and field.name in documentation:
            lines += [f"# {line}" for line in textwrap.wrap(documentation[field.name], 96)]
        # TOML has no null: an unset value stands as a comment, and reads back as the default.
        lines.append(f"# {field.name} =" if value is None else f"{field.name} = {_to_value(value)}")
    if lines[-1] == f"[{name}]":
        del lines[-2:]  # only sub-tables: TOML needs no header for that
    for table, value in tables:
        if dataclasses.is_dataclass(value):
            _write_table(table, value, lines, comments)
            continue
        for number, item in enumerate(value):
            start = len(lines)
            _write_table(table, item, lines, comments and number == 0)
            lines[start + 1] = f"[[{table}]]"


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and dataclasses.is_dataclass(value[0])


def _to_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {_to_value(item)}" for key, item in value.items())
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_to_value(item) for item in value) + "]"
    raise TypeError(f"no TOML form for {type(value).__name__}")


def field_documentation(kind: type) -> dict[str, str]:
    """Return field name -> the string literal that stands under it in the class body."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, literal in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(literal, ast.Expr)
            and isinstance(literal.value, ast.Constant)
            and isinstance(literal.value.value, str)
        ):
            found[field.target.id] = " ".join(literal.value.value.split())
    return found
