"""A bundle without weights: a real tokenizer over the alphabet, for the dummy backend."""

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from shared.bundles import Bundle, BundleKind, Manifest, seal, staging

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tokenizer(path: Path) -> None:
    """Lower-cased words of the alphabet's letters, one token a letter run start, with BERT's special tokens."""
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    for piece in [*LETTERS, *(f"##{letter}" for letter in LETTERS)]:
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(path))


def make_bundle(path: Path, kind: BundleKind, **changes: object) -> Bundle:
    """`changes`: fields of the manifest."""
    manifest = Manifest(
        kind=kind,
        name="tiny",
        base_model="none",
        architecture="bert",
        dimensions=8 if kind is BundleKind.BI_ENCODER else 1,
        max_query_tokens=16,
        max_item_tokens=48,
    )
    with staging(path) as staged:
        write_tokenizer(staged / "tokenizer.json")
        return seal(staged, manifest.model_copy(update=changes), path)
