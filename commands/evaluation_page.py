"""Scores and answers in, a table for the terminal and a page for the browser out."""

from __future__ import annotations

import dataclasses
import html
import io
from collections.abc import Mapping, Sequence

from ..trainer.text_scores import TextScores

_WIDTH = 100
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border:1px solid #8886;padding:.3rem .6rem;vertical-align:top;text-align:start}"
    "td.number{text-align:end;font-variant-numeric:tabular-nums}"
    "td.text{white-space:pre-wrap;max-width:28rem;overflow-wrap:anywhere}"
)
HEADINGS = ("task / source", "model", "examples", "loss", "chrF", "BLEU", "ROUGE-L", "exact")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Scores of one model on one task and source."""

    group: str
    model: str
    loss: float | None
    """Nats a token of what the assistant said, over all held-out conversations."""
    scores: TextScores | None
    """None: of all groups together, where only the loss means something."""

    def cells(self) -> list[str]:
        """Return the row as texts, under `HEADINGS`."""
        loss = "" if self.loss is None else f"{self.loss:.3f}"
        if self.scores is None:
            return [self.group, self.model, "", loss, "", "", "", ""]
        s = self.scores
        bleu = f"{s.bleu:.1f}" + (" (char)" if s.bleu_tokenize == "char" else "")
        return [
            self.group,
            self.model,
            f"{s.examples:,}",
            loss,
            f"{s.chrf:.1f}",
            bleu,
            f"{s.rouge_l:.1f}",
            f"{s.exact_match:.1f}",
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One question with what everybody said."""

    group: str
    question: str
    reference: str
    answers: Mapping[str, str]
    """Model -> its answer."""


def table(rows: Sequence[Row]) -> str:
    """Return the scores as a table of text."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="Held-out conversations")
    for number, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="left" if number < 2 else "right")
    before = rows[0].group if rows else ""
    for row in rows:
        if row.group != before:
            shown.add_section()
        before = row.group
        shown.add_row(*row.cells())
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH, highlight=False).print(shown)
    return stream.getvalue()


def page(rows: Sequence[Row], examples: Sequence[Example]) -> str:
    """Return a page without scripts that loads nothing."""
    models = list(dict.fromkeys(row.model for row in rows))
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>',
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
        f"'unsafe-inline'\"><style>{_STYLE}</style></head><body><h1>Held-out conversations</h1>",
        "<p>Loss: nats a token of what the assistant said. chrF, BLEU, ROUGE-L and exact match: "
        "percent, of generated answers; (char): every character counts as a word.</p><table>",
        "<tr>" + "".join(f"<th>{html.escape(heading)}</th>" for heading in HEADINGS) + "</tr>",
    ]
    for row in rows:
        cells = [html.escape(cell) for cell in row.cells()]
        lines.append(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells[:2])
            + "".join(f'<td class="number">{cell}</td>' for cell in cells[2:]) + "</tr>"
        )  # fmt: skip
    lines += ["</table><h2>Answers</h2><table><tr><th>question</th><th>reference</th>"]
    lines += [f"<th>{html.escape(model)}</th>" for model in models]
    lines += ["</tr>"]
    group = ""
    for example in examples:
        if example.group != group:
            group = example.group
            lines.append(f'<tr><th colspan="{2 + len(models)}">{html.escape(group)}</th></tr>')
        texts = [example.question, example.reference, *(example.answers[m] for m in models)]
        cells = [f'<td class="text" dir="auto">{html.escape(text)}</td>' for text in texts]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table></body></html>\n"])
