"""Plots as SVG texts, to stand in a page that needs nothing else."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.trainer.evaluate.findings import Slice
from services.trainer.evaluate.score import Scored

# Text stays text (searchable, small), and the same numbers give the same file.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "aisle", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}
_COLOURS = ("#1f6f8b", "#c06014")


def precision_recall(rows: Sequence[Scored]) -> str:
    """Precision over recall of judged pairs; the line is what guessing gives."""

    def draw(axes: Axes) -> None:
        for scored, colour in zip(rows, _COLOURS, strict=False):
            kind = scored.classification
            label = f"{scored.name}: AP {kind.values['average_precision']:.3f}"
            axes.plot(*kind.precision_recall, color=colour, label=label)
        share = rows[0].classification.relevant / rows[0].classification.pairs
        axes.axhline(share, color="grey", linestyle=":", label=f"guessing: {share:.3f}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower left", fontsize=8)

    return _svg(draw)


def roc(rows: Sequence[Scored]) -> str:
    """True over false positive rate of judged pairs."""

    def draw(axes: Axes) -> None:
        for scored, colour in zip(rows, _COLOURS, strict=False):
            kind = scored.classification
            axes.plot(*kind.roc, color=colour, label=f"{scored.name}: AUC {kind.values['roc_auc']:.3f}")
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="guessing: 0.500")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower right", fontsize=8)

    return _svg(draw)


def ndcg_by_slice(slices: Sequence[Slice]) -> str:
    """NDCG@10 with 95 % intervals, a bar a slice and model."""

    def draw(axes: Axes) -> None:
        labels = [f"{each.name}  ({each.model.queries})" for each in slices]
        for row, (role, colour) in enumerate(zip(("model", "baseline"), _COLOURS, strict=True)):
            found = [(at, value) for at, each in enumerate(slices) if (value := getattr(each, role)) is not None]
            if not found:
                continue
            means = [value.mean for _, value in found]
            errors = [[v.mean - v.low for _, v in found], [v.high - v.mean for _, v in found]]
            places = [at + (row - 0.5) * 0.38 for at, _ in found]
            axes.barh(places, means, height=0.36, color=colour, label=role, xerr=errors, error_kw={"elinewidth": 1})
        axes.set_yticks(range(len(slices)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("NDCG@10, mean and 95 % interval (queries in brackets)")
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))

    return _svg(draw, height=1.2 + 0.45 * len(slices), width=8.0)


def _svg(draw: Callable[[Axes], None], width: float = 5.6, height: float = 4.2) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
