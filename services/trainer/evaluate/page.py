"""The report as one HTML file: opens anywhere, loads nothing."""

from html import escape

from services.trainer.evaluate import plots
from services.trainer.evaluate.findings import Findings, Shown, WorstQuery
from services.trainer.evaluate.resampling import Interval, Shift
from services.trainer.evaluate.statistics import Difference, Estimate

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem}h2{margin-top:2.5rem;font-size:1.2rem}table{border-collapse:collapse;margin:.5rem 0}
td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.better{color:#17693a}.worse{color:#a3231b}
small,.dim{color:#666}.plots{display:flex;flex-wrap:wrap;gap:1rem}svg{max-width:100%;height:auto}
ol{margin:0;padding-left:1.2rem}
"""


def page(findings: Findings) -> str:
    """The whole document."""
    title = f"Evaluation of {findings.model.name}"
    rows = [findings.model] + ([findings.baseline] if findings.baseline else [])
    parts = [
        f"<h1>{escape(title)}</h1>",
        _context(findings),
        "<h2>Retrieval over the whole catalogue</h2>",
        _measures(findings),
        "<h2>Relevance of judged pairs</h2>",
        _classification(findings),
        f'<div class="plots">{plots.precision_recall(rows)}{plots.roc(rows)}</div>',
        _confusion(findings),
    ]
    if findings.slices:
        parts += ["<h2>NDCG@10 by kind of query</h2>", plots.ndcg_by_slice(findings.slices), _slices(findings)]
    parts += [f"<h2>The worst {len(findings.worst)} queries</h2>", _worst(findings.worst)]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _context(findings: Findings) -> str:
    told = "; ".join(f"{escape(str(name))} {escape(str(value))}" for name, value in findings.context.items())
    against = f" against {escape(findings.baseline.name)}" if findings.baseline else ""
    return f"<p>{escape(findings.model.name)}{against}.<br><small>{told}</small></p>"


def _measures(findings: Findings) -> str:
    head = ["measure", "model", "95 % interval"]
    if findings.baseline:
        head += ["baseline", "95 % interval", "difference", "p (paired)", "better / worse"]
    body = []
    for name, value in findings.measures.items():
        cells = [escape(name), *_estimate(value)]
        if findings.baseline:
            cells += [*_estimate(findings.baseline_measures[name]), *_difference(findings.differences[name])]
        body.append(cells)
    note = "<p><small>Means over queries that have a relevant item; intervals by bootstrap over queries, p by a "
    return _table(head, body) + note + "two-sided paired randomisation test.</small></p>"


def _classification(findings: Findings) -> str:
    kinds = [findings.model.classification] + ([findings.baseline.classification] if findings.baseline else [])
    head = ["measure", "model", "95 % interval"]
    if findings.baseline:
        head += ["baseline", "95 % interval", "difference", "95 % interval", "p (paired)"]
    body = []
    for name, interval in findings.intervals.items():
        cells = [name.replace("_", " "), f"{kinds[0].values[name]:.4f}", _interval(interval)]
        if findings.baseline:
            change = findings.shifts[name]
            cells += [f"{kinds[1].values[name]:.4f}", _interval(findings.baseline_intervals[name])]
            told, p_value = _change(change.value, change.p_value)
            cells += [told, _interval(change), p_value]
        body.append(cells)
    thresholds = " and ".join(f"{kind.threshold:.4f}" for kind in kinds)
    chosen = escape(str(findings.context.get("threshold chosen on", "")))
    note = (
        f"{kinds[0].pairs:,} pairs, {kinds[0].relevant:,} relevant. Threshold {thresholds}, which gives the best F1 on "
        f"the split {chosen}. Intervals and two-sided p by bootstrap over queries, the same draws for both models."
    )
    return _table(head, body) + f"<p><small>{note}</small></p>"


def _confusion(findings: Findings) -> str:
    (true_negative, false_positive), (false_negative, true_positive) = findings.model.classification.confusion
    return "<h2>Confusion matrix of the model</h2>" + _table(
        ["", "said irrelevant", "said relevant"],
        [
            ["is irrelevant", f"{true_negative:,}", f"{false_positive:,}"],
            ["is relevant", f"{false_negative:,}", f"{true_positive:,}"],
        ],
    )


def _slices(findings: Findings) -> str:
    head = ["by", "slice", "queries", "model", "95 % interval"]
    if findings.baseline:
        head += ["difference", "p (paired)", "better / worse"]
    body = []
    for each in findings.slices:
        cells = [each.kind, escape(each.name), f"{each.model.queries:,}", *_estimate(each.model)]
        body.append(cells + (_difference(each.difference) if each.difference else []))
    return _table(head, body, text_columns=2)


def _worst(queries: list[WorstQuery]) -> str:
    body = []
    for each in queries:
        before = "" if each.baseline_ndcg is None else f"<br><small>baseline {each.baseline_ndcg:.3f}</small>"
        body.append([escape(each.query), f"{each.ndcg:.3f}{before}", _shown(each.returned), _shown(each.wanted)])
    return _table(["query", "NDCG@10", "returned first (grade)", "wanted (grade)"], body, text_columns=4)


def _shown(items: list[Shown]) -> str:
    def grade(item: Shown) -> str:
        return "not judged" if item.grade is None else f"{item.grade:g}"

    rows = (f'<li>{escape(item.title)} <span class="dim">({grade(item)})</span></li>' for item in items)
    return f"<ol>{''.join(rows)}</ol>"


def _estimate(value: Estimate) -> list[str]:
    return [f"{value.mean:.4f}", _interval(value)]


def _interval(value: Estimate | Interval | Shift) -> str:
    return f"{value.low:.4f} to {value.high:.4f}"


def _difference(value: Difference) -> list[str]:
    return [*_change(value.mean, value.p_value), f"{value.wins:,} / {value.losses:,}"]


def _change(value: float, p_value: float) -> list[str]:
    mood = ("better" if value > 0 else "worse") if p_value < 0.05 else "dim"
    told = "&lt; 0.001" if p_value < 0.001 else f"{p_value:.3f}"
    return [f'<span class="{mood}">{value:+.4f}</span>', told]


def _table(head: list[str], body: list[list[str]], text_columns: int = 1) -> str:
    def row(tag: str, cells: list[str]) -> str:
        return "".join(
            f"<{tag}>{cell}</{tag}>" if at < text_columns else f'<{tag} class="n">{cell}</{tag}>'
            for at, cell in enumerate(cells)
        )

    rows = "".join(f"<tr>{row('td', cells)}</tr>" for cells in body)
    return f"<table><thead><tr>{row('th', head)}</tr></thead><tbody>{rows}</tbody></table>"
