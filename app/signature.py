"""The signature of a bundle: which files, by their SHA-256, the holder of a key has signed.

``model.sig`` is what the library model-signing (OpenSSF) writes with a key on a NIST curve: a
Sigstore bundle with a DSSE envelope around an in-toto statement. That library checks it by hashing
the folder once more; here it is only read, and ``app.bundle`` compares it with the bytes that it
loads (docs/decisions/018-signed-bundles.md).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PublicKey = ec.EllipticCurvePublicKey
_HASHES: dict[str, HashAlgorithm] = {
    "secp256r1": SHA256(),
    "secp384r1": SHA384(),
    "secp521r1": SHA512(),
}
_STATEMENT = "application/vnd.in-toto+json"
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SignatureError(Exception):
    """A signature, or a file of keys, that is none or does not hold; the message says why."""


@dataclass(frozen=True)
class Signed:
    """SHA-256 of each signed file by its name, and ``key_id`` of the key that signed them."""

    files: dict[str, str]
    by: str


class _Part(BaseModel):
    """What is not named here is not read: the formats let others add to them."""

    model_config = ConfigDict(frozen=True)


class _Signature(_Part):
    sig: str


class _Envelope(_Part):
    """DSSE 1.0."""

    payload: str
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    signatures: tuple[_Signature]


class _SigstoreBundle(_Part):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = Field(alias="mediaType")
    envelope: _Envelope = Field(alias="dsseEnvelope")


class _Digest(_Part):
    sha256: _Sha256


class _Subject(_Part):
    """All files together: SHA-256 of their digests, one after the other."""

    digest: _Digest


class _Resource(_Part):
    name: str
    digest: _Sha256
    algorithm: Literal["sha256"]


class _Serialization(_Part):
    method: Literal["files"]


class _Predicate(_Part):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(_Part):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[_Subject]
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    predicate: _Predicate


def read_keys(path: Path) -> tuple[PublicKey, ...]:
    """The public keys of a file, PEM, one at least. Raises ``SignatureError`` naming the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SignatureError(f"{path} cannot be read: {error.strerror}") from None
    blocks = list(_PEM.finditer(text))
    if not blocks:
        raise SignatureError(f"{path} holds no public key in PEM")
    if any(b"PRIVATE" in block[1] for block in blocks):
        raise SignatureError(f"{path} holds a private key; only public ones belong there")
    return tuple(_public_key(block[0], path) for block in blocks)


def key_id(key: PublicKey) -> str:
    """SHA-256 of the key as PEM, by which model-signing names it in a signature, too."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def signed_files(signature: bytes, keys: Sequence[PublicKey]) -> Signed:
    """What one of ``keys`` has signed. Nothing of it is looked at before the signature holds.

    Raises ``SignatureError``.
    """
    try:
        envelope = _SigstoreBundle.model_validate_json(signature).envelope
        payload = base64.b64decode(envelope.payload, validate=True)
        made = base64.b64decode(envelope.signatures[0].sig, validate=True)
    except ValueError:  # as are pydantic's, and what is no base64
        raise SignatureError("is no signature that model-signing made with a key") from None
    signer = next((key for key in keys if _holds(key, made, payload)), None)
    if signer is None:
        raise SignatureError("was changed, or made with a key that is not trusted here")
    try:
        statement = _Statement.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SignatureError(f"signs what is no list of files: {where}: {first['msg']}") from None
    resources = statement.predicate.resources
    together = hashlib.sha256(b"".join(bytes.fromhex(one.digest) for one in resources))
    files = {one.name: one.digest for one in resources}
    if len(files) != len(resources) or together.hexdigest() != statement.subject[0].digest.sha256:
        raise SignatureError("signs a list of files that contradicts itself")
    return Signed(files, key_id(signer))


def _public_key(pem: bytes, path: Path) -> PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(f"{path} holds what is no public key in PEM") from None
    if not isinstance(key, PublicKey) or key.curve.name not in _HASHES:
        raise SignatureError(f"{path} holds a key that is not on the curve P-256, P-384 or P-521")
    return key


def _holds(key: PublicKey, signature: bytes, payload: bytes) -> bool:
    # The pre-authentication encoding of DSSE 1.0
    signed = b"DSSEv1 %d %s %d %s" % (len(_STATEMENT), _STATEMENT.encode(), len(payload), payload)
    try:
        key.verify(signature, signed, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True
