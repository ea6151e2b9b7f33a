"""The training run: data and losses into sentence-transformers' trainer, the best weights out."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import AnglELoss, CoSENTLoss, MatryoshkaLoss
from transformers import TrainerCallback, set_seed

from services.trainer import compute, run_logs, runs
from services.trainer.base import BaseModel, open_base
from services.trainer.errors import JobError, TooLittleError
from services.trainer.evaluate.encode import open_encoder
from services.trainer.evaluate.kept import KeptEncoder
from services.trainer.finetune import data, negatives
from services.trainer.finetune import model as models
from services.trainer.finetune.loss import CachedCorrectedRankingLoss, CorrectedRankingLoss
from services.trainer.finetune.options import FinetuneOptions, GradedLoss, Negatives
from services.trainer.finetune.validation import METRIC, RetrievalValidation
from services.trainer.prepared import PreparedSet, open_prepared
from services.trainer.record import TrainingRecord
from shared.bundles import Precision

log = logging.getLogger(__name__)


def finetune(options: FinetuneOptions, callbacks: Sequence[TrainerCallback] = ()) -> TrainingRecord:
    """Write the model to `options.out`: safetensors, tokenizer and `training.json`. `callbacks` see the run go on.

    Raises `JobError` when data, base or options do not fit together.
    """
    prepared, base = open_prepared(options.data), open_base(options.base)
    with runs.claimed(options, prepared.content_hash):
        set_seed(options.seed)
        texts = data.Texts(base.item_template, base.prompts)
        max_tokens = min(options.max_item_tokens, base.max_tokens)
        model = _model(options, base, max_tokens)
        compute.set_dropout(model, options.dropout)
        compute.choose_attention(model, options.mixed_precision)
        items = texts.items(prepared)
        datasets = _datasets(options, prepared, base, texts, items)
        validation = _validation(options, prepared, texts, items)
        if options.lora_rank:
            models.add_lora(model, options.lora_rank)
        log.info(
            "%s rows, %s validation queries, %.1f %% of the weights are trained",
            *(f"{len(datasets['ranking']):,}", f"{options.validation_queries:,}", 100 * models.trainable_share(model)),
        )
        trainer = _trainer(options, model, datasets, validation)
        for each in callbacks:
            trainer.add_callback(each)
        written = runs.train(trainer, options, prepared, base, max_tokens=max_tokens, metric=METRIC)
        if trainer.is_world_process_zero():
            _write(options, model, written)
        return written


def _model(options: FinetuneOptions, base: BaseModel, max_tokens: int) -> SentenceTransformer:
    if options.towers not in (1, 2):
        raise JobError(f"--towers {options.towers}: 1 or 2")
    if options.query_layers and (options.towers == 1 or base.query is not None):
        raise JobError("--query-layers is for a query tower that is made here: with --towers 2, from a base of one")
    if options.lora_rank and (options.towers == 2 or base.query is not None):
        raise JobError("--lora-rank updates one tower: leave it out, or --towers 2")
    if options.mini_batch and runs.processes() > 1 and (options.towers == 2 or base.query is not None):
        raise JobError("--mini-batch trains two towers in one process: leave it out, or train without accelerate")
    if options.towers == 1 or base.query is not None:
        return models.load(base, max_tokens)
    return models.split(base, max_tokens, options.query_layers)


def _datasets(
    options: FinetuneOptions, prepared: PreparedSet, base: BaseModel, texts: data.Texts, items: dict[str, str]
) -> dict[str, Dataset]:
    grades = prepared.report.grades
    lowest = grades.relevant if options.positive_grade is None else options.positive_grade
    judgements = data.read_judgements(prepared.split("train"), lowest, options.train_queries, options.seed)
    if len(judgements.positives) < options.batch:
        raise TooLittleError(
            f"{len(judgements.positives)} positives do not fill one batch of {options.batch}: lower --batch, or "
            f"--positive-grade (now {lowest})"
        )
    hard = _negatives(options, prepared, base, judgements)
    found = {"ranking": data.ranking_dataset(judgements, hard, texts, items, grades, options)}
    if options.graded_loss is not GradedLoss.NONE:
        found["graded"] = data.graded_dataset(judgements, texts, items, grades)
    return found


def _negatives(
    options: FinetuneOptions, prepared: PreparedSet, base: BaseModel, judgements: data.Judgements
) -> list[str] | None:
    if options.negatives is Negatives.NONE:
        return None
    if options.negatives is Negatives.JUDGED:
        ids = sorted({item for judged in judgements.judged.values() for item in judged})
        return data.judged_negatives(judgements, prepared.report.grades, ids, options.seed)

    def found() -> NDArray[np.str_]:
        return np.array(_found(options, prepared, judgements))

    of = ["negatives", runs.asked(options, prepared.content_hash), base.content_hash]
    kept: list[str] = runs.parts_of(options).whole(of, found).tolist()
    return kept


def _found(options: FinetuneOptions, prepared: PreparedSet, judgements: data.Judgements) -> list[str]:
    if options.negatives is Negatives.RETRIEVED and not options.retrieval:
        raise JobError("--negatives retrieved needs --retrieval host:port of a running vector_retrieval")
    # As it is served: an index has the vectors of the int8 graph.
    encoder = KeptEncoder(open_encoder(options.base, Precision.INT8), runs.parts_of(options))
    texts, grades = {item.id: encoder.item_text(item) for item in prepared.items()}, prepared.report.grades
    if options.negatives is Negatives.MINED:
        return negatives.mined_negatives(judgements, encoder, texts, grades, options.seed)
    found = negatives.retrieved(options.retrieval, encoder, judgements)
    return negatives.found_negatives(found, judgements, texts, grades, options.seed)


def _validation(
    options: FinetuneOptions, prepared: PreparedSet, texts: data.Texts, items: dict[str, str]
) -> RetrievalValidation:
    grades = prepared.report.grades
    held_out = data.read_judgements(prepared.split("valid"), grades.relevant, options.validation_queries, options.seed)
    return RetrievalValidation(held_out, texts, items, grades, options.validation_items, options.seed)


def _losses(options: FinetuneOptions, model: SentenceTransformer) -> dict[str, torch.nn.Module]:
    ranking: torch.nn.Module
    if options.mini_batch:
        ranking = CachedCorrectedRankingLoss(model, scale=options.scale, mini_batch_size=options.mini_batch)
    else:
        ranking = CorrectedRankingLoss(model, scale=options.scale)
    losses: dict[str, torch.nn.Module] = {"ranking": ranking}
    if options.graded_loss is GradedLoss.COSENT:
        losses["graded"] = CoSENTLoss(model)
    elif options.graded_loss is GradedLoss.ANGLE:
        losses["graded"] = AnglELoss(model)
    if options.dimensions:
        # Whole vectors can be trained, even where the base's bundle has shorter ones.
        with model.truncate_embeddings(None):
            return {name: MatryoshkaLoss(model, loss, list(options.dimensions)) for name, loss in losses.items()}
    return losses


def _trainer(
    options: FinetuneOptions, model: SentenceTransformer, datasets: dict[str, Dataset], validation: RetrievalValidation
) -> SentenceTransformerTrainer:
    arguments = SentenceTransformerTrainingArguments(
        # A text twice in a batch would be its own negative.
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        router_mapping=models.TASK_OF_COLUMN if models.has_two_towers(model) else None,
        **runs.arguments(options, sum(map(len, datasets.values())), METRIC),
    )
    single = len(datasets) == 1
    losses = _losses(options, model)
    return SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets["ranking"] if single else datasets,
        loss=losses["ranking"] if single else losses,
        evaluator=validation,
        callbacks=[*run_logs.callbacks(options.out, runs.plain(options)), *runs.early_stopping(options)],
    )


def _write(options: FinetuneOptions, model: SentenceTransformer, written: TrainingRecord) -> None:
    if options.lora_rank:
        models.merge_lora(model)
    models.save(model, options.out)
    runs.finish(options, written)
    log.info(
        "%s: %d steps in %.0f s, validation NDCG@10 %.4f (base %.4f)",
        *(options.out, written.steps, written.seconds, written.evaluation[METRIC]),
        written.evaluation[f"base_{METRIC}"],
    )
