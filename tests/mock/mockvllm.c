/* A mock of a vLLM server that costs next to nothing, for benchmarks and faults.
 *
 *     cc -O2 -o mockvllm mockvllm.c -lm
 *     ./mockvllm --port 8000                                          answers at once
 *     ./mockvllm --port 8000 --slots 64 --latency-ms 1500             at most 64 requests run, the rest wait
 *     ./mockvllm --slots 64 --latency-ms 1500 --simulate 2000         seconds that the slots alone impose on 2,000 requests
 *
 * One thread, epoll, loopback alone. It prints the port it took. The reply is the content of --reply; "@" stands for a letter A, B
 * or C that depends on the request alone, so that the same request gets the same letter.
 *
 * Continuous batching: a request carries work, lognormal around the latency; all running requests progress at the rate
 * 1 / (1 + n / 256), n of them running, so that a batch of 256 runs each half as fast as alone. --latency-ms is the median with
 * all slots at work. Work is drawn in the order of arrival from --seed, the same in a run and in --simulate.
 *
 * Log-probabilities: a request with "logprobs":true gets them as vLLM writes them, with as many alternatives as it asks for at each
 * token; a letter's are A, B and C. A schema is not enforced: --reply fits it. The probe's question is answered as a server that
 * enforces schemas would.
 *
 * Streams: a request with "stream": true gets --tokens tokens, the first --ttft-ms after it began to run, the others --gap-ms apart,
 * in vLLM's chunks: role and first token, the rest, usage, [DONE]. --slots bounds how many run; the others wait.
 *
 * Faults, as shares of the requests: --rate-429, --rate-500, --rate-reset, --rate-hang, --rate-badjson, --rate-half.
 * GET /metrics tells what runs and waits, as vLLM does; GET /stats tells everything, as JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 16384
#define MAX_BODY (32u << 20)

/* ------------------------------------------------------------------ options and random numbers */

static int port = 8000, slots = 0;
static double latency_s = 0, sigma = 0.35;
static int stream_tokens = 16, preempt_above = 0;
static double ttft_s = 0, gap_s = 0;
static double rate_429, rate_500, rate_reset, rate_hang, rate_badjson, rate_half;
static uint64_t seed = 42, work_state, fault_state;
static const char *reply_text = "{\"reason\": \"The answer says what the source says, and nothing more.\", \"letter\": \"@\"}";
static const char *served[64];
static int n_served;

static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state) { return ((next_random(state) >> 11) + 0.5) / 9007199254740992.0; }

static double draw_work(void) {
    if (latency_s <= 0) return 0;
    double gauss = sqrt(-2 * log(uniform(&work_state))) * cos(2 * M_PI * uniform(&work_state));
    return latency_s / (1 + slots / 256.0) * exp(sigma * gauss);
}

static double progress(int running) { return 1.0 / (1 + running / 256.0); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ connections */

enum state { IDLE, WAITING, RUNNING, HANGING };

struct connection {
    int fd;
    uint32_t generation; /* a request that went away is not found again in queue or heap */
    enum state state;
    int closing, fault_half, fault_json, stream, sent;
    char *in, *out;
    size_t in_len, in_cap, out_len, out_at, out_cap;
    double work;
    char letter, model[128];
    unsigned prompt_tokens, top;
    int is_probe;
};

static struct connection *connections[MAX_FD];
static int epoll_fd;

static struct {
    uint64_t preemptions, tokens, bytes, requests, tokenized, ok, refused_429, failed_500, resets, hangs, bad_json, halves, aborted;
    int most_running, most_waiting, open, most_open;
    double slot_seconds, first, last;
} stats;

static void *grown(void *block, size_t size) {
    void *larger = realloc(block, size);
    if (!larger) abort();
    return larger;
}

static void send_bytes(struct connection *c, const char *bytes, size_t n) {
    if (c->out_len + n > c->out_cap) c->out = grown(c->out, c->out_cap = 2 * (c->out_len + n));
    memcpy(c->out + c->out_len, bytes, n);
    c->out_len += n;
}

static void send_head(struct connection *c, const char *status, const char *more, const char *type, size_t n) {
    char head[512];
    int len = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nserver: uvicorn\r\ncontent-type: %s\r\ncontent-length: %zu\r\n%s%s\r\n",
                       status, type, n, more, c->closing ? "connection: close\r\n" : "");
    send_bytes(c, head, (size_t)len);
}

