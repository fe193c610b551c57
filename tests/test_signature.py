"""With a key the service loads what its holder has signed, as it was signed, and nothing else.

Signatures are made with the library model-signing, whose own verifier must be of the same opinion.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.bundle import (
    ENCODER,
    HEAD,
    MANIFEST,
    MANIFEST_HASH,
    SIGNATURE,
    Bundle,
    BundleError,
    file_sha256,
    load_bundle,
    seal,
)
from app.signature import SignatureError, key_id, read_keys, signed_files
from export.sign import sign
from tests.serving import REPOSITORY, refused_to_start, serving

PrivateKey = ec.EllipticCurvePrivateKey
OPENSSL = shutil.which("openssl")


@dataclass(frozen=True)
class Pair:
    """The files of a private and a public key."""

    private: Path
    public: Path


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def new_pair(folder: Path, key: Any = None) -> Pair:
    key = key or ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / "private.pem", folder / "public.pem")
    pair.private.write_bytes(private_pem(key))
    pair.public.write_bytes(public_pem(key))
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return new_pair(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return new_pair(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def signed_once(bundle_folder: Path, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("signed")
    folder = store / bundle_folder.parent.name / bundle_folder.name
    shutil.copytree(bundle_folder, folder, ignore=shutil.ignore_patterns(SIGNATURE))
    sign(folder, pair.private)
    return folder


@pytest.fixture
def signed(signed_once: Path, tmp_path: Path) -> Path:
    """A signed bundle in a store of its own, to be tampered with."""
    return Path(shutil.copytree(signed_once, copy_of(signed_once, tmp_path / "store")))


def copy_of(folder: Path, store: Path) -> Path:
    return store / folder.parent.name / folder.name


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and write its hash anew: all that is lacking is the signature."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_HASH).write_text(hashlib.sha256(text).hexdigest() + "\n")


def model_signing_accepts(folder: Path, key: Path) -> bool:
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key)
    try:
        verifier.verify(folder, folder / SIGNATURE)
    except (ValueError, OSError, InvalidSignature):
        return False
    return True


# what is signed and as it was


def test_signed_bundle_is_loaded_and_says_by_which_key(signed: Path, pair: Pair) -> None:
    (key,) = read_keys(pair.public)
    loaded = load_bundle(signed, pair.public)
    assert loaded.signed_by == key_id(key)
    assert loaded.encoder == (signed / ENCODER).read_bytes()
    assert load_bundle(signed).signed_by is None, "nobody asked"
    assert model_signing_accepts(signed, pair.public)


def test_bytes_that_are_used_are_those_that_were_signed(signed: Path, pair: Pair) -> None:
    loaded = load_bundle(signed, pair.public)
    files = signed_files((signed / SIGNATURE).read_bytes(), read_keys(pair.public)).files
    used = {MANIFEST: loaded.sha256, ENCODER: hashlib.sha256(loaded.encoder).hexdigest()}
    assert used.items() <= files.items()
    assert files.keys() == {*loaded.manifest.files, MANIFEST, MANIFEST_HASH}


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=["P-384", "P-521"])
def test_longer_keys_sign_too(signed: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    longer = new_pair(tmp_path, ec.generate_private_key(curve))
    sign(signed, longer.private)
    assert load_bundle(signed, longer.public).signed_by
    assert model_signing_accepts(signed, longer.public)


def test_command_of_model_signing_makes_signatures_that_are_accepted(
    signed: Path, pair: Pair
) -> None:
    (signed / SIGNATURE).unlink()
    subprocess.run(
        [
            sys.executable, "-m", "model_signing", "sign", "key", str(signed),
            "--private_key", str(pair.private), "--signature", str(signed / SIGNATURE),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert load_bundle(signed, pair.public).signed_by


def test_one_of_several_keys_is_enough_until_it_is_removed(
    signed: Path, pair: Pair, stranger: Pair, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"# of 2027\n" + stranger.public.read_bytes() + pair.public.read_bytes())
    assert load_bundle(signed, both).signed_by == key_id(read_keys(pair.public)[0])
    both.write_bytes(stranger.public.read_bytes())
    with pytest.raises(BundleError, match="not trusted here"):
        load_bundle(signed, both)


# what is not


def every_file(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_file_that_was_changed_is_refused_by_both(
    signed_once: Path, pair: Pair, tmp_path: Path
) -> None:
    for name in every_file(signed_once):
        folder = copy_of(signed_once, tmp_path / name)
        shutil.copytree(signed_once, folder)
        flip_a_bit(folder / name)
        with pytest.raises(BundleError) as caught:
            load_bundle(folder, pair.public)
        assert name in str(caught.value)
        assert not model_signing_accepts(folder, pair.public)


def test_every_file_that_was_changed_with_its_hash_is_refused_by_both(
    signed_once: Path, pair: Pair, tmp_path: Path
) -> None:
    """What the hashes alone do not find."""
    for name in load_bundle(signed_once).manifest.files:
        folder = copy_of(signed_once, tmp_path / name)
        shutil.copytree(signed_once, folder)
        flip_a_bit(folder / name)
        changed = file_sha256(folder / name)
        forge(folder, lambda manifest: manifest["files"].update({name: changed}))  # noqa: B023
        assert load_bundle(folder).manifest.files[name] == changed
        with pytest.raises(BundleError, match=f"{MANIFEST} is not the one that {SIGNATURE} signs"):
            load_bundle(folder, pair.public)
        assert not model_signing_accepts(folder, pair.public)


def unsigned(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


def with_a_file_more(folder: Path) -> None:
    (folder / "plugin.py").write_text("print('hello')")


def with_a_hidden_folder(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "file").write_text("")


def with_a_file_less(folder: Path) -> None:
    (folder / "history.csv").unlink()


def with_a_link(folder: Path) -> None:
    """Its content is the same, for now."""
    moved = (folder / HEAD).rename(folder.parent / HEAD)
    (folder / HEAD).symlink_to(moved)


def with_a_linked_signature(folder: Path) -> None:
    moved = (folder / SIGNATURE).rename(folder.parent / SIGNATURE)
    (folder / SIGNATURE).symlink_to(moved)


def with_another_manifest(folder: Path) -> None:
    forge(folder, lambda manifest: manifest.update(temperature=2.0))


def with_other_white_space(folder: Path) -> None:
    forge(folder, lambda manifest: None)


def with_an_empty_signature(folder: Path) -> None:
    (folder / SIGNATURE).write_bytes(b"")


def with_a_line_end_of_windows(folder: Path) -> None:
    """The one file whose content is not in the manifest."""
    text = (folder / MANIFEST_HASH).read_bytes()
    (folder / MANIFEST_HASH).write_bytes(text.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (unsigned, "is not signed: it holds no model.sig"),
        (with_a_file_more, "plugin.py is not one of the files that model.sig signs"),
        (with_a_hidden_folder, ".hidden is not one of the files"),
        (with_a_file_less, "history.csv is missing"),
        (with_a_link, "head.onnx is not one of the files"),
        (with_a_linked_signature, "model.sig is not one of the files"),
        (with_another_manifest, "manifest.json is not the one"),
        (with_other_white_space, "manifest.json is not the one"),
        (with_an_empty_signature, "is no signature"),
        (with_a_line_end_of_windows, "manifest.sha256 is not the one"),
    ],
)
def test_folder_that_is_not_what_was_signed_is_refused_by_both(
    signed: Path, pair: Pair, tamper: Callable[[Path], object], message: str
) -> None:
    tamper(signed)
    with pytest.raises(BundleError) as caught:
        load_bundle(signed, pair.public)
    assert message in str(caught.value)
    assert not model_signing_accepts(signed, pair.public)


def test_signature_of_a_stranger_is_refused_by_both(
    signed: Path, pair: Pair, stranger: Pair
) -> None:
    sign(signed, stranger.private)
    with pytest.raises(BundleError, match=r"model\.sig was changed, or made with a key that is"):
        load_bundle(signed, pair.public)
    assert not model_signing_accepts(signed, pair.public)


def test_signature_of_another_model_is_refused_by_both(signed: Path, pair: Pair) -> None:
    """Also of the same key, which has signed both."""
    other = signed.parents[1] / "other" / "1.0.0"
    shutil.copytree(signed, other)
    manifest = load_bundle(signed).manifest.model_dump(exclude={"files"})
    seal(other, manifest | {"name": "other", "version": "1.0.0"})
    sign(other, pair.private)
    shutil.copyfile(signed / SIGNATURE, other / SIGNATURE)
    with pytest.raises(BundleError, match=r"manifest\.json is not the one that model\.sig signs"):
        load_bundle(other, pair.public)
    assert not model_signing_accepts(other, pair.public)


@pytest.mark.parametrize("place", ["mammoseq-rsna/99.0.0", "another/0.2.2"])
def test_signed_version_in_the_place_of_another_is_refused(
    signed: Path, pair: Pair, place: str
) -> None:
    """An old version must not come back as the newest. model-signing does not look at names."""
    target = signed.parents[1] / place
    shutil.copytree(signed, target)
    for key in (pair.public, None):
        with pytest.raises(BundleError, match="it is not in its place"):
            load_bundle(target, key)
    assert model_signing_accepts(target, pair.public)


# the signature's file


def test_signature_with_any_byte_changed_says_the_same_or_is_refused(
    signed: Path, pair: Pair
) -> None:
    keys = read_keys(pair.public)
    whole = (signed / SIGNATURE).read_bytes()
    said = signed_files(whole, keys)
    chance = random.Random(7)
    refused = 0
    for _ in range(2000):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] = chance.randrange(256)
        try:
            assert signed_files(bytes(changed), keys) == said
        except SignatureError:
            refused += 1
    assert refused > 1500, "what may differ is white space, and the hint at the key"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"mediaType": "else"}', b"\0" * 99],
)
def test_signature_that_is_none_is_refused(pair: Pair, content: bytes) -> None:
    with pytest.raises(SignatureError, match="is no signature that model-signing made"):
        signed_files(content, read_keys(pair.public))


def statement(files: dict[str, str]) -> dict[str, Any]:
    digests = b"".join(bytes.fromhex(digest) for digest in files.values())
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "any", "digest": {"sha256": hashlib.sha256(digests).hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [
                {"name": name, "digest": digest, "algorithm": "sha256"}
                for name, digest in files.items()
            ],
        },
    }


KIND = b"application/vnd.in-toto+json"


def enveloped(
    payload: bytes, key: PrivateKey, kind: bytes = KIND, version: bytes = b"DSSEv1"
) -> dict[str, Any]:
    """Signed as DSSE says."""
    encoded = b"%s %d %s %d %s" % (version, len(kind), kind, len(payload), payload)
    made = key.sign(encoded, ec.ECDSA(SHA256()))
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": None}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind.decode(),
            "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
        },
    }


FILES = {"a": "0" * 64, "b": "1" * 64}


def test_statement_made_by_hand_as_the_formats_say_is_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = enveloped(json.dumps(statement(FILES)).encode(), key)
    said = signed_files(json.dumps(made).encode(), [key.public_key()])
    assert (said.files, said.by) == (FILES, key_id(key.public_key()))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), "method"),
        (lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"), "algorithm"),
        (lambda s: s["predicate"]["resources"][0].update(digest="0"), "digest"),
        (lambda s: s["predicate"].pop("resources"), "resources"),
        (lambda s: s["subject"].append(s["subject"][0]), "subject"),
        (lambda s: s["predicate"]["resources"][0].update(name="b"), "contradicts itself"),
        (lambda s: s["predicate"]["resources"].reverse(), "contradicts itself"),
        (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), "contradicts itself"),
    ],
)
def test_what_is_signed_but_no_list_of_files_is_refused(
    change: Callable[[dict[str, Any]], object], where: str
) -> None:
    """As another tool of the holder of the key might sign."""
    key = ec.generate_private_key(ec.SECP256R1())
    said = statement(FILES)
    change(said)
    made = json.dumps(enveloped(json.dumps(said).encode(), key)).encode()
    with pytest.raises(SignatureError, match=where):
        signed_files(made, [key.public_key()])


def test_signature_over_another_kind_or_encoding_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    payload = json.dumps(statement(FILES)).encode()
    other_kind = enveloped(payload, key, kind=b"application/json")
    relabelled = json.loads(json.dumps(other_kind))
    relabelled["dsseEnvelope"]["payloadType"] = KIND.decode()
    old = enveloped(payload, key, version=b"DSSEV1")  # model-signing 0.2, which 1.x still accepts
    bare = enveloped(payload, key)
    raw = base64.b64encode(key.sign(payload, ec.ECDSA(SHA256()))).decode()
    bare["dsseEnvelope"]["signatures"] = [{"sig": raw}]
    none = enveloped(payload, key)
    none["dsseEnvelope"]["signatures"] = []
    for made in (other_kind, relabelled, old, bare, none):
        with pytest.raises(SignatureError):
            signed_files(json.dumps(made).encode(), [key.public_key()])


# the keys


def encrypted_private() -> bytes:
    return private_pem(ec.generate_private_key(ec.SECP256R1()), b"password of a test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "holds no public key in PEM"),
        (lambda: b"ssh-ed25519 AAAA", "holds no public key in PEM"),
        (lambda: private_pem(ec.generate_private_key(ec.SECP256R1())), "holds a private key"),
        (encrypted_private, "holds a private key"),
        (lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is no public key"),
        (lambda: public_pem(rsa.generate_private_key(65537, 2048)), "not on the curve"),
        (lambda: public_pem(ed25519.Ed25519PrivateKey.generate()), "not on the curve"),
        (lambda: public_pem(ec.generate_private_key(ec.SECP256K1())), "not on the curve"),
    ],
)
def test_file_of_keys_that_is_none_is_refused_by_name(
    signed_once: Path, tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_bytes(content())
    with pytest.raises(BundleError) as caught:
        load_bundle(signed_once, keys)
    assert str(caught.value).startswith(str(keys))
    assert message in str(caught.value)


def test_one_bad_key_among_good_ones_is_refused(
    signed_once: Path, pair: Pair, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_bytes(pair.public.read_bytes() + public_pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(BundleError, match="not on the curve"):
        load_bundle(signed_once, keys)


def test_file_of_keys_that_is_missing_is_refused_by_name(signed_once: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"keys\.pem cannot be read: No such file"):
        load_bundle(signed_once, tmp_path / "keys.pem")


# signing


def command(folder: Path, key: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "export", "sign", "--bundle", str(folder), "--key", str(key)],
        cwd=REPOSITORY, input=typed, capture_output=True, timeout=120, check=False, text=True,
    )  # fmt: skip


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
def test_keys_of_the_documented_commands_sign(signed: Path, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "signed-bundles.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("openssl ")]
    assert len(lines) == 2
    secret = {**os.environ, "PHRASE": "password of a test"}
    first = lines[0].replace("-aes256", "-aes256 -pass env:PHRASE")
    second = f"{lines[1]} -passin env:PHRASE"
    for line in (first, second):
        subprocess.run(line, shell=True, cwd=tmp_path, env=secret, check=True, capture_output=True)
    (signed / SIGNATURE).unlink()
    done = command(signed, tmp_path / "private.pem", "password of a test\n")
    assert done.returncode == 0, done.stderr
    loaded = load_bundle(signed, tmp_path / "public.pem")
    assert f"signed with key {loaded.signed_by}" in done.stdout
    before = (signed / SIGNATURE).read_bytes()
    for wrong in ("another\n", "\n"):
        refused = command(signed, tmp_path / "private.pem", wrong)
        assert refused.returncode == 1
        assert refused.stderr.startswith("not signed: ")
        assert "Traceback" not in refused.stderr
    assert (signed / SIGNATURE).read_bytes() == before


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda folder: flip_a_bit(folder / ENCODER), "does not match its SHA-256"),
        (with_a_file_more, r"plugin\.py is not one of the files that manifest\.json lists"),
        (with_a_link, r"head\.onnx is not one of the files"),
        (lambda folder: folder.rename(folder.with_name("9.9.9")), "cannot be read|is missing"),
    ],
)
def test_what_would_not_be_served_is_not_signed(
    signed: Path, pair: Pair, tamper: Callable[[Path], object], message: str
) -> None:
    tamper(signed)
    with pytest.raises(BundleError, match=message):
        sign(signed, pair.private)


@pytest.mark.parametrize(
    "key",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP256K1()),
    ],
)
def test_key_that_the_service_would_not_know_does_not_sign(
    signed: Path, tmp_path: Path, key: Callable[[], Any]
) -> None:
    before = (signed / SIGNATURE).read_bytes()
    other = new_pair(tmp_path, key())
    with pytest.raises(ValueError, match="curve"):
        sign(signed, other.private)
    with pytest.raises(ValueError, match="key"):
        sign(signed, other.public)
    assert (signed / SIGNATURE).read_bytes() == before
    assert [path.name for path in signed.parent.iterdir()] == [signed.name]


def test_signing_changes_nothing_but_the_signature(bundle: Bundle, signed_once: Path) -> None:
    assert load_bundle(signed_once).sha256 == bundle.sha256
    shipped = {path.name for path in bundle.folder.iterdir()}
    assert set(every_file(signed_once)) == shipped | {SIGNATURE}


def test_bundle_that_is_sealed_anew_is_no_longer_signed(signed: Path, pair: Pair) -> None:
    manifest = load_bundle(signed).manifest.model_dump(exclude={"files"})
    again = seal(signed, manifest | {"temperature": 2.0})
    assert SIGNATURE not in again.manifest.files
    with pytest.raises(BundleError, match="is not signed"):
        load_bundle(signed, pair.public)


# the process


def test_service_serves_a_signed_bundle_and_says_by_whom(
    signed_once: Path, pair: Pair, tmp_path: Path
) -> None:
    with serving(signed_once, tmp_path, model_key=pair.public) as service:
        (model,) = [line for line in service.printed().splitlines() if line.startswith("model ")]
        assert f"signed by {key_id(read_keys(pair.public)[0])[:12]} " in model
        (told,) = service.get("/v1/models").json()["models"]
        assert told["sha256"] == load_bundle(signed_once).sha256


def test_service_does_not_start_with_a_model_that_nobody_signed(
    bundle_folder: Path, pair: Pair
) -> None:
    status, printed = refused_to_start(bundle_folder, model_key=pair.public)
    assert status == 1
    assert f"refused to start: {bundle_folder} is not signed: it holds no {SIGNATURE}" in printed
    assert "Traceback" not in printed


def test_service_does_not_start_with_a_model_that_a_stranger_signed(
    signed_once: Path, stranger: Pair
) -> None:
    status, printed = refused_to_start(signed_once, model_key=stranger.public)
    assert status == 1
    assert f"refused to start: {signed_once / SIGNATURE} was changed, or made with a key" in printed


def test_graph_that_was_not_signed_is_not_looked_at(signed: Path, pair: Pair) -> None:
    """Its hash and that of the manifest are right; it is no graph at all."""
    (signed / HEAD).write_bytes(b"no graph")
    changed = file_sha256(signed / HEAD)
    forge(signed, lambda manifest: manifest["files"].update({HEAD: changed}))
    assert load_bundle(signed).head == b"no graph"
    status, printed = refused_to_start(signed, model_key=pair.public)
    assert status == 1
    assert f"refused to start: {signed / MANIFEST} is not the one that {SIGNATURE} signs" in printed
