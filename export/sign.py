"""Sign a bundle with a private key, with the library model-signing (docs/signed-bundles.md)."""

from __future__ import annotations

import sys
from dataclasses import replace
from getpass import getpass
from pathlib import Path
from typing import Any

import model_signing
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.bundle import (
    MANIFEST,
    MANIFEST_HASH,
    SIGNATURE,
    Bundle,
    BundleError,
    file_sha256,
    load_bundle,
)
from app.signature import SignatureError, signed_files


def sign(folder: Path, private_key: Path) -> Bundle:
    """Write the signature of a bundle into its folder, in the place of one that is there.

    What the service would not load is not signed. The password of an encrypted key is asked for.
    Raises ``BundleError``, also where the service would not accept the signature; ``ValueError``
    and ``OSError`` for a key that is none.
    """
    bundle = load_bundle(folder)
    files = {
        **bundle.manifest.files,
        MANIFEST: bundle.sha256,
        MANIFEST_HASH: file_sha256(folder / MANIFEST_HASH),
    }
    for path in sorted(folder.iterdir()):
        if path.name not in {*files, SIGNATURE} or path.is_symlink():
            raise BundleError(f"{path} is not one of the files that {MANIFEST} lists")
    pem = private_key.read_bytes()
    password = _password(private_key) if b"ENCRYPTED" in pem else None
    try:
        key = load_pem_private_key(pem, password)
    except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: no password after all
        raise ValueError(f"{private_key}: {error}") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{private_key} is no key on an elliptic curve")
    hashing: Any = model_signing.hashing
    signing: Any = model_signing.signing  # says that a password is str, and needs bytes
    signer = signing.Config().use_elliptic_key_signer(private_key=private_key, password=password)
    signer.set_hashing_config(
        hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    )
    beside = folder.with_name(f".{folder.name}.{SIGNATURE}")  # a service may be loading the folder
    try:
        signer.sign(folder, beside)
        signed = signed_files(beside.read_bytes(), [key.public_key()])
        if signed.files != files:
            raise BundleError(f"{folder} was changed while it was signed")
        beside.replace(folder / SIGNATURE)
    except SignatureError as error:
        raise BundleError(f"what model-signing wrote {error}") from None
    finally:
        beside.unlink(missing_ok=True)
    return replace(bundle, signed_by=signed.by)


def _password(private_key: Path) -> bytes:
    """From the keyboard, else the first line of what comes in."""
    if sys.stdin.isatty():
        return getpass(f"Password of {private_key}: ").encode()
    return sys.stdin.readline().rstrip("\r\n").encode()
