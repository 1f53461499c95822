"""A server that requires signatures: of every load, from the start to an engine's restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ift_serve.client import AsyncClient, ServerError
from ift_serve.frontend.errors import EngineStartError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.signing.keys import new_key, secret_key
from ift_serve.modeling.adapter_format.signing.signed_files import sign_directory
from ift_serve.server.config import ServerConfig
from ift_serve.server.folder import WatchedFolder
from tests.server.test_adapter_restart import kill, refusal
from tests.server.test_adapters import answer
from tests.support.adapters import write_random
from tests.support.serving import serving

Make = Callable[..., ServerConfig]


class Keys:
    """A directory of trusted public keys, and the secret key of one of them."""

    def __init__(self, folder: Path, name: str = "ours", trusted: Path | None = None) -> None:
        self.trusted = trusted or folder / "trusted"
        self.trusted.mkdir(exist_ok=True)
        self._file = self.trusted / f"{name}.pub"
        self.secret, self.public, self.number = new_key("")
        self.trust()

    def trust(self) -> None:
        self._file.write_bytes(self.public)

    def add(self, name: str, public: bytes) -> None:
        """Trust another key too."""
        (self.trusted / f"{name}.pub").write_bytes(public)

    def replace(self) -> None:
        """Another key is trusted from now on, and this one is not."""
        self._file.write_bytes(new_key("")[1])

    def sign(self, directory: Path, adapter: str = "") -> None:
        sign_directory(directory, secret_key(self.secret), adapter=adapter)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


async def refused(client: AsyncClient, name: str, path: str) -> str:
    with pytest.raises(ServerError) as caught:
        await client.load_adapter(name, path)
    assert caught.value.code == "FAILED_PRECONDITION"
    return str(caught.value)


async def test_only_signed_adapters_are_loaded_and_loads_follow_the_keys(
    server_config: Make, metadata: BaseMetadata, root: Path, keys: Keys
) -> None:
    for seed, name in enumerate(("signed", "unsigned", "bound")):
        write_random(root / name, metadata, seed=seed)
    keys.sign(root / "signed")
    keys.sign(root / "bound", adapter="tone")
    config = server_config(adapter_roots=[root], engine={"trusted_keys": str(keys.trusted)})
    async with serving(config) as (server, client):
        version = (await client.load_adapter("one", "signed")).version
        assert "only signed adapters" in await refused(client, "two", "unsigned")
        assert (await answer(client, "one"))[1] == f"one@{version}"
        assert "signed to be loaded as tone only" in await refused(client, "one", "bound")
        assert (await client.load_adapter("tone", "bound")).state == "ready"
        folder = WatchedFolder(server.engine, root, interval=1.0)
        for _ in range(2):
            await folder.step()
            await folder.settle()
        assert {a.name for a in await client.adapters()} == {"one", "tone", "signed"}
        keys.replace()
        assert f"of key {keys.number}, which is not trusted" in await refused(client, "three", "signed")
        for file in keys.trusted.iterdir():
            file.unlink()
        told = await refused(client, "three", "signed")
        assert "cannot be read" in told and str(keys.trusted) not in told
        keys.trust()
        assert (await client.load_adapter("three", "signed")).state == "ready"


async def test_a_folder_tries_again_what_was_refused_when_the_keys_change(
    server_config: Make, metadata: BaseMetadata, root: Path, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    theirs = Keys(tmp_path / "elsewhere")
    write_random(root / "tone", metadata, seed=1)
    theirs.sign(root / "tone")
    config = server_config(engine={"trusted_keys": str(keys.trusted)})
    async with serving(config) as (server, client):
        folder = WatchedFolder(server.engine, root, interval=1.0, keys=keys.trusted)

        async def looks(count: int) -> list[str]:
            for _ in range(count):
                await folder.step()
                await folder.settle()
            return [adapter.name for adapter in await client.adapters()]

        assert await looks(4) == []
        keys.add("half", b"nonsense")
        assert await looks(2) == []
        keys.add("half", theirs.public)
        assert await looks(1) == ["tone"]


async def test_after_a_crash_the_signature_is_checked_again(
    server_config: Make,
    metadata: BaseMetadata,
    root: Path,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    others = Keys(tmp_path, "theirs", keys.trusted)
    for seed, name in enumerate(("same", "changed", "revoked")):
        write_random(root / name, metadata, seed=seed)
        (root / name / "run").mkdir()
        (root / name / "run" / "report.json").write_text("{}")
        (others if name == "revoked" else keys).sign(root / name)
    engine = {"trusted_keys": str(keys.trusted)}
    config = server_config(adapter_roots=[root], adapters={"same": root / "same"}, engine=engine)
    async with serving(config, process=True) as (server, client):
        versions = {name: (await client.load_adapter(name, name)).version for name in ("changed", "revoked")}
        before = await answer(client, "same")
        copy = next((tmp_path / "cache").glob(f"*/server-*/{versions['changed']}"))
        assert (copy / "run" / "report.json").exists()
        for place in (copy, root / "changed"):
            with (place / "README.md").open("a") as card:
                card.write("changed behind the server\n")
        write_random(root / "same", metadata, seed=7)
        others.replace()
        await kill(server)
        assert await answer(client, "same") == before, "what was loaded, whatever its directory holds now"
        for name, reason in (("changed", "is not the file that was signed"), ("revoked", "which is not trusted here")):
            lost = await refusal(client, name)
            assert lost.code == "NOT_FOUND" and reason in str(lost)


async def test_a_server_without_keys_to_trust_does_not_start(server_config: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = server_config(engine={"trusted_keys": str(tmp_path / "empty")})
    with pytest.raises((EngineStartError, ValueError), match="holds no public key"):
        async with serving(config):
            pass
