"""`ift-serve adapters keygen`, `sign` and `verify`: signatures of adapter directories, in minisign's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ift_serve.cli.connect import Json, fail

if TYPE_CHECKING:
    from minisign import SecretKey

_SECRET_MODE = 0o600
_LARGEST = 1 << 16
PasswordFile = Annotated[
    Path | None, typer.Option(help="file whose first line is the key's password", exists=True, dir_okay=False)
]


def _first_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0]:
        raise fail(f"--password-file {file}: its first line is empty")
    return lines[0]


def keygen(
    name: Annotated[Path, typer.Argument(help="NAME.key and NAME.pub are written")],
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="leave the secret key unencrypted, as in a vault of secrets")
    ] = False,
) -> None:
    """Make a pair of keys. NAME.key signs and stays secret; NAME.pub is what servers are given to trust."""
    from ift_serve.modeling.adapter_format.signing.keys import new_key

    secret, public = (name.with_name(name.name + end) for end in (".key", ".pub"))
    for file in (secret, public):
        if file.exists():
            raise fail(f"{file}: is there already; signatures of a key that is lost cannot be made again")
    password = _first_line(password_file) if password_file is not None else ""
    if not password and not no_password:
        password = typer.prompt("password of the new key", hide_input=True, confirmation_prompt=True, err=True)
    try:
        secret_content, public_content, number = new_key(password)
        handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _SECRET_MODE)
        with os.fdopen(handle, "wb") as opened:
            opened.write(secret_content)
        public.write_bytes(public_content)
    except (OSError, ValueError) as error:
        raise fail(str(error)) from None
    except ImportError:
        raise fail(_MISSING) from None
    typer.echo(f"key {number}: {secret} signs, {public} is to be trusted")


_MISSING = "signatures need the package py-minisign: pip install 'ift-serve[signing]'"


def _secret_key(file: Path, password_file: Path | None) -> SecretKey:
    from ift_serve.modeling.adapter_format.signing.keys import decrypt, secret_key

    with file.open("rb") as opened:
        key = secret_key(opened.read(_LARGEST))
    if key.is_encrypted():
        given = None if password_file is None else _first_line(password_file)
        decrypt(key, given or typer.prompt(f"password of {file}", hide_input=True, err=True))
    return key


def sign(
    directory: Annotated[Path, typer.Argument(help="an adapter directory", exists=True, file_okay=False)],
    key: Annotated[Path, typer.Option(help="secret key, of keygen or minisign", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="the only name that it may be loaded as; none: any")] = "",
    comment: Annotated[str, typer.Option(help="a line that is signed too")] = "",
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Write the manifest of all files of a directory, and its signature, in place of those that it has."""
    from ift_serve.modeling.adapter_format.errors import AdapterError
    from ift_serve.modeling.adapter_format.signing.keys import number_of
    from ift_serve.modeling.adapter_format.signing.signed_files import sign_directory

    try:
        secret = _secret_key(key, password_file)
        manifest = sign_directory(directory, secret, adapter=name, comment=comment)
        number = number_of(secret.get_public_key())
    except (AdapterError, OSError, ValueError) as error:
        raise fail(str(error)) from None
    except ImportError:
        raise fail(_MISSING) from None
    if as_json:
        typer.echo(json.dumps({"key": number, "name": name, "files": sorted(manifest.digests)}))
        return
    only = f", to be loaded as {name} only" if name else ""
    typer.echo(f"{directory}: {len(manifest.digests)} files signed by key {number}{only}")


def verify(
    directory: Annotated[Path, typer.Argument(help="an adapter directory", exists=True, file_okay=False)],
    keys: Annotated[Path, typer.Option(help="file or directory (*.pub) of trusted public keys", exists=True)],
    as_json: Json = False,
) -> None:
    """Say what a server that trusts these keys would say of the signature; exit code 1 if it would refuse it."""
    from ift_serve.modeling.adapter_format.errors import AdapterError
    from ift_serve.modeling.adapter_format.signing.signed_files import verify_directory
    from ift_serve.modeling.adapter_format.signing.trusted_keys import read_trusted_keys

    try:
        signed = verify_directory(directory, read_trusted_keys(keys))
    except (AdapterError, OSError, ValueError) as error:
        if as_json:
            typer.echo(json.dumps({"valid": False, "error": str(error)}))
            raise typer.Exit(1) from None
        raise fail(str(error)) from None
    except ImportError:
        raise fail(_MISSING) from None
    manifest = signed.manifest
    if as_json:
        found = {"valid": True, "key": signed.key, "name": manifest.adapter, "files": sorted(manifest.digests)}
        typer.echo(json.dumps(found))
        return
    only = f", to be loaded as {manifest.adapter} only" if manifest.adapter else ""
    typer.echo(f"{directory}: {len(manifest.digests)} files, signed by key {signed.key}{only}")
