"""Prometheus metrics of one server, in a registry of its own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .decode import Finish
from .engine import Engine
from .monitor import Monitor

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
ROUTES = (
    *("/v1/completions", "/v1/chat/completions", "/v1/feedback", "/v1/models"),
    *("/infill", "/tokenize", "/detokenize"),
    *("/tokenizer_info", "/health", "/metrics", "/alerts", "/"),
)


class Metrics:
    """Counters and histograms the middleware and the routes feed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(f"gristmill_{name}", what, registry=self.registry, buckets=BUCKETS)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"gristmill_{name}", what, labels, registry=self.registry)

        self._requests = counter("requests_total", "Answers by route and status", "route", "code")
        self._rejected = counter("request_rejections_total", "Refusals by reason", "reason")
        self._votes = counter("feedback_total", "Votes on answers", "rating")
        self._dropped = counter("log_dropped_total", "Lines the request log lost")
        self._duration = histogram("request_duration_seconds", "Whole request")
        self._first = histogram("time_to_first_token_seconds", "Arrival to first text")
        self._prefill = histogram("prefill_duration_seconds", "Evaluating the prompt")
        self._between = histogram("inter_token_latency_seconds", "Mean time per further token")
        self._waited = histogram("queue_duration_seconds", "Waiting for a slot")

    def watch(self, engine: Engine, name: str) -> None:
        """Add the engine's own counts, read when scraped."""
        self.registry.register(_EngineCollector(engine))
        info = Gauge(
            "gristmill_model_info", "The model", ("digest", "name"), registry=self.registry
        )
        info.labels(digest=engine.runtime.model.digest, name=name).set(1)

    def monitor(self, monitor: Monitor) -> None:
        """Add what the monitor found, read when scraped."""
        self.registry.register(_MonitorCollector(monitor))

    def finished(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; unknown paths share one label."""
        route = next((r for r in ROUTES if path == r or (r != "/" and path.startswith(r))), "other")
        self._requests.labels(route=route, code=str(status)).inc()
        self._duration.observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a refusal for lack of room or time."""
        self._rejected.labels(reason=reason).inc()

    def voted(self, rating: str | None) -> None:
        """Count a vote."""
        self._votes.labels(rating=rating or "none").inc()

    def log_dropped(self) -> None:
        """Count a line of the request log that could not be written."""
        self._dropped.inc()

    def first_text(self, seconds: float) -> None:
        """Observe the time from a request's arrival to its first text."""
        self._first.observe(seconds)

    def generated(self, finish: Finish, waited: float) -> None:
        """Observe the phases of a finished sequence."""
        self._waited.observe(waited)
        self._prefill.observe(finish.prompt_seconds)
        if finish.completion_tokens > 1:
            self._between.observe(finish.predict_seconds / (finish.completion_tokens - 1))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> list[Metric]:
        engine, counts = self._engine, self._engine.counters
        gauges = {"requests_running": engine.running, "requests_queued": engine.queued}
        totals = {
            "prompt_tokens": counts.prompt_tokens,
            "generated_tokens": counts.generated_tokens,
            "prefix_cache_hits": counts.cached_tokens,
            "engine_steps": counts.steps,
            "engine_rows": counts.rows,
            "requests_cancelled": counts.cancelled,
            "requests_failed": counts.failed,
        }
        result: list[Metric] = [
            GaugeMetricFamily(f"gristmill_{name}", "Sequences now", value)
            for name, value in gauges.items()
        ]
        for name, value in totals.items():
            result.append(CounterMetricFamily(f"gristmill_{name}", "Since the start", value))
        return result


class _MonitorCollector(Collector):
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> list[Metric]:
        watch = self._monitor
        psi = GaugeMetricFamily(
            "gristmill_drift_psi", "Of the last whole window", labels=["feature"]
        )
        ks = GaugeMetricFamily(
            "gristmill_drift_ks_distance", "Of the last whole window", labels=["feature"]
        )
        for name, shift in sorted(watch.shifts.items()):
            psi.add_metric([name], shift.psi)
            ks.add_metric([name], shift.ks)
        firing = GaugeMetricFamily(
            "gristmill_alert_firing", "Alerts that fire now", labels=["name"]
        )
        for alert in watch.alerts.firing():
            firing.add_metric([alert["alert"]], 1)
        found: list[Metric] = [psi, ks, firing]
        if watch.probe_nll is not None:
            text = "Nats per token of the self-test, from the weights in memory"
            found.append(GaugeMetricFamily("gristmill_quality_probe_nll", text, watch.probe_nll))
        totals = {
            "drift_windows": ("Windows compared", watch.windows),
            "drift_requests_measured": ("Requests measured", watch.measured),
            "drift_requests_skipped": ("Requests not measured: the server was busy", watch.skipped),
            "quality_probes": ("Probes of the weights", watch.probes),
        }
        for name, (text, value) in totals.items():
            found.append(CounterMetricFamily(f"gristmill_{name}", text, value))
        return found
