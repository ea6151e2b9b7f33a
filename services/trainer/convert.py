"""From a base model to the files of a bundle. Apart from `export`, so that reusing a bundle imports no torch."""

import logging
from pathlib import Path

import onnx

from services.trainer.base import BaseModel
from services.trainer.graph import Architecture, Fp32Linear, Fp32Table, GraphSpec, Int8Table, build_graph
from services.trainer.int8 import export_int8
from services.trainer.options import ExportOptions
from services.trainer.parity import check_parity
from services.trainer.probe import BiEncoderProbe, CrossEncoderProbe, Probe
from services.trainer.record import command_line
from services.trainer.reference import Reference
from services.trainer.validation import ValidationSet, read_means
from shared.bundles import BundleKind, Int8Report, Manifest, Metrics, Parity, Precision
from shared.inference.backends.onnx import open_session
from shared.inference.tokens import TextTokenizer

log = logging.getLogger(__name__)


def convert(staged: Path, base: BaseModel, validation: ValidationSet, options: ExportOptions) -> Manifest:
    """Put everything but `bundle.json` into `staged`, and return what is to stand in it.

    Raises `JobError` when the base is not supported, differs from torch, or misses the floors.
    """
    base.copy_to(staged)
    architecture = Architecture.of(base.config, base.weights)
    labels = architecture.labels(base.weights) if options.kind is BundleKind.CROSS_ENCODER else 0
    spec = GraphSpec(architecture, options.kind, base.pooling, base.normalize, labels)
    manifest = Manifest(
        kind=options.kind,
        name=options.name or base.name.rsplit("/", 1)[-1],
        base_model=base.grew_from,
        architecture=architecture.model_type,
        pooling=base.pooling,
        normalize=base.normalize,
        dimensions=labels or architecture.hidden,
        max_query_tokens=min(options.max_query_tokens, base.max_tokens),
        max_item_tokens=min(options.max_item_tokens or base.max_tokens, base.max_tokens),
        prompts=base.prompts,
        item_template=base.item_template,
        training_data=base.record.training_data if base.record else None,
        command=command_line(),
    )
    probe = _probe(staged, manifest, validation)
    parity, int8 = _write_graphs(staged, base, spec, probe, options)
    if options.slim:
        for path in (*staged.glob("*.safetensors"), staged / "onnx" / f"model_{Precision.FP32}.onnx"):
            path.unlink()
    metrics = Metrics(parity=parity, int8=int8, validation_set=validation.name, evaluation=_evaluation(base, options))
    return manifest.model_copy(update={"metrics": metrics})


def _evaluation(base: BaseModel, options: ExportOptions) -> dict[str, float]:
    """Means of the model's evaluation where there is one, of its validation while training otherwise."""
    if options.evaluation:
        return read_means(options.evaluation)
    return dict(base.record.evaluation) if base.record else {}


def _probe(staged: Path, manifest: Manifest, validation: ValidationSet) -> Probe:
    tokenizer = staged / "tokenizer.json"
    queries = TextTokenizer(tokenizer, manifest.max_query_tokens, manifest.prompts.query)
    if manifest.kind is BundleKind.CROSS_ENCODER:
        return CrossEncoderProbe(validation, queries, TextTokenizer(tokenizer, manifest.max_item_tokens))
    items = TextTokenizer(tokenizer, manifest.max_item_tokens, manifest.prompts.item)
    return BiEncoderProbe(validation, queries, items)


def _write_graphs(
    staged: Path, base: BaseModel, spec: GraphSpec, probe: Probe, options: ExportOptions
) -> tuple[Parity, Int8Report]:
    paths = {precision: staged / "onnx" / f"model_{precision}.onnx" for precision in Precision}
    (staged / "onnx").mkdir()
    model, _ = build_graph(spec, base.weights, Fp32Linear())
    onnx.save(model, paths[Precision.FP32])
    fp32 = open_session(paths[Precision.FP32])
    reference = Reference(staged, spec.kind, base.pooling, base.normalize)
    parity = check_parity(fp32, reference, probe.inputs)
    log.info("fp32 differs from torch by %.1e alone, %.1e in batches", parity.single, parity.batched)
    table = Int8Table() if options.slim else Fp32Table()
    int8 = export_int8(spec, base.weights, probe, fp32, paths[Precision.INT8], options.floors, table)
    log.info(
        "int8 (%s): cosine to fp32 %.4f mean, %.4f least; top-10 overlap %.3f; NDCG@10 %.4f of %.4f",
        *(int8.variant, int8.cosine_mean, int8.cosine_min, int8.overlap_at_10, int8.ndcg_int8, int8.ndcg_fp32),
    )
    return parity, int8
