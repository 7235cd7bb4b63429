"""The names of vLLM's metrics that qaeval reads, each written once."""

from typing import Final

RUNNING: Final = "vllm:num_requests_running"
WAITING: Final = "vllm:num_requests_waiting"
KV_CACHE: Final = "vllm:kv_cache_usage_perc"
PREEMPTIONS: Final = "vllm:num_preemptions_total"
PROMPT_TOKENS: Final = "vllm:prompt_tokens_total"
GENERATED_TOKENS: Final = "vllm:generation_tokens_total"
PREFIX_QUERIES: Final = "vllm:prefix_cache_queries_total"
PREFIX_HITS: Final = "vllm:prefix_cache_hits_total"
SUCCESSES: Final = "vllm:request_success_total"
"""Read by reason: ``vllm:request_success_total stop``."""
TTFT: Final = "vllm:time_to_first_token_seconds"
ITL: Final = "vllm:inter_token_latency_seconds"
TPOT: Final = "vllm:request_time_per_output_token_seconds"
"""Of each finished request: decoding time / (output tokens - 1)."""
E2E: Final = "vllm:e2e_request_latency_seconds"
QUEUE: Final = "vllm:request_queue_time_seconds"

HISTOGRAMS: Final = (TTFT, TPOT, ITL, E2E, QUEUE)
"""Read as ``<name>_sum`` and ``<name>_count``, whose ratio of differences is the mean of a span, and, where there are
any, as ``<name>_bucket <le>``: the requests up to that bound."""
COUNTERS: Final = (
    PROMPT_TOKENS,
    GENERATED_TOKENS,
    PREFIX_QUERIES,
    PREFIX_HITS,
    PREEMPTIONS,
    SUCCESSES,
)
GAUGES: Final = (RUNNING, WAITING, KV_CACHE)
LOAD: Final = (RUNNING, WAITING, PREEMPTIONS)
"""What the number of requests in flight follows."""
