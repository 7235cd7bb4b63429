/* A resolver that lies, and a record of every connection, for a process that preloads this library.
 *
 * Names that end in .internal lead to this machine for as many lookups as $INSIDE says ("NAME=COUNT " for each, else one) and to an
 * address outside ever after; names that end in .example lead outside. No other name is known, so that no lookup leaves the machine. Each lookup and each destination
 * is a line of the file $TRACE: "lookup NAME", "connect ADDRESS PORT", "send ADDRESS PORT". A destination outside this machine
 * is recorded and refused.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUTSIDE "203.0.113.7" /* TEST-NET-3 (RFC 5737) */
#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char name[256]; int lookups; } known[64];
static int n_known;

static void record(const char *line) {
    const char *path = getenv("TRACE");
    int descriptor = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (descriptor < 0) abort();
    if (write(descriptor, line, strlen(line)) < 0) abort();
    close(descriptor);
}

static int is_inside(const char *name) {
    const char *counts = getenv("INSIDE"), *entry = counts ? strstr(counts, name) : NULL;
    int i, limit = entry ? atoi(entry + strlen(name) + 1) : 1, inside;
    pthread_mutex_lock(&lock);
    for (i = 0; i < n_known && strcmp(known[i].name, name); i++);
    if (i == n_known) {
        if (n_known == 64) abort();
        snprintf(known[n_known++].name, sizeof known[0].name, "%s", name);
    }
    inside = known[i].lookups++ < limit;
    pthread_mutex_unlock(&lock);
    return inside;
}

static int ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    REAL(getaddrinfo);
    unsigned char address[16];
    char line[512];
    if (!name) return real(name, service, hints, result);
    snprintf(line, sizeof line, "lookup %s\n", name);
    record(line);
    if (ends_with(name, ".internal")) return real(is_inside(name) ? "127.0.0.1" : OUTSIDE, service, hints, result);
    if (ends_with(name, ".example")) return real(OUTSIDE, service, hints, result);
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return real(name, service, hints, result);
    return EAI_NONAME;
}

/* Record a destination; return whether it is on this machine. */
static int is_here(const char *what, const struct sockaddr *destination) {
    char address[INET6_ADDRSTRLEN], line[512];
    int port;
    if (destination->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)destination;
        inet_ntop(AF_INET, &four->sin_addr, address, sizeof address);
        port = ntohs(four->sin_port);
    } else if (destination->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)destination;
        inet_ntop(AF_INET6, &six->sin6_addr, address, sizeof address);
        port = ntohs(six->sin6_port);
    } else
        return 1;
    snprintf(line, sizeof line, "%s %s %d\n", what, address, port);
    record(line);
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1");
}

int connect(int descriptor, const struct sockaddr *destination, socklen_t size) {
    REAL(connect);
    if (is_here("connect", destination)) return real(descriptor, destination, size);
    errno = ECONNREFUSED;
    return -1;
}

ssize_t sendto(int descriptor, const void *data, size_t size, int flags, const struct sockaddr *destination, socklen_t length) {
    REAL(sendto);
    if (!destination || is_here("send", destination)) return real(descriptor, data, size, flags, destination, length);
    errno = ECONNREFUSED;
    return -1;
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    REAL(sendmsg);
    if (!message->msg_name || is_here("send", message->msg_name)) return real(descriptor, message, flags);
    errno = ECONNREFUSED;
    return -1;
}
