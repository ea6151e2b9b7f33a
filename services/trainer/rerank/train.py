"""The training run of a re-ranker."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sentence_transformers import CrossEncoder
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, LambdaLoss, MSELoss, RankNetLoss
from transformers import set_seed

from services.trainer import compute, run_logs, runs
from services.trainer.base import MINILM, open_base
from services.trainer.errors import JobError
from services.trainer.evaluate.encode import open_encoder
from services.trainer.evaluate.kept import KeptEncoder
from services.trainer.evaluate.rerank import Logits, Pair
from services.trainer.finetune.data import Judgements, Texts, read_judgements
from services.trainer.finetune.validation import METRIC
from services.trainer.prepared import PreparedSet, open_prepared
from services.trainer.record import TrainingRecord
from services.trainer.rerank import data
from services.trainer.rerank import model as models
from services.trainer.rerank.batches import SimilarLengthBatches
from services.trainer.rerank.options import RankLoss, RerankOptions
from services.trainer.rerank.validation import ListValidation, score_lists
from shared.bundles import Precision

log = logging.getLogger(__name__)


def finetune_reranker(options: RerankOptions) -> TrainingRecord:
    """Write the model to `options.out`: safetensors, tokenizer and `training.json`.

    Raises `JobError` when data, base, teacher or options do not fit together.
    """
    prepared, base = open_prepared(options.data), open_base(options.base or options.teacher or MINILM)
    base.check_one_tower("finetune-reranker")
    if (options.loss is RankLoss.DISTILL) != bool(options.teacher):
        raise JobError("--loss distill and --teacher belong together")
    with runs.claimed(options, prepared.content_hash):
        set_seed(options.seed)
        max_tokens = min(options.max_pair_tokens, base.max_tokens)
        model = models.load(base, max_tokens, options.layers)
        compute.set_dropout(model, options.dropout)
        compute.choose_attention(model, options.mixed_precision)
        texts = Texts(base.item_template, base.prompts)
        trainer = _trainer(options, model, *_lists(options, prepared, texts))
        written = runs.train(trainer, options, prepared, base, max_tokens=max_tokens, metric=METRIC)
        if trainer.is_world_process_zero():
            models.save(model, options.out)
            runs.finish(options, written)
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
    parts, count, seed = runs.parts_of(options), options.negatives, options.seed
    retriever = KeptEncoder(open_encoder(options.retriever, Precision.INT8), parts) if options.retriever else None
    if options.retrieval:
        if retriever and not retriever.version:
            raise JobError(f"--retriever {options.retriever}: with --retrieval it is the bundle that its index is of")
        found = data.searched_items(judgements, options.retrieval, retriever, set(item_ids), count, seed, parts)
    elif retriever:
        texts = {item.id: retriever.item_text(item) for item in prepared.items()}
        found = data.retrieved_items(judgements, retriever, texts, count, seed, parts)
    else:
        return data.random_items(judgements, item_ids, count, seed)
    random = data.random_items(judgements, item_ids, options.random_negatives, seed)
    return {key: list(dict.fromkeys([*ids, *random[key]])) for key, ids in found.items()}


def _taught(options: RerankOptions, lists: list[data.RankedList]) -> list[data.RankedList]:
    """`lists` with the teacher's logits as labels."""
    teacher = open_base(options.teacher)
    max_tokens = min(options.max_pair_tokens, teacher.max_tokens)
    model, parts = models.load(teacher, max_tokens), runs.parts_of(options)
    compute.choose_attention(model, options.mixed_precision)
    of = ["teacher", teacher.content_hash, max_tokens, options.mixed_precision]

    def logits(pairs: Sequence[Pair]) -> Logits:
        with compute.autocast(options.mixed_precision):
            return parts.rows(of, pairs, partial(models.logits, model))

    scores = score_lists(logits, lists)
    return [replace(each, labels=values) for each, values in zip(lists, scores, strict=True)]


def _trainer(
    options: RerankOptions, model: CrossEncoder, lists: list[data.RankedList], validation: ListValidation
) -> CrossEncoderTrainer:
    flat = options.loss in (RankLoss.POINTWISE, RankLoss.DISTILL)
    dataset = data.pairs_dataset(lists) if flat else data.lists_dataset(lists)
    if len(dataset) < options.batch:
        raise JobError(f"{len(dataset)} rows do not fill one batch of {options.batch}: lower --batch")
    log.info("%s rows of %s queries", f"{len(dataset):,}", f"{len(lists):,}")
    arguments = CrossEncoderTrainingArguments(
        batch_sampler=SimilarLengthBatches if flat else BatchSamplers.BATCH_SAMPLER,
        **runs.arguments(options, len(dataset), METRIC),
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
        callbacks=[*run_logs.callbacks(options.out, runs.plain(options)), *runs.early_stopping(options)],
    )
