"""The service: mammogram bytes in, breast cancer probability and heatmap out."""

import os

# ONNX Runtime's wheels report usage to their maker unless told not to before the first import.
# A hospital's service sends nothing anywhere.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
