"""Dashboards as code: panels are declared here, and Grafana's JSON and `docs/dashboards.md` are made from them."""
