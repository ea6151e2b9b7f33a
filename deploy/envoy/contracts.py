"""What Envoy has to know of the contracts: which services stand behind a listener, and the messages behind JSON."""

from collections.abc import Iterator

from aisle.encoder.v1 import item_encoder_pb2, query_encoder_pb2
from aisle.events.v1 import user_events_pb2
from aisle.gateway.v1 import catalog_pb2, gateway_pb2
from aisle.rerank.v1 import reranker_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2

_FILES: dict[str, tuple[FileDescriptor, ...]] = {
    "query_encoder": (query_encoder_pb2.DESCRIPTOR,),
    "item_encoder": (item_encoder_pb2.DESCRIPTOR,),
    "vector_retrieval": (vector_retrieval_pb2.DESCRIPTOR,),
    "reranker": (reranker_pb2.DESCRIPTOR,),
    "user_events": (user_events_pb2.DESCRIPTOR,),
    "gateway": (gateway_pb2.DESCRIPTOR, catalog_pb2.DESCRIPTOR),
}


def services(kind: str) -> tuple[ServiceDescriptor, ...]:
    """The gRPC services of the process called `kind`."""
    return tuple(service for file in _FILES[kind] for service in file.services_by_name.values())


def descriptor_set(kind: str) -> bytes:
    """The contracts of `kind` and all that they import, as `protoc --include_imports` writes them; with the details of
    errors, which travel as `Any`."""
    found: dict[str, FileDescriptorProto] = {}
    for file in (*_FILES[kind], error_details_pb2.DESCRIPTOR):
        for one in _with_imports(file):
            if one.name not in found:
                one.CopyToProto(found.setdefault(one.name, FileDescriptorProto()))
    return FileDescriptorSet(file=found.values()).SerializeToString()


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """What is imported first."""
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file
