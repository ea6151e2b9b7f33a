"""The fp32 graph against torch: an export whose numbers differ is not written."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from services.trainer.errors import JobError
from services.trainer.probe import feeds, spread
from services.trainer.reference import Reference
from shared.bundles import Parity
from shared.inference.tokens import Tokens, pad


def check_parity(session: onnxruntime.InferenceSession, reference: Reference, rows: Sequence[Tokens]) -> Parity:
    """Largest difference of any component of any output, alone and in batches of mixed lengths.

    Raises `JobError` over the limit.
    """
    picked = spread(rows, 24)
    single = max(_difference(session, reference, [row]) for row in picked[::3])
    batched = max(_difference(session, reference, group) for group in (picked, picked[:5]))
    parity = Parity(single=single, batched=batched)
    if not max(single, batched) <= parity.limit:
        raise JobError(
            f"the exported graph differs from torch by {max(single, batched):.2e} (limit {parity.limit:.0e}); "
            "nothing was written. The graph does not fit this base model"
        )
    return parity


def _difference(session: onnxruntime.InferenceSession, reference: Reference, rows: Sequence[Tokens]) -> float:
    outputs = session.run([node.name for node in session.get_outputs()], feeds(session, rows))
    expected = reference.run(pad(rows))
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        return float("inf")
    return max(float(np.abs(got - want).max()) for got, want in zip(outputs, expected, strict=True))
