"""TorchServe with a custom handler and a worker per core. It needs Java 17.

https://pytorch.org/serve/performance_guide.html
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import torchserve_handler
from benchmarks.service import free_port

_CONFIG = """
inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{management_port}
metrics_address=http://127.0.0.1:{metrics_port}
grpc_inference_port={grpc_port}
grpc_management_port={grpc_management_port}
default_workers_per_model={workers}
max_request_size=268435456
max_response_size=268435456
job_queue_size=1000
disable_token_authorization=true
disable_system_metrics=true
model_store={folder}
load_models=mammograms.mar
"""


def main(port: str, workers: str) -> None:
    folder = tempfile.mkdtemp()
    bin_folder = Path(sys.executable).parent
    archive = {
        "--model-name": "mammograms",
        "--version": "1.0",
        "--handler": torchserve_handler.__file__,
        "--export-path": folder,
    }
    archiver = [str(bin_folder / "torch-model-archiver")]
    subprocess.run([*archiver, *(part for pair in archive.items() for part in pair)], check=True)
    config = Path(folder, "config.properties")
    config.write_text(
        _CONFIG.format(
            port=port,
            management_port=free_port(),
            metrics_port=free_port(),
            grpc_port=free_port(),
            grpc_management_port=free_port(),
            workers=workers,
            folder=folder,
        )
    )
    path = os.pathsep.join([str(bin_folder), os.environ["PATH"]])
    os.chdir(folder)  # it writes its logs where it is
    command = ["torchserve", "--foreground", "--disable-token-auth", "--ts-config", str(config)]
    os.execvpe(bin_folder / command[0], command, {**os.environ, "PATH": path})


if __name__ == "__main__":
    main(*sys.argv[1:3])
