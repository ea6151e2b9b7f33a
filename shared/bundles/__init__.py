"""Model bundles: a directory with a manifest, weights, tokenizer and ONNX graphs; written, verified, loaded."""

from shared.bundles.bundle import Bundle, load_bundle, verify_bundle
from shared.bundles.errors import BundleError
from shared.bundles.manifest import (
    BundleKind,
    FileEntry,
    Floors,
    Int8Report,
    Manifest,
    Metrics,
    Parity,
    Pooling,
    Precision,
    Prompts,
    Tower,
)
from shared.bundles.registry import Action, Change, Channel, ChannelName, History, Registry
from shared.bundles.resolve import resolve
from shared.bundles.template import DEFAULT_TEMPLATE, ItemLike, ItemTemplate, TemplateField, render
from shared.bundles.write import seal, staging

__all__ = [
    "DEFAULT_TEMPLATE",
    "Action",
    "Bundle",
    "BundleError",
    "BundleKind",
    "Change",
    "Channel",
    "ChannelName",
    "FileEntry",
    "Floors",
    "History",
    "Int8Report",
    "ItemLike",
    "ItemTemplate",
    "Manifest",
    "Metrics",
    "Parity",
    "Pooling",
    "Precision",
    "Prompts",
    "Registry",
    "TemplateField",
    "Tower",
    "load_bundle",
    "render",
    "resolve",
    "seal",
    "staging",
    "verify_bundle",
]
