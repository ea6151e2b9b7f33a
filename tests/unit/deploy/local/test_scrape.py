"""Prometheus is told of every replica, under its service's name."""

import json
import os
from pathlib import Path

from deploy.local import scrape
from deploy.local.process import ProcessId
from deploy.local.state import Running


def test_each_replica_is_a_target_of_its_service(tmp_path: Path) -> None:
    process = ProcessId(os.getpid(), "now")
    names = {"reranker": 9105, "reranker-2": 9205, "gateway": 9101}
    scrape.write(tmp_path, [Running(name, process, 1, port, "/log", 0.0) for name, port in names.items()])
    assert json.loads(scrape.path(tmp_path).read_text()) == [
        {"targets": ["127.0.0.1:9105"], "labels": {"service": "reranker"}},
        {"targets": ["127.0.0.1:9205"], "labels": {"service": "reranker"}},
        {"targets": ["127.0.0.1:9101"], "labels": {"service": "gateway"}},
    ]
    scrape.write(tmp_path, [])
    assert json.loads(scrape.path(tmp_path).read_text()) == []


def test_a_milvus_server_is_a_target_too(tmp_path: Path) -> None:
    scrape.write(tmp_path, [], "milvus.shop:9091")
    assert json.loads(scrape.path(tmp_path).read_text()) == [
        {"targets": ["milvus.shop:9091"], "labels": {"service": "milvus"}}
    ]
