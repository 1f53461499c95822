"""Models: the base and its adapters, for who may know of them."""

from __future__ import annotations

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai


def test_an_admin_sees_the_base_and_all_adapters(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["ift-tiny", "head", "tone"]
    assert all(model.object == "model" and model.owned_by == "ift-serve" for model in listed)
    assert listed[1].ift["components"] == ["temperature_head"]  # type: ignore[attr-defined]


def test_others_see_the_base(reader: openai.OpenAI) -> None:
    page = reader.models.list()
    assert [model.id for model in page.data] == ["ift-tiny"]
    assert "admin" in page.ift["adapters"]  # type: ignore[attr-defined]
    with pytest.raises(openai.PermissionDeniedError):
        reader.models.retrieve("tone")


def test_one_model(client: openai.OpenAI) -> None:
    assert client.models.retrieve("ift-tiny").ift["context_length"] > 0  # type: ignore[attr-defined]
    version = client.models.retrieve("tone").ift["version"]  # type: ignore[attr-defined]
    assert client.models.retrieve(f"tone@{version}").id == f"tone@{version}"
    for name in ("nobody", "to/ne", "tone@0", "x" * 300):
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            client.models.retrieve(name)


def test_without_a_token_nothing_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
