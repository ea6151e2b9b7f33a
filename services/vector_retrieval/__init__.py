"""Keeps items with their vectors, and finds candidates among them. The only code that knows Milvus."""
