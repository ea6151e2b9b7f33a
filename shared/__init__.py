"""What the services have in common. Nothing here imports `services`."""

import os

# ONNX Runtime's Linux builds, since 1.29, report to their maker what is run, and keep an id of the machine among the
# user's files, unless this is set before they are loaded (its Privacy.md). A shop is to be asked first: 0 lets it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