static void send_reply(struct connection *c, const char *status, const char *more, const char *type, const char *body, size_t n) {
    send_head(c, status, more, type, n);
    send_bytes(c, body, n);
}

static void send_error(struct connection *c, const char *status, const char *more, const char *kind) {
    char body[256];
    int n = snprintf(body, sizeof body, "{\"error\":{\"message\":\"mock: %s\",\"type\":\"%s\",\"param\":null,\"code\":%d}}", kind, kind, atoi(status));
    send_reply(c, status, more, "application/json", body, (size_t)n);
}

/* ------------------------------------------------------------------ the batch: who runs, who waits, who is due */

struct due { double at; int fd; uint32_t generation; };
struct heap { struct due *due; int len, cap; };

static struct heap batch, ticks; /* ends in the batch's own time; next tokens of streams in seconds */
static struct due *queue;
static uint32_t queue_head, queue_tail, queue_cap = 1 << 17;
static double batch_time, batch_clock; /* work done by a request that has run from the beginning; when it was last brought up to date */
static int running, waiting;

static void push_due(struct heap *to, struct due one) {
    if (to->len == to->cap) to->due = grown(to->due, sizeof *to->due * (size_t)(to->cap = to->cap ? 2 * to->cap : 1024));
    struct due *heap = to->due;
    int at = to->len++;
    for (; at && heap[(at - 1) / 2].at > one.at; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = one;
}

static struct due pop_due(struct heap *from) {
    struct due *heap = from->due, first = heap[0], last = heap[--from->len];
    int at = 0;
    for (int child; (child = 2 * at + 1) < from->len; at = child) {
        if (child + 1 < from->len && heap[child + 1].at < heap[child].at) child++;
        if (heap[child].at >= last.at) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return first;
}

static void advance(void) {
    double t = now(), passed = t - batch_clock;
    if (passed > 0) {
        batch_time += passed * progress(running);
        stats.slot_seconds += passed * running;
        batch_clock = t;
    }
}

static void run(struct connection *c) {
    c->state = RUNNING;
    if (++running > stats.most_running) stats.most_running = running;
    if (preempt_above && running > preempt_above) stats.preemptions++;
    if (c->stream) push_due(&ticks, (struct due){now() + ttft_s, c->fd, c->generation});
    else push_due(&batch, (struct due){batch_time + c->work, c->fd, c->generation});
}

static void fill_slots(void) {
    while (waiting && (!slots || running < slots)) {
        struct due next = queue[queue_head++ % queue_cap];
        struct connection *c = connections[next.fd];
        if (c && c->generation == next.generation && c->state == WAITING) {
            waiting--;
            run(c);
        }
    }
}

static void drop(struct connection *c, int reset) {
    advance();
    if (c->state == RUNNING) running--;
    if (c->state == WAITING) waiting--;
    if (c->state != IDLE) stats.aborted++;
    if (reset) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(c->fd);
    connections[c->fd] = NULL;
    stats.open--;
    free(c->in), free(c->out), free(c);
    fill_slots();
}

/* Returns 0 when the connection is gone. */
static int flush(struct connection *c) {
    while (c->out_at < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &(struct epoll_event){EPOLLIN | EPOLLOUT | EPOLLRDHUP, {.fd = c->fd}});
            return 1;
        }
        if (n < 0) return drop(c, 0), 0;
        c->out_at += (size_t)n;
    }
    c->out_at = c->out_len = 0;
    if (c->closing) return drop(c, 0), 0;
    return 1;
}

/* ------------------------------------------------------------------ replies */

static void escape(char *to, const char *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (from[i] == '"' || from[i] == '\\' || from[i] == '\n') *to++ = '\\';
        *to++ = from[i] == '\n' ? 'n' : from[i];
    }
    *to = 0;
}

#define MAX_TOP 20
#define PROBE_REPLY "{\"word\": \"quokka-7319\"}"

/* Length of the token at the beginning of a text: a word of at most 8 characters with the space before it, or one other character. */
static size_t token_length(const char *text) {
    size_t n = *text == ' ';
    while (n < 8 && isalnum((unsigned char)text[n])) n++;
    return n ? n : 1;
}

static char *put_token(char *to, const char *token, size_t n, double logprob) {
    char escaped[64];
    escape(escaped, token, n);
    to += sprintf(to, "{\"token\":\"%s\",\"logprob\":%.16f,\"bytes\":[", escaped, logprob);
    for (size_t i = 0; i < n; i++) to += sprintf(to, "%s%d", i ? "," : "", (unsigned char)token[i]);
    return to + sprintf(to, "]");
}

