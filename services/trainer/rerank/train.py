"""The training run of a re-ranker."""

import logging
import shutil
import time
from dataclasses import replace

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, LambdaLoss, MSELoss, RankNetLoss
from transformers import EarlyStoppingCallback, set_seed

from services.trainer import record, runs
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.evaluate.encode import open_encoder
from services.trainer.finetune.data import Judgements, Texts, read_judgements
from services.trainer.finetune.options import MixedPrecision
from services.trainer.finetune.validation import METRIC
from services.trainer.prepared import PreparedSet, open_prepared
from services.trainer.record import TrainingRecord
from services.trainer.rerank import data
from services.trainer.rerank import model as models
from services.trainer.rerank.options import RankLoss, RerankOptions
from services.trainer.rerank.validation import ListValidation, score_lists
from shared.bundles import Precision

log = logging.getLogger(__name__)


def finetune_reranker(options: RerankOptions) -> TrainingRecord:
    """Write the model to `options.out`: safetensors, tokenizer and `training.json`.

    Raises `JobError` when data, base, teacher or options do not fit together.
    """
    prepared, base = open_prepared(options.data), open_base(options.base)
    if options.mixed_precision is not MixedPrecision.NONE and not torch.cuda.is_available():
        raise JobError(f"--mixed-precision {options.mixed_precision} needs a CUDA GPU; leave it out on a CPU")
    if (options.loss is RankLoss.DISTILL) != bool(options.teacher):
        raise JobError("--loss distill and --teacher belong together")
    runs.claim(options.out, options, prepared.content_hash, resume=options.resume)
    set_seed(options.seed)
    max_tokens = min(options.max_pair_tokens, base.max_tokens)
    model = models.load(base, max_tokens)
    if options.layers:
        models.keep_layers(model, options.layers)
    texts = Texts(base.item_template, base.prompts)
    trainer = _trainer(options, model, *_lists(options, prepared, texts))
    revision, started = record.code_revision(), time.monotonic()
    trainer.train(resume_from_checkpoint=options.resume or None)
    written = TrainingRecord(
        base_model=base.grew_from,
        item_template=base.item_template,
        prompts=base.prompts,
        max_item_tokens=max_tokens,
        training_data=prepared.content_hash,
        data_sources={name: entry.sha256 for name, entry in prepared.report.sources.items()},
        options=runs.plain(options),
        evaluation=runs.best(trainer.state.log_history, METRIC),
        steps=trainer.state.global_step,
        seconds=round(time.monotonic() - started, 1),
        seed=options.seed,
        command=record.command_line(),
        code_revision=revision,
        versions=record.package_versions(),
        machine=runs.machine(),
    )
    if trainer.is_world_process_zero():
        models.save(model, options.out)
        (options.out / record.FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(options.out / runs.CHECKPOINTS, ignore_errors=True)
        log.info("%s: %d steps in %.0f s, %s", options.out, written.steps, written.seconds, written.evaluation)
    return written


def _lists(options: RerankOptions, prepared: PreparedSet, texts: Texts) -> tuple[list[data.RankedList], ListValidation]:
    """What is learnt, and what is validated on: held-out queries' judged and unjudged items."""
    grades, items = prepared.report.grades, texts.items(prepared)
    train = read_judgements(prepared.split("train"), grades.relevant, options.train_queries, options.seed)
    held_out = read_judgements(prepared.split("valid"), grades.relevant, options.validation_queries, options.seed)
    both = Judgements([], {**train.judged, **held_out.judged}, {**train.queries, **held_out.queries})
    unjudged = _unjudged(options, prepared, both, sorted(items))
    lists = data.ranked_lists(train, unjudged, texts, items, grades)
    if options.teacher:
        lists = _taught(options, lists)
    return lists, ListValidation(data.ranked_lists(held_out, unjudged, texts, items, grades), held_out.judged, grades)


def _unjudged(
    options: RerankOptions, prepared: PreparedSet, judgements: Judgements, item_ids: list[str]
) -> dict[str, list[str]]:
    if not options.retriever:
        return data.random_items(judgements, item_ids, options.negatives, options.seed)
    retriever = open_encoder(options.retriever, Precision.INT8)
    texts = {item.id: retriever.item_text(item) for item in prepared.items()}
    return data.retrieved_items(judgements, retriever, texts, options.negatives, options.seed)


def _taught(options: RerankOptions, lists: list[data.RankedList]) -> list[data.RankedList]:
    """`lists` with the teacher's logits as labels."""
    teacher = open_base(options.teacher)
    scores = score_lists(models.load(teacher, min(options.max_pair_tokens, teacher.max_tokens)), lists)
    return [replace(each, labels=values) for each, values in zip(lists, scores, strict=True)]


def _trainer(
    options: RerankOptions, model: CrossEncoder, lists: list[data.RankedList], validation: ListValidation
) -> CrossEncoderTrainer:
    flat = options.loss in (RankLoss.POINTWISE, RankLoss.DISTILL)
    dataset = data.pairs_dataset(lists) if flat else data.lists_dataset(lists)
    if len(dataset) < options.batch:
        raise JobError(f"{len(dataset)} rows do not fill one batch of {options.batch}: lower --batch")
    log.info("%s rows of %s queries", f"{len(dataset):,}", f"{len(lists):,}")
    steps = options.max_steps if options.max_steps > 0 else -(-len(dataset) // options.batch) * options.epochs
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(options.out / runs.CHECKPOINTS),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        bf16=options.mixed_precision is MixedPrecision.BF16,
        fp16=options.mixed_precision is MixedPrecision.FP16,
        eval_on_start=not options.resume,
        metric_for_best_model=f"eval_{METRIC}",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=options.seed,
        **runs.schedule(steps, options.evaluations),
    )
    losses = {
        RankLoss.POINTWISE: BinaryCrossEntropyLoss,
        RankLoss.PAIRWISE: RankNetLoss,
        RankLoss.LISTWISE: LambdaLoss,
        RankLoss.DISTILL: MSELoss,
    }
    return CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        loss=losses[options.loss](model),
        evaluator=validation,
        callbacks=[runs.tensorboard(options.out), EarlyStoppingCallback(early_stopping_patience=options.patience)],
    )
