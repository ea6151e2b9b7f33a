"""The model card of a bundle: what was really done, in Markdown, for whoever finds the folder."""

from collections.abc import Mapping
from pathlib import Path

from services.trainer.errors import JobError
from services.trainer.record import TrainingRecord
from shared.bundles import Bundle, BundleKind
from shared.bundles.files import CARD_NAME

_KINDS = {
    BundleKind.BI_ENCODER: "bi-encoder: a text becomes a vector",
    BundleKind.CROSS_ENCODER: "cross-encoder: a query and an item become a relevance",
}


def write_card(bundle: Bundle, record: TrainingRecord | None, about: str, *, hidden: int) -> None:
    """Writes it beside the manifest. `about` is what no job can know: the terms of the data, what the model is good
    for and what not. `hidden` is how long the model's own vectors are."""
    sections = [_head(bundle, hidden), about.strip(), _training(record), _numbers(bundle), _made(bundle)]
    text = "\n\n".join(section for section in sections if section)
    (bundle.path / CARD_NAME).write_text(text + "\n", encoding="utf-8")


def read_about(path: Path | None) -> str:
    """The text of `--about`; empty without one. Raises `JobError` where it cannot be read."""
    try:
        return "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"--about {path}: {error}") from error


def _head(bundle: Bundle, hidden: int) -> str:
    manifest = bundle.manifest
    facts = {
        "Kind": _KINDS[manifest.kind],
        "Version": f"`{manifest.version}`",
        "Grown from": f"{manifest.base_model} ({manifest.architecture})",
        "Towers": "two: queries are read by weights of their own" if manifest.towers == 2 else "",
        "Vectors": _vectors(manifest.dimensions, hidden) if manifest.kind is BundleKind.BI_ENCODER else "",
        "Reads": f"queries of {manifest.max_query_tokens} tokens, items of {manifest.max_item_tokens}"
        if manifest.kind is BundleKind.BI_ENCODER
        else f"query and item together, {manifest.max_item_tokens} tokens",
        "Size": f"{sum(entry.size for entry in manifest.files.values()) / 1e6:.1f} MB",
    }
    return f"# {manifest.name}\n\n{_table({name: fact for name, fact in facts.items() if fact})}"


def _vectors(dimensions: int, hidden: int) -> str:
    if dimensions == hidden:
        return f"{dimensions} components"
    return f"the leading {dimensions} of {hidden} components; who loads the weights without this bundle gets all"


def _training(record: TrainingRecord | None) -> str:
    if record is None:
        return "Not trained here: the base model's own weights."
    changed = ", ".join(f"{name} {value}" for name, value in record.options.items() if name not in ("data", "out"))
    sources = ", ".join(record.data_sources) or "files not recorded"
    facts = {
        "Data": f"prepared set `{record.training_data[:16]}`, from {sources}",
        "Steps": f"{record.steps:,} in {record.seconds:,.0f} s on {record.machine}",
        "Options": changed,
        "Validation": _measures(record.evaluation),
        "Code": f"`{record.code_revision[:12]}`, {', '.join(f'{name} {it}' for name, it in record.versions.items())}",
    }
    return f"## Training\n\n{_table(facts)}\n\n    {record.command}"


def _numbers(bundle: Bundle) -> str:
    metrics = bundle.manifest.metrics
    facts = {}
    if metrics.evaluation:
        facts["Evaluation"] = _measures(metrics.evaluation)
    for whose, parity in (("", metrics.parity), (", queries", metrics.query_parity)):
        if parity is not None:
            facts[f"fp32 against torch{whose}"] = f"{max(parity.single, parity.batched):.1e} at most"
    for whose, int8 in (("", metrics.int8), (", queries", metrics.query_int8)):
        if int8 is not None:
            facts[f"int8 against fp32{whose}"] = (
                f"cosine {int8.cosine_mean:.4f} on average, {int8.cosine_min:.4f} at least; "
                f"NDCG@10 {int8.ndcg_int8:.4f} of {int8.ndcg_fp32:.4f} on {metrics.validation_set}"
            )
    return f"## Numbers\n\n{_table(facts)}" if facts else ""


def _made(bundle: Bundle) -> str:
    return f"## Made by\n\n    {bundle.manifest.command}"


def _measures(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _table(facts: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())])