/* Returns the log-probabilities of the reply with a letter, built once: top alternatives at each token. */
static const char *listed(char letter, unsigned top) {
    static char *built[MAX_TOP + 1][3];
    static const char *others[] = {" and", " the", "\"", " which", " of", ".", " it", " source", ",", " is", " not", " that", " in", " to", " a", " are", " on", " or", " for", " be"};
    char **to = &built[top][letter - 'A'];
    if (*to) return *to;
    char *at = *to = grown(NULL, 64 + (strlen(reply_text) + 1) * (top + 1) * 160);
    at += sprintf(at, "{\"content\":[");
    for (const char *token = reply_text; *token;) {
        int is_letter = *token == '@';
        size_t n = is_letter ? 1 : token_length(token);
        const char *text = is_letter ? &letter : token;
        at += sprintf(at, "%s", token == reply_text ? "" : ",");
        at = put_token(at, text, n, -0.1053605156578263);
        at += sprintf(at, ",\"top_logprobs\":[");
        for (unsigned i = 0; i < top; i++) {
            if (i) *at++ = ',';
            char other = (char)('A' + (letter - 'A' + (int)i) % 3);
            if (!i) at = put_token(at, text, n, -0.1053605156578263);
            else if (is_letter && i < 3) at = put_token(at, &other, 1, -2.3025850929940455 - i);
            else at = put_token(at, others[i], strlen(others[i]), is_letter ? -9999.0 : -2.9957322735539909 - i);
            *at++ = '}';
        }
        at += sprintf(at, "]}");
        token += n;
    }
    sprintf(at, "]}");
    return *to;
}

static void answer(struct connection *c) {
    char text[8192], escaped[16384], head[20480], tail[512];
    const char *reply = c->is_probe ? PROBE_REPLY : reply_text;
    size_t n = strlen(reply);
    memcpy(text, reply, n + 1);
    for (char *at = text; (at = strchr(at, '@')); at++) *at = c->letter;
    if (c->fault_json) n = n * 6 / 10;
    escape(escaped, text, n);
    unsigned tokens = (unsigned)n / 4 + 1;
    const char *logprobs = c->top && !c->is_probe && !c->fault_json ? listed(c->letter, c->top) : "null";
    int len = snprintf(head, sizeof head,
                       "{\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion\",\"created\":%ld,\"model\":\"%s\",\"choices\":[{\"index\":0,"
                       "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"tool_calls\":[]},\"logprobs\":",
                       (unsigned long long)stats.requests, (long)time(NULL), c->model, escaped);
    int end = snprintf(tail, sizeof tail,
                       ",\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u,"
                       "\"completion_tokens\":%u,\"prompt_tokens_details\":null},\"prompt_logprobs\":null}",
                       c->prompt_tokens, c->prompt_tokens + tokens, tokens);
    size_t middle = strlen(logprobs), size = (size_t)len + middle + (size_t)end;
    stats.ok++;
    stats.bytes += size;
    stats.last = now();
    c->state = IDLE;
    send_head(c, "200 OK", "", "application/json", size);
    send_bytes(c, head, (size_t)len);
    send_bytes(c, logprobs, middle);
    send_bytes(c, tail, (size_t)end);
    if (c->fault_half) { /* the head promises more than comes */
        c->out_len -= size / 2;
        c->closing = 1;
    }
}

static void send_event(struct connection *c, const char *data, size_t n) {
    char head[32];
    send_bytes(c, head, (size_t)snprintf(head, sizeof head, "%zx\r\n", n + 8));
    send_bytes(c, "data: ", 6);
    send_bytes(c, data, n);
    send_bytes(c, "\n\n\r\n", 4);
}

static void send_delta(struct connection *c, const char *delta, const char *finish) {
    char body[20480];
    int n = snprintf(body, sizeof body,
                     "{\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion.chunk\",\"created\":%ld,\"model\":\"%s\",\"choices\":[{\"index\":0,"
                     "\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}",
                     (unsigned long long)stats.requests, (long)time(NULL), c->model, delta, finish);
    send_event(c, body, (size_t)n);
}

