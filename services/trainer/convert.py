"""From a base model to the files of a bundle. Apart from `export`, so that reusing a bundle imports no torch."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from services.trainer.base import BaseModel
from services.trainer.errors import JobError
from services.trainer.graph import Architecture, Fp32Linear, Fp32Table, GraphSpec, Int8Table, build_graph
from services.trainer.int8 import export_int8
from services.trainer.options import ExportOptions
from services.trainer.parity import check_parity
from services.trainer.probe import BiEncoderProbe, CrossEncoderProbe, Probe, TowerProbe, run_all
from services.trainer.record import command_line
from services.trainer.reference import Reference
from services.trainer.validation import ValidationSet, read_means
from shared.bundles import BundleKind, Int8Report, Manifest, Metrics, Parity, Precision, Tower
from shared.bundles.bundle import QUERY_FOLDER
from shared.inference.backends.onnx import open_session
from shared.inference.tokens import TextTokenizer

log = logging.getLogger(__name__)


def convert(staged: Path, base: BaseModel, validation: ValidationSet, options: ExportOptions) -> Manifest:
    """Put everything but `bundle.json` into `staged`, and return what is to stand in it.

    Raises `JobError` when the base is not supported, cannot have the vectors asked for, differs from torch, or misses
    the floors.
    """
    if options.kind is BundleKind.CROSS_ENCODER:
        base.check_one_tower("export --kind cross-encoder")
        if options.dimensions:
            raise JobError(f"--dimensions {options.dimensions}: a cross-encoder has no vectors; leave it out")
    towers = {Tower.ITEM: base}
    if base.query is not None:
        towers[Tower.QUERY] = base.query
    dimensions = options.dimensions or base.dimensions
    parts = {tower: _part(staged, tower, one, options.kind, dimensions) for tower, one in towers.items()}
    spec = parts[Tower.ITEM].spec
    _warn_of_untrained(spec, base)
    base.copy_to(staged)
    manifest = Manifest(
        kind=options.kind,
        name=options.name or base.name.rsplit("/", 1)[-1],
        base_model=base.grew_from,
        architecture=spec.architecture.model_type,
        pooling=base.pooling,
        normalize=base.normalize,
        towers=2 if base.query is not None else 1,
        dimensions=spec.labels or spec.length,
        max_query_tokens=min(options.max_query_tokens, base.max_tokens),
        max_item_tokens=min(options.max_item_tokens or base.max_tokens, base.max_tokens),
        prompts=base.prompts,
        item_template=base.item_template,
        training_data=base.record.training_data if base.record else None,
        command=command_line(),
    )
    graphs = {tower: part.write_fp32() for tower, part in parts.items()}
    probes = _probes(staged, manifest, validation, graphs)
    reports = {tower: part.check_and_quantise(graphs[tower], probes[tower], options) for tower, part in parts.items()}
    parity, int8 = reports[Tower.ITEM]
    query_parity, query_int8 = reports.get(Tower.QUERY, (None, None))
    metrics = Metrics(
        parity=parity,
        int8=int8,
        query_parity=query_parity,
        query_int8=query_int8,
        validation_set=validation.name,
        evaluation=_evaluation(base, options),
    )
    return manifest.model_copy(update={"metrics": metrics})


def _evaluation(base: BaseModel, options: ExportOptions) -> dict[str, float]:
    """Means of the model's evaluation where there is one, of its validation while training otherwise."""
    if options.evaluation:
        return read_means(options.evaluation)
    return dict(base.record.evaluation) if base.record else {}


