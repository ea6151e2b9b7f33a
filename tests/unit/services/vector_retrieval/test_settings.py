import pytest

from services.vector_retrieval.milvus import _tls
from services.vector_retrieval.settings import VectorRetrievalSettings


def test_a_path_is_milvus_lite() -> None:
    settings = VectorRetrievalSettings.parse([])
    assert not settings.is_server
    assert (settings.port, settings.metrics_port) == (50054, 9104)


def test_secrets_are_not_printed() -> None:
    settings = VectorRetrievalSettings.parse(
        ["--uri", "http://milvus:19530", "--token", "secret", "--password", "secret"]
    )
    assert settings.is_server
    assert "secret" not in settings.redacted_json()
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    "flags",
    [
        ["--uri", "ftp://milvus"],
        ["--uri", ""],
        ["--index", "a-b"],
        ["--tls-ca-file", "ca.pem"],
        ["--hnsw-m", "1000"],
    ],
)
def test_bad_settings_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit, match="settings are not valid"):
        VectorRetrievalSettings.parse(flags)


def test_tls() -> None:
    assert _tls(VectorRetrievalSettings(uri="http://milvus:19530")) == {}
    settings = VectorRetrievalSettings(uri="https://milvus:19530", tls_ca_file="ca.pem", tls_server_name="m")
    assert _tls(settings) == {"secure": True, "server_pem_path": "ca.pem", "server_name": "m"}