/* Sends the next token of a stream; with the first one its head, with the last one its end. */
static void send_token(struct connection *c) {
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    char text[8192], escaped[16384], delta[16512], usage[512];
    size_t n = strlen(reply_text), from = n * (size_t)c->sent / (size_t)stream_tokens, to = n * (size_t)(c->sent + 1) / (size_t)stream_tokens;
    if (!c->sent) {
        send_bytes(c, head, sizeof head - 1);
        send_delta(c, "\"role\":\"assistant\",\"content\":\"\"", "null");
    }
    memcpy(text, reply_text + from, to - from);
    for (size_t i = 0; i < to - from; i++) if (text[i] == '@') text[i] = c->letter;
    escape(escaped, text, to - from);
    snprintf(delta, sizeof delta, "\"content\":\"%s\"", escaped);
    int last = ++c->sent == stream_tokens;
    send_delta(c, delta, last ? "\"stop\"" : "null");
    stats.tokens++;
    if (!last) return;
    int len = snprintf(usage, sizeof usage,
                       "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":%ld,\"model\":\"%s\",\"choices\":[],"
                       "\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u,\"completion_tokens\":%d}}",
                       (long)time(NULL), c->model, c->prompt_tokens, c->prompt_tokens + (unsigned)stream_tokens, stream_tokens);
    send_event(c, usage, (size_t)len);
    send_event(c, "[DONE]", 6);
    send_bytes(c, "0\r\n\r\n", 5);
    stats.ok++;
    stats.last = now();
    c->state = IDLE;
}

static void chat(struct connection *c, const char *body, size_t n) {
    double luck = uniform(&fault_state);
    if (!stats.requests++) stats.first = now();
    c->fault_half = c->fault_json = 0;
    if ((luck -= rate_429) < 0) { stats.refused_429++; send_error(c, "429 Too Many Requests", "retry-after: 0.05\r\n", "RateLimitError"); return; }
    if ((luck -= rate_500) < 0) { stats.failed_500++; send_error(c, "500 Internal Server Error", "", "InternalServerError"); return; }
    if ((luck -= rate_reset) < 0) { stats.resets++; drop(c, 1); return; }
    if ((luck -= rate_hang) < 0) { stats.hangs++; c->state = HANGING; return; }
    if ((luck -= rate_badjson) < 0) { stats.bad_json++; c->fault_json = 1; }
    else if ((luck -= rate_half) < 0) { stats.halves++; c->fault_half = 1; }
    const char *model = memmem(body, n, "\"model\":\"", 9);
    const char *end = model ? memchr(model + 9, '"', n - (size_t)(model + 9 - body)) : NULL;
    snprintf(c->model, sizeof c->model, "%.*s", end ? (int)(end - model - 9) : 0, end ? model + 9 : "");
    uint64_t hash = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)body[i]) * 1099511628211ull;
    unsigned place = (unsigned)(hash >> 20) % 20;
    c->letter = place < 12 ? 'A' : place < 17 ? 'B' : 'C';
    c->prompt_tokens = (unsigned)n / 4 + 1;
    c->stream = memmem(body, n, "\"stream\":true", 13) || memmem(body, n, "\"stream\": true", 14);
    c->sent = 0;
    const char *top = memmem(body, n, "\"logprobs\":true", 15) ? memmem(body, n, "\"top_logprobs\":", 15) : NULL;
    c->top = top ? (unsigned)atoi(top + 15) : 0;
    if (c->top > MAX_TOP) { send_error(c, "400 Bad Request", "", "BadRequestError"); return; }
    c->is_probe = memmem(body, n, "quokka-7319", 11) != NULL;
    const char *limit = memmem(body, n, "\"max_tokens\":", 13);
    double share = limit ? atof(limit + 13) * 4 / (double)strlen(reply_text) : 1;
    c->work = draw_work() * fmin(1, share); /* a reply of one token takes less than a whole one */
    advance();
    if (c->work <= 0 && !slots && !c->stream) answer(c);
    else if (!slots || running < slots) run(c);
    else {
        c->state = WAITING;
        queue[queue_tail++ % queue_cap] = (struct due){0, c->fd, c->generation};
        if (++waiting > stats.most_waiting) stats.most_waiting = waiting;
    }
}

static void send_metrics(struct connection *c) {
    char body[2048];
    int n = snprintf(body, sizeof body,
                     "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\"} %d\n"
                     "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} %d\n"
                     "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine=\"0\"} %.4f\n"
                     "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{engine=\"0\"} %llu\n"
                     "# TYPE vllm:num_preemptions_total counter\nvllm:num_preemptions_total{engine=\"0\"} %llu\n",
                     running, waiting, fmin(1, running / 100.0), (unsigned long long)stats.tokens, (unsigned long long)stats.preemptions);
    send_reply(c, "200 OK", "", "text/plain; version=0.0.4", body, (size_t)n);
}

