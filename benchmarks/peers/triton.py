"""Triton (the one inside pytriton) with its Python backend, a model instance per core.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/python_backend
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytriton

_MODEL = Path(__file__).with_name("triton_model.py")
_CONFIG = """
backend: "python"
max_batch_size: 0
input [{{ name: "file", data_type: TYPE_UINT8, dims: [-1] }}]
output [{{ name: "answer", data_type: TYPE_UINT8, dims: [-1] }}]
instance_group [{{ kind: KIND_CPU, count: {instances} }}]
"""


def main(port: str, instances: str) -> int:
    shipped = Path(pytriton.__file__).parent / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as folder:
        models, backends = Path(folder, "models"), Path(folder, "backends")
        version_folder = models / "mammograms" / "1"
        version_folder.mkdir(parents=True)
        (version_folder.parent / "config.pbtxt").write_text(_CONFIG.format(instances=instances))
        shutil.copy(_MODEL, version_folder / "model.py")
        shutil.copytree(shipped / "backends", backends)
        stub = shipped / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        command = [
            str(shipped / "bin" / "tritonserver"),
            f"--model-repository={models}",
            f"--backend-directory={backends}",
            "--http-address=127.0.0.1",
            f"--http-port={port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ]
        return subprocess.run(command, env=_environment()).returncode


def _environment() -> dict[str, str]:
    """The backend runs the Python that it finds in the path, with the packages of this one."""
    bin_folder = str(Path(sys.executable).parent)
    packages = sysconfig.get_path("purelib")
    paths = [str(Path.cwd()), packages]
    libraries = [str(sysconfig.get_config_var("LIBDIR")), f"{packages}/nvidia_pytriton.libs"]
    return {
        **os.environ,
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
