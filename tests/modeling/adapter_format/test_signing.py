"""Signed directories: what was signed is loaded, and nothing else; by our keys and by minisign's own."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_serve.modeling.adapter_format.safe_file import SafeDirectory
from ift_serve.modeling.adapter_format.signing.errors import SigningError
from ift_serve.modeling.adapter_format.signing.keys import decrypt, new_key, public_key, secret_key, signature
from ift_serve.modeling.adapter_format.signing.manifest import MANIFEST, SIGNATURE, Manifest
from ift_serve.modeling.adapter_format.signing.signed_files import sign_directory, verify_directory
from ift_serve.modeling.adapter_format.signing.trusted_keys import read_trusted_keys

needs_minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="needs the command minisign")
Keys = list[Any]
WEIGHTS = "adapter_model.safetensors"


class Signer:
    """A pair of keys in files."""

    def __init__(self, folder: Path, name: str, password: str = "") -> None:
        secret, public, self.number = new_key(password)
        self.secret_file, self.public_file = folder / f"{name}.key", folder / f"{name}.pub"
        self.secret_file.write_bytes(secret)
        self.public_file.write_bytes(public)

    @property
    def secret(self) -> Any:
        return secret_key(self.secret_file.read_bytes())

    @property
    def trusted(self) -> Keys:
        return read_trusted_keys(self.public_file)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "ours")


@pytest.fixture
def signed(adapter: Path, signer: Signer) -> Path:
    (adapter / "run").mkdir()
    (adapter / "run" / "report.json").write_text("{}")
    sign_directory(adapter, signer.secret)
    return adapter


def read(directory: Path, metadata: BaseMetadata, trusted: Keys | None) -> Any:
    return read_adapter(directory, metadata, trusted=trusted)


def test_a_signed_directory_is_the_version_that_it_is_unsigned(
    signed: Path, signer: Signer, metadata: BaseMetadata, original: Path
) -> None:
    found = read(signed, metadata, signer.trusted)
    assert found.version == read(original, metadata, None).version
    assert found.signed.key == signer.number and set(found.signed.names) >= {MANIFEST, SIGNATURE, "run/report.json"}


def test_an_unsigned_directory_is_refused(adapter: Path, signer: Signer, metadata: BaseMetadata) -> None:
    with pytest.raises(AdapterError, match=r"adapter\.manifest: missing: only signed adapters.*adapters sign"):
        read(adapter, metadata, signer.trusted)


def test_a_key_that_is_not_trusted_is_named(
    signed: Path, signer: Signer, metadata: BaseMetadata, tmp_path: Path
) -> None:
    other = Signer(tmp_path, "other")
    with pytest.raises(AdapterError, match=f"of key {signer.number}, which is not trusted here"):
        read(signed, metadata, other.trusted)
    assert read(signed, metadata, other.trusted + signer.trusted).signed.key == signer.number


def _append(name: str) -> Callable[[Path], object]:
    return lambda signed: (signed / name).open("ab").write(b" ")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (_append(WEIGHTS), WEIGHTS),
    "components": (_append("ift_extras.safetensors"), "ift_extras.safetensors"),
    "configuration": (_append("adapter_config.json"), "adapter_config.json"),
    "our configuration": (_append("ift_config.json"), "ift_config.json"),
    "card": (_append("README.md"), "README.md"),
    "report": (_append("run/report.json"), "run/report.json"),
    "additional": (lambda s: (s / "notes.txt").write_text(""), "notes.txt"),
    "additional, hidden": (lambda s: (s / ".hidden").write_text(""), ".hidden"),
    "additional, deep": (lambda s: (s / "run" / "more").write_text(""), "run/more"),
    "missing": (lambda s: (s / "README.md").unlink(), "README.md"),
    "missing weights": (lambda s: (s / WEIGHTS).unlink(), WEIGHTS),
    "renamed": (lambda s: (s / "README.md").rename(s / "readme.md"), "readme.md"),
    "another's": (lambda s: shutil.copy(s / "README.md", s / "run" / "report.json"), "run/report.json"),
    "a link out": (lambda s: _link(s / "run" / "report.json"), "run/report.json"),
}


def _link(file: Path) -> None:
    kept = file.parent.parent.parent / "kept"
    file.rename(kept)
    file.symlink_to(kept)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused_by_the_files_name(
    signed: Path, signer: Signer, metadata: BaseMetadata, change: str
) -> None:
    act, name = CHANGES[change]
    act(signed)
    with pytest.raises(AdapterError) as refused:
        read(signed, metadata, signer.trusted)
    assert str(refused.value).startswith(f"{name}: "), refused.value


def test_what_was_signed_elsewhere_does_not_hold_here(
    signed: Path, signer: Signer, metadata: BaseMetadata, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(signed, other)
    (other / "README.md").write_text("# Another\n")
    sign_directory(other, signer.secret)
    for names, refusal in (((SIGNATURE,), "not of this"), ((MANIFEST, SIGNATURE), "README.md: is not the file")):
        here = tmp_path / f"here-{len(names)}"
        shutil.copytree(signed, here)
        for name in names:
            shutil.copy(other / name, here / name)
        with pytest.raises(AdapterError, match=refusal):
            read(here, metadata, signer.trusted)


def test_files_that_change_behind_the_check_are_not_believed(
    signed: Path, signer: Signer, metadata: BaseMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_check = SafeDirectory.refuse_pickled

    def swap(files: SafeDirectory) -> None:
        content = bytearray((signed / WEIGHTS).read_bytes())
        content[-3] ^= 0x10
        (signed / WEIGHTS).write_bytes(content)
        after_the_check(files)

    monkeypatch.setattr(SafeDirectory, "refuse_pickled", swap)
    # What compares sizes and times of files must not be what notices it.
    monkeypatch.setattr(SafeDirectory, "check_unchanged", lambda files: None)
    with pytest.raises(AdapterError, match=f"{WEIGHTS}: is not the file that was signed"):
        read(signed, metadata, signer.trusted)
    assert read(signed, metadata, None), "unsigned, nobody would have noticed"


def decoded(content: bytes) -> Any:
    try:
        return signature(content)
    except SigningError:
        return content


@given(st.sampled_from((MANIFEST, SIGNATURE)), st.integers(0, 10**6), st.integers(0, 7))
@settings(max_examples=60)
def test_no_bit_of_manifest_or_signature_can_change(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("bits")
    signer = Signer(folder, "ours")
    directory = folder / "adapter"
    directory.mkdir()
    (directory / "file").write_text("content")
    sign_directory(directory, signer.secret)
    content = bytearray((directory / name).read_bytes())
    before = decoded(bytes(content))
    if name == SIGNATURE:  # its first line is signed by nobody, and so is the end of its last
        first = content.index(b"\n") + 1
        at = first + at % (len(content.rstrip(b"\n")) - first)
    content[at % len(content)] ^= 1 << bit
    # Base64 has bits that stand for nothing.
    assume(name == MANIFEST or decoded(bytes(content)) != before)
    (directory / name).write_bytes(content)
    with pytest.raises(AdapterError):
        verify_directory(directory, signer.trusted)


@pytest.mark.parametrize(
    "lines",
    [
        ["# ift-serve adapter manifest 2"],
        ["# ift-serve adapter manifest 1", "abc  file"],
        ["# ift-serve adapter manifest 1", f"{'0' * 64}  ../file"],
        ["# ift-serve adapter manifest 1", f"{'0' * 64}  /file"],
        ["# ift-serve adapter manifest 1", f"{'0' * 64}  a//b"],
        ["# ift-serve adapter manifest 1", f"{'0' * 64}  a\\nb"],
        ["# ift-serve adapter manifest 1", f"{'0' * 64}  a", f"{'0' * 64}  a"],
        ["# ift-serve adapter manifest 1", f"{'0' * 64}  a", "# name: tone"],
        ["# ift-serve adapter manifest 1", "# name: ../tone"],
        ["# ift-serve adapter manifest 1", "", f"{'0' * 64}  a"],
    ],
)
def test_a_manifest_of_another_form_is_refused(lines: list[str]) -> None:
    with pytest.raises(SigningError):
        Manifest.parse("".join(f"{line}\n" for line in lines).encode())


def test_names_that_a_manifest_cannot_hold_are_refused_when_signing(adapter: Path, signer: Signer) -> None:
    (adapter / "two\nlines").write_text("")
    with pytest.raises(SigningError, match="rename it"):
        sign_directory(adapter, signer.secret)
    assert not (adapter / MANIFEST).exists()


def test_the_signature_is_ed25519_over_blake2b_and_over_the_comment(signed: Path, signer: Signer) -> None:
    """By the published format, with nothing of ours."""
    key = base64.b64decode(signer.public_file.read_text().splitlines()[1])
    _, line, comment, whole = (signed / SIGNATURE).read_text().splitlines()
    given = base64.b64decode(line)
    assert (key[:2], given[:2], key[2:10]) == (b"Ed", b"ED", given[2:10])
    ed25519 = Ed25519PublicKey.from_public_bytes(key[10:])
    ed25519.verify(given[10:], hashlib.blake2b((signed / MANIFEST).read_bytes(), digest_size=64).digest())
    told = comment.removeprefix("trusted comment: ").encode()
    ed25519.verify(base64.b64decode(whole), given[10:] + told)
    with pytest.raises(InvalidSignature):
        ed25519.verify(base64.b64decode(whole), given[10:] + told + b"!")


def test_the_manifest_is_what_sha256sum_checks(signed: Path) -> None:
    checked = subprocess.run(["sha256sum", "--check", MANIFEST], cwd=signed, capture_output=True, text=True, check=True)
    assert checked.stdout.count(": OK") == 6


@needs_minisign
def test_minisign_verifies_ours_and_we_verify_minisigns(
    adapter: Path, signer: Signer, metadata: BaseMetadata, tmp_path: Path
) -> None:
    def minisign(*arguments: object, said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(["minisign", *map(str, arguments)], input=said, capture_output=True, text=True)

    sign_directory(adapter, signer.secret, comment="by us")
    verified = minisign("-V", "-p", signer.public_file, "-m", adapter / MANIFEST)
    assert verified.returncode == 0 and "by us" in verified.stdout
    theirs = tmp_path / "theirs"
    assert minisign("-G", "-W", "-p", f"{theirs}.pub", "-s", f"{theirs}.key").returncode == 0
    trusted = read_trusted_keys(Path(f"{theirs}.pub"))
    signing = ("-S", "-W", "-s", f"{theirs}.key", "-m", adapter / MANIFEST)
    assert minisign(*signing).returncode == 0
    assert read(adapter, metadata, trusted).signed
    assert minisign(*signing, "-l").returncode == 0
    with pytest.raises(AdapterError, match="old kind"):
        read(adapter, metadata, trusted)
    sign_directory(adapter, secret_key(Path(f"{theirs}.key").read_bytes()))
    assert read(adapter, metadata, trusted).signed
    closed = Signer(tmp_path, "closed", password="much too long to guess")
    assert minisign("-S", "-s", closed.secret_file, "-m", adapter / MANIFEST, said="wrong\n").returncode != 0
    opened = minisign("-S", "-s", closed.secret_file, "-m", adapter / MANIFEST, said="much too long to guess\n")
    assert opened.returncode == 0, opened.stderr
    assert read(adapter, metadata, closed.trusted).signed


def test_a_closed_key_opens_with_its_password_only(tmp_path: Path) -> None:
    closed = Signer(tmp_path, "closed", password="right").secret
    assert closed.is_encrypted()
    with pytest.raises(SigningError, match="stays closed"):
        decrypt(closed, "wrong")
    decrypt(closed, "right")
    assert not closed.is_encrypted()


def test_trusted_keys_are_those_of_a_file_or_of_a_directory(tmp_path: Path) -> None:
    one, two = Signer(tmp_path, "one"), Signer(tmp_path, "two")
    assert len(read_trusted_keys(tmp_path)) == 2
    both = tmp_path / "both"
    both.write_bytes(one.public_file.read_bytes() + b"\n# the other\n" + two.public_file.read_bytes())
    assert len(read_trusted_keys(both)) == 2
    both.write_text("RWQ no key\n")
    with pytest.raises(SigningError, match="both, line 1"):
        read_trusted_keys(both)
    for empty in (tmp_path / "nothing", tmp_path / "empty"):
        empty.mkdir()
        with pytest.raises(SigningError, match="no public key"):
            read_trusted_keys(empty)
    with pytest.raises(SigningError, match="cannot be read"):
        read_trusted_keys(tmp_path / "absent")
    with pytest.raises(SigningError):
        public_key("")