static void send_stats(struct connection *c) {
    char body[1024];
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    int n = snprintf(body, sizeof body,
                     "{\"requests\":%llu,\"ok\":%llu,\"refused_429\":%llu,\"failed_500\":%llu,\"resets\":%llu,\"hangs\":%llu,\"bad_json\":%llu,"
                     "\"halves\":%llu,\"aborted\":%llu,\"most_running\":%d,\"most_waiting\":%d,\"most_open\":%d,\"bytes\":%llu,\"tokenized\":%llu,\"slot_seconds\":%.3f,"
                     "\"active_s\":%.3f,\"cpu_s\":%.3f}",
                     (unsigned long long)stats.requests, (unsigned long long)stats.ok, (unsigned long long)stats.refused_429,
                     (unsigned long long)stats.failed_500, (unsigned long long)stats.resets, (unsigned long long)stats.hangs,
                     (unsigned long long)stats.bad_json, (unsigned long long)stats.halves, (unsigned long long)stats.aborted,
                     stats.most_running, stats.most_waiting, stats.most_open, (unsigned long long)stats.bytes,
                     (unsigned long long)stats.tokenized, stats.slot_seconds, stats.last - stats.first, cpu);
    send_reply(c, "200 OK", "", "application/json", body, (size_t)n);
}

static void send_models(struct connection *c) {
    char body[16384];
    int n = snprintf(body, sizeof body, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < n_served; i++)
        n += snprintf(body + n, sizeof body - (size_t)n, "%s{\"id\":\"%s\",\"object\":\"model\",\"created\":0,\"owned_by\":\"vllm\",\"root\":\"%s\",\"parent\":null,\"max_model_len\":32768}",
                      i ? "," : "", served[i], served[i]);
    n += snprintf(body + n, sizeof body - (size_t)n, "]}");
    send_reply(c, "200 OK", "", "application/json", body, (size_t)n);
}

/* ------------------------------------------------------------------ HTTP */

static void dispatch(struct connection *c, const char *path, const char *body, size_t length) {
    if (!strncmp(path, "/v1/chat/completions ", 21)) chat(c, body, length);
    else if (!strncmp(path, "/health ", 8)) send_reply(c, "200 OK", "", "text/plain", "", 0);
    else if (!strncmp(path, "/v1/models ", 11)) send_models(c);
    else if (!strncmp(path, "/version ", 9)) send_reply(c, "200 OK", "", "application/json", "{\"version\":\"0.32.0\"}", 20);
    else if (!strncmp(path, "/metrics ", 9)) send_metrics(c);
    else if (!strncmp(path, "/stats ", 7)) send_stats(c);
    else if (!strncmp(path, "/tokenize ", 10)) {
        char count[64];
        stats.tokenized++;
        send_reply(c, "200 OK", "", "application/json", count, (size_t)snprintf(count, sizeof count, "{\"count\":%zu}", length / 4));
    } else send_error(c, "404 Not Found", "", "NotFoundError");
}

/* Handles one whole request; returns 0 when there is none yet, or the connection is gone or busy. */
static int handle(struct connection *c) {
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (c->state != IDLE || !end) return 0;
    size_t head = (size_t)(end - c->in) + 4, length = 0;
    for (char *line = c->in; line && line < end; line = memmem(line, (size_t)(end - line), "\r\n", 2), line = line ? line + 2 : NULL) {
        if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
        if (!strncasecmp(line, "connection: close", 17)) c->closing = 1;
    }
    if (length > MAX_BODY) return drop(c, 1), 0;
    if (c->in_len < head + length) return 0;
    char *path = memchr(c->in, ' ', head);
    int fd = c->fd;
    uint32_t generation = c->generation;
    dispatch(c, path ? path + 1 : c->in, c->in + head, length);
    if (connections[fd] != c || c->generation != generation) return 0;
    memmove(c->in, c->in + head + length, c->in_len -= head + length);
    return flush(c);
}

static void receive(struct connection *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 8192) c->in = grown(c->in, c->in_cap = c->in_cap ? 2 * c->in_cap : 16384);
        ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { drop(c, 0); return; }
        if (n < 0) break;
        c->in_len += (size_t)n;
        if (c->in_len > MAX_BODY) { drop(c, 1); return; }
    }
    while (handle(c));
}

