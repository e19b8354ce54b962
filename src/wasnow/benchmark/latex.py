"""The table of a benchmark as LaTeX: scores, paired differences, and published figures."""

from __future__ import annotations

from wasnow.benchmark.published import PublishedTable
from wasnow.benchmark.table import (
    SCORES,
    Table,
    bounds,
    caption,
    difference_cells,
    difference_columns,
    formatted,
)


def as_tex(table: Table) -> str:
    """Return a LaTeX ``table*`` (booktabs) of scores in per cent with intervals, parameters and GFLOPs."""
    columns = [one for one in table.columns if one in SCORES or one.group == "network"]
    groups: list[tuple[str, int]] = []
    for one in columns:
        if groups and groups[-1][0] == one.group:
            groups[-1] = (one.group, groups[-1][1] + 1)
        else:
            groups.append((one.group, 1))
    rules, first = [], 2
    for _, span in groups:
        rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    body = []
    for each in table.lines:
        if each.status != "finished":
            why = each.reason or "not run"
            body.append(f"{tex(each.name)} & \\multicolumn{{{len(columns)}}}{{l}}{{\\emph{{{tex(why)}}}}} \\\\")
            continue
        cells = []
        for column in columns:
            value = each.values.get(column.key)
            between = "" if value is None else bounds(column, value.low, value.high)
            between = " to ".join(f"${bound}$" for bound in between.split(" to ")) if between else ""
            number = "--" if value is None else f"${formatted(column, value)}$"
            cells.append(f"\\shortstack{{{number}\\\\{{\\tiny {between}}}}}" if between else number)
        body.append(f"{tex(each.name)} & {' & '.join(cells)} \\\\")
    heads = " & ".join(f"\\multicolumn{{{span}}}{{c}}{{{tex(table.title(group))}}}" for group, span in groups)
    return "\n".join(
        [
            "% \\usepackage{booktabs,graphicx}",
            "\\begin{table*}",
            "\\centering",
            f"\\caption{{{tex(caption(table))}}}",
            "\\resizebox{\\textwidth}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
            "\\toprule",
            f" & {heads} \\\\",
            " ".join(rules),
            f"Method & {' & '.join(tex(one.head) for one in columns)} \\\\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}}",
            "\\end{table*}",
            "",
            *_differences_tex(table),
            *_published_tex(table.published),
            *_published_tex(table.later),
        ]
    )


def _differences_tex(table: Table) -> list[str]:
    """Return the lines of a LaTeX table of paired differences; none without differences."""
    columns = difference_columns(table)
    if not columns:
        return []
    rows = []
    for name, found in table.differences.items():
        cells = []
        for column in columns:
            if column.key not in found:
                cells.append("--")
                continue
            value, between, p = difference_cells(found[column.key])
            bound = " to ".join(f"${one}$" for one in between.split(" to "))
            cells.append(f"\\shortstack{{${value}$\\\\{{\\tiny {bound}, $p={p}$}}}}")
        rows.append(f"{tex(name)} & {' & '.join(cells)} \\\\")
    heads = " & ".join(tex(f"{one.group} {one.head}") for one in columns)
    caption_text = f"Differences to {table.reference} on the same pairs, in points of per cent"
    return [
        "\\begin{table*}",
        "\\centering",
        f"\\caption{{{tex(caption_text)}, with 95\\% intervals and p-values (paired bootstrap over pairs and seeds).}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        f"Method & {heads} \\\\",
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}}",
        "\\end{table*}",
        "",
    ]


def _published_tex(table: PublishedTable) -> list[str]:
    """Return the lines of a LaTeX table of published figures."""
    rows = []
    for one in table.rows:
        cells = ("--" if value is None else f"{value:.2f}" for value in (one.oa, one.f1, one.miou, one.sek))
        rows.append(f"{tex(one.method)} & {' & '.join(cells)} \\\\")
    return [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{tex(f'{table.title}, as published, not measured here. {table.source}. {table.data}.')}}}",
        "\\begin{tabular}{lrrrr}",
        "\\toprule",
        f"Method & {' & '.join(map(tex, table.heads))} \\\\",
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
        "",
    ]


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}


def tex(text: str) -> str:
    """Return text escaped for LaTeX, on one line."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(text.split()))
