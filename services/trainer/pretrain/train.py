"""The training run: the catalogue and a loss into sentence-transformers' trainer, the best weights out."""

import logging
from dataclasses import dataclass

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from transformers import set_seed

from services.trainer import compute, run_logs, runs
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.finetune import model as models
from services.trainer.finetune.data import Texts, read_judgements
from services.trainer.finetune.loss import CorrectedRankingLoss
from services.trainer.finetune.validation import RetrievalValidation
from services.trainer.prepared import PreparedSet, open_prepared
from services.trainer.pretrain import data
from services.trainer.pretrain.loss import DeletionLoss, MaskedLanguageLoss
from services.trainer.pretrain.options import Objective, PretrainOptions
from services.trainer.pretrain.queries import QueryMaker
from services.trainer.pretrain.trainer import PretrainTrainer
from services.trainer.pretrain.validation import MaskedValidation
from services.trainer.record import TrainingRecord

log = logging.getLogger(__name__)

KNOWN_ITEM = "valid_known_item"


@dataclass(frozen=True)
class Task:
    """What an objective comes down to."""

    dataset: Dataset
    loss: torch.nn.Module
    validation: SentenceEvaluator


def pretrain(options: PretrainOptions) -> TrainingRecord:
    """Write the model to `options.out`: safetensors, tokenizer and `training.json`, as `finetune-encoder` does.

    Raises `JobError` when data, base or options do not fit together.
    """
    prepared, base = open_prepared(options.data), open_base(options.base)
    base.check_one_tower("pretrain")
    with runs.claimed(options, prepared.content_hash):
        set_seed(options.seed)
        texts = Texts(base.item_template, base.prompts)
        max_tokens = min(options.max_item_tokens, base.max_tokens)
        model = models.load(base, max_tokens)
        compute.choose_attention(model, options.mixed_precision)
        catalogue = data.read_catalogue(prepared, texts, options.items, options.validation_queries, options.seed)
        task = _task(options, prepared, texts, catalogue, model)
        if len(task.dataset) < options.batch:
            raise JobError(f"{len(task.dataset)} rows do not fill one batch of {options.batch}: lower --batch")
        metric = str(task.validation.primary_metric)
        log.info("%s rows of %s items, validated by %s", f"{len(task.dataset):,}", f"{len(catalogue.learnt):,}", metric)
        trainer = _trainer(options, model, task, metric)
        written = runs.train(trainer, options, prepared, base, max_tokens=max_tokens, metric=metric)
        if trainer.is_world_process_zero():
            models.save(model, options.out)
            runs.finish(options, written)
            log.info("%s: %d steps in %.0f s, %s", options.out, written.steps, written.seconds, written.evaluation)
            if written.evaluation[metric] <= written.evaluation[f"base_{metric}"]:
                log.warning("no better than its base: use that one, or train longer, or with another --objective")
        return written


def _task(
    options: PretrainOptions, prepared: PreparedSet, texts: Texts, catalogue: data.Catalogue, model: SentenceTransformer
) -> Task:
    if options.objective is Objective.MLM:
        masked = MaskedLanguageLoss(model, options.mask)
        held_out = [catalogue.texts[item] for item in catalogue.held_out]
        return Task(
            data.texts_dataset(catalogue), masked, MaskedValidation(masked, held_out, options.mask, options.seed)
        )
    maker = QueryMaker(catalogue.items)
    search = _search(options, prepared, texts, catalogue, maker)
    if options.objective is Objective.TSDAE:
        return Task(data.texts_dataset(catalogue), DeletionLoss(model, options.delete), search)
    ranking = CorrectedRankingLoss(model, scale=options.scale)
    if options.objective is Objective.SIMCSE:
        if not any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()):
            raise JobError("--objective simcse: the base has no dropout, so a text's two vectors would be one")
        return Task(data.twins_dataset(catalogue), ranking, search)
    rows = data.queries_dataset(catalogue, maker, texts, options.queries_per_item, options.seed)
    return Task(rows, ranking, search)


def _search(
    options: PretrainOptions, prepared: PreparedSet, texts: Texts, catalogue: data.Catalogue, maker: QueryMaker
) -> RetrievalValidation:
    """On people's judgements where the set has any to validate on, else on made-up queries for held-out items."""
    grades = prepared.report.grades
    if "valid" in prepared.report.splits:
        name = "valid"
        judged = read_judgements(prepared.split("valid"), grades.relevant, options.validation_queries, options.seed)
    else:
        name = KNOWN_ITEM
        judged = data.known_items(catalogue, maker, grades, options.seed)
    return RetrievalValidation(
        judged, texts, catalogue.texts, grades, options.validation_items, options.seed, name=name
    )


def _trainer(options: PretrainOptions, model: SentenceTransformer, task: Task, metric: str) -> PretrainTrainer:
    arguments = SentenceTransformerTrainingArguments(
        # A text twice in a batch would be its own negative.
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        **runs.arguments(options, len(task.dataset), metric),
    )
    if options.objective in (Objective.MLM, Objective.TSDAE) and arguments.world_size * max(arguments.n_gpu, 1) > 1:
        raise JobError(
            f"--objective {options.objective} trains on one device: set CUDA_VISIBLE_DEVICES=0. Its loss reaches into "
            "the encoder, past what adds up the gradients of several"
        )
    return PretrainTrainer(
        model=model,
        args=arguments,
        train_dataset=task.dataset,
        loss=task.loss,
        evaluator=task.validation,
        callbacks=[*run_logs.callbacks(options.out, runs.plain(options)), *runs.early_stopping(options)],
    )