static void finish_due(void) {
    advance();
    while (batch.len && batch.due[0].at <= batch_time + 1e-7) {
        struct due next = pop_due(&batch);
        struct connection *c = connections[next.fd];
        if (!c || c->generation != next.generation || c->state != RUNNING) continue;
        running--;
        answer(c);
        fill_slots();
        if (flush(c)) while (handle(c));
    }
}

static void stream_due(void) {
    double t = now();
    while (ticks.len && ticks.due[0].at <= t) {
        struct due next = pop_due(&ticks);
        struct connection *c = connections[next.fd];
        if (!c || c->generation != next.generation || c->state != RUNNING) continue;
        send_token(c);
        if (c->state == RUNNING) push_due(&ticks, (struct due){next.at + gap_s, c->fd, c->generation});
        else {
            advance();
            running--;
            fill_slots();
        }
        if (flush(c) && c->state == IDLE) while (handle(c));
    }
}

static void accept_all(int listener) {
    static uint32_t generations;
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct connection *c = connections[fd] = grown(NULL, sizeof *c);
        *c = (struct connection){.fd = fd, .generation = ++generations};
        if (++stats.open > stats.most_open) stats.most_open = stats.open;
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN | EPOLLRDHUP, {.fd = fd}});
    }
}

static void serve(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    queue = grown(NULL, sizeof *queue * queue_cap);
    epoll_fd = epoll_create1(0);
    batch_clock = now();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) { perror("bind"); exit(1); }
    socklen_t size = sizeof here;
    getsockname(listener, (struct sockaddr *)&here, &size);
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.fd = listener}});
    for (struct epoll_event events[1024];;) {
        double wait = 1;
        if (batch.len) wait = fmax(0, fmin(1, (batch.due[0].at - batch_time) / progress(running) - (now() - batch_clock)));
        if (ticks.len) wait = fmax(0, fmin(wait, ticks.due[0].at - now()));
        struct timespec limit = {(time_t)wait, (long)((wait - floor(wait)) * 1e9)};
        int n = epoll_pwait2(epoll_fd, events, 1024, &limit, NULL);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) { accept_all(listener); continue; }
            struct connection *c = connections[fd];
            if (c && events[i].events & EPOLLOUT) {
                epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &(struct epoll_event){EPOLLIN | EPOLLRDHUP, {.fd = fd}});
                if (!flush(c)) continue;
            }
            if (c && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) receive(c);
        }
        finish_due();
        stream_due();
    }
}

static double simulate(int requests) {
    double seconds = 0, done = 0;
    int at_work = 0, most = slots ? slots : requests;
    while (requests || at_work) {
        for (; requests && at_work < most; requests--, at_work++) push_due(&batch, (struct due){done + draw_work(), 0, 0});
        struct due next = pop_due(&batch);
        seconds += (next.at - done) / progress(at_work--);
        done = next.at;
    }
    return seconds;
}

int main(int argc, char **argv) {
    int to_simulate = 0;
    struct { const char *name; double *value; } rates[] = {
        {"--rate-429", &rate_429}, {"--rate-500", &rate_500}, {"--rate-reset", &rate_reset}, {"--rate-hang", &rate_hang},
        {"--rate-badjson", &rate_badjson}, {"--rate-half", &rate_half}, {"--sigma", &sigma}};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        int known = 1;
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--slots")) slots = atoi(value);
        else if (!strcmp(name, "--tokens")) stream_tokens = atoi(value);
        else if (!strcmp(name, "--ttft-ms")) ttft_s = atof(value) / 1000;
        else if (!strcmp(name, "--gap-ms")) gap_s = atof(value) / 1000;
        else if (!strcmp(name, "--preempt-above")) preempt_above = atoi(value);
        else if (!strcmp(name, "--latency-ms")) latency_s = atof(value) / 1000;
        else if (!strcmp(name, "--seed")) seed = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--reply") && strlen(value) < 8000) reply_text = value;
        else if (!strcmp(name, "--model") && n_served < 64) served[n_served++] = value;
        else if (!strcmp(name, "--simulate")) to_simulate = atoi(value);
        else {
            known = 0;
            for (size_t k = 0; k < sizeof rates / sizeof *rates; k++)
                if (!strcmp(name, rates[k].name)) *rates[k].value = atof(value), known = 1;
        }
        if (!known) { fprintf(stderr, "mockvllm: unknown option %s\n", name); return 2; }
    }
    work_state = seed;
    fault_state = seed ^ 0xABCDEF;
    if (to_simulate) return printf("%.4f\n", simulate(to_simulate)), 0;
    serve();
}