@dataclass(frozen=True, slots=True)
class _Part:
    """What is exported as a graph: the whole model, or one of two towers."""

    tower: Tower
    folder: Path
    base: BaseModel
    spec: GraphSpec

    def write_fp32(self) -> onnxruntime.InferenceSession:
        """The fp32 graph, on disk and open."""
        path = self._path(Precision.FP32)
        path.parent.mkdir()
        model, _ = build_graph(self.spec, self.base.weights, Fp32Linear())
        onnx.save(model, path)
        return open_session(path)

    def check_and_quantise(
        self, fp32: onnxruntime.InferenceSession, probe: Probe, options: ExportOptions
    ) -> tuple[Parity, Int8Report]:
        """Compares `fp32` with torch, and writes the int8 graph."""
        reference = Reference(self.folder, self.spec.kind, self.base.pooling, self.base.normalize, self.spec.length)
        parity = check_parity(fp32, reference, probe.inputs)
        table = Int8Table() if options.slim else Fp32Table()
        path = self._path(Precision.INT8)
        int8 = export_int8(self.spec, self.base.weights, probe, fp32, path, options.floors, table)
        which = "" if self.base.query is None and self.tower is Tower.ITEM else f"{self.tower} tower: "
        log.info("%sfp32 differs from torch by %.1e alone, %.1e in batches", which, parity.single, parity.batched)
        log.info(
            "%sint8 (%s): cosine to fp32 %.4f mean, %.4f least; top-10 overlap %.3f; NDCG@10 %.4f of %.4f",
            *(which, int8.variant, int8.cosine_mean, int8.cosine_min, int8.overlap_at_10, int8.ndcg_int8),
            int8.ndcg_fp32,
        )
        if options.slim:
            for path in (*self.folder.glob("*.safetensors"), self._path(Precision.FP32)):
                path.unlink()
        return parity, int8

    def _path(self, precision: Precision) -> Path:
        return self.folder / "onnx" / f"model_{precision}.onnx"


def _part(staged: Path, tower: Tower, base: BaseModel, kind: BundleKind, dimensions: int) -> _Part:
    architecture = Architecture.of(base.config, base.weights)
    if kind is BundleKind.CROSS_ENCODER:
        spec = GraphSpec(architecture, kind, labels=architecture.labels(base.weights))
    elif 0 <= dimensions <= architecture.hidden:
        spec = GraphSpec(architecture, kind, base.pooling, base.normalize, labels=0, dimensions=dimensions)
    else:
        raise JobError(f"--dimensions {dimensions}: the base's vectors have {architecture.hidden}; ask for 1 to that")
    return _Part(tower, staged / QUERY_FOLDER if tower is Tower.QUERY else staged, base, spec)


def _warn_of_untrained(spec: GraphSpec, base: BaseModel) -> None:
    if spec.kind is BundleKind.CROSS_ENCODER or spec.length == spec.architecture.hidden or base.record is None:
        return
    trained = base.record.options.get("dimensions")
    if trained is not None and spec.length not in trained:
        log.warning(
            "--dimensions %d: %s was trained for vectors of %s components, not of these",
            *(spec.length, base.path, " and ".join(map(str, trained or [spec.architecture.hidden]))),
        )


def _probes(
    staged: Path, manifest: Manifest, validation: ValidationSet, graphs: Mapping[Tower, onnxruntime.InferenceSession]
) -> dict[Tower, Probe]:
    tokenizer = staged / "tokenizer.json"
    queries = TextTokenizer(tokenizer, manifest.max_query_tokens, manifest.prompts.query)
    if manifest.kind is BundleKind.CROSS_ENCODER:
        pairs = TextTokenizer(tokenizer, manifest.max_item_tokens)
        return {Tower.ITEM: CrossEncoderProbe(validation, queries, pairs)}
    items = TextTokenizer(tokenizer, manifest.max_item_tokens, manifest.prompts.item)
    if manifest.towers == 1:
        return {Tower.ITEM: BiEncoderProbe(validation, queries, items)}
    rows = {
        Tower.QUERY: [*map(queries.encode, validation.queries)],
        Tower.ITEM: [*map(items.encode, validation.positives)],
    }
    vectors = {tower: run_all(graphs[tower], rows[tower], TowerProbe.output) for tower in Tower}
    return {
        Tower.QUERY: TowerProbe(rows[Tower.QUERY], vectors[Tower.ITEM], Tower.QUERY),
        Tower.ITEM: TowerProbe(rows[Tower.ITEM], vectors[Tower.QUERY], Tower.ITEM),
    }
