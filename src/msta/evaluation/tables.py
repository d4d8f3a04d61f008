"""Tables of a report: one list of rows, written as Markdown, LaTeX or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "†": r"$^\dagger$",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its header.
        key: of its value in a row. If a row has no such value, or None, the cell is empty.
        format: of the value, as for :func:`format`; ">" for text that is set like numbers. Empty for words.
    """

    title: str
    key: str
    format: str = ""

    def cell(self, row: Mapping[str, Any]) -> str:
        """The row's value as text."""
        value = row.get(self.key)
        return "" if value is None else format(value, self.format)


@dataclass(frozen=True)
class Table:
    """Rows under columns. Columns with a format stand flush right.

    Attributes:
        columns: what is shown of each row.
        rows: values by key. HTML sets rows apart whose "by_others" is true.
        title: what the table is about.
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""

    def cells(self) -> list[list[str]]:
        """The header and all rows as text."""
        header = [column.title for column in self.columns]
        return [header, *([column.cell(row) for column in self.columns] for row in self.rows)]

    def markdown(self) -> str:
        """For Markdown; the columns are padded, so that a terminal shows them well too."""
        header, *body = [[cell.replace("|", "\\|") for cell in row] for row in self.cells()]
        widths = [max(3, *map(len, column)) for column in zip(header, *body, strict=True)]
        right = [bool(column.format) for column in self.columns]
        rule = ["-" * (width - 1) + (":" if r else "-") for width, r in zip(widths, right, strict=True)]
        lines = []
        for row in (header, rule, *body):
            padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
            lines.append(f"| {' | '.join(padded)} |\n")
        return "".join(lines)

    def latex(self, caption: str) -> str:
        """For LaTeX, with booktabs; a rule wherever the first column changes."""

        def escaped(text: str) -> str:
            return "".join(_LATEX.get(c, c) for c in text)

        header, *body = self.cells()
        lines: list[str] = []
        for i, row in enumerate(body):
            if i and row[0] != body[i - 1][0]:
                lines.append(r"\midrule")
            lines.append(" & ".join(map(escaped, row)) + r" \\")
        alignment = "".join("r" if column.format else "l" for column in self.columns)
        return "\n".join([
            r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule", " & ".join(map(escaped, header)) + r" \\", r"\midrule", *lines, r"\bottomrule",
            r"\end{tabular}", rf"\caption{{{escaped(caption)}}}", r"\end{table}", "",
        ])  # fmt: skip

    def html(self) -> Markup:
        """For a page, see :func:`msta.evaluation.report.write_page`. On a telephone a row of many cells is a block."""
        header, *body = self.cells()
        rows = [(' class="head"', "th", header)]
        rows += [(' class="others"' if row.get("by_others") else "", "td", cells)
                 for row, cells in zip(self.rows, body, strict=True)]  # fmt: skip
        lines = []
        for own, tag, cells in rows:
            made = (
                f'<{tag} data-title="{escape(column.title)}"{" class=number" if column.format else ""}>'
                f"{escape(cell)}</{tag}>"
                for column, cell in zip(self.columns, cells, strict=True)
            )
            lines.append(f"<tr{own}>{''.join(made)}</tr>\n")
        return Markup(
            f'<div class="scroll"><table{" class=stack" if len(header) > 4 else ""}>\n{"".join(lines)}</table></div>'
        )
