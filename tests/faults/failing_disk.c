/* A disk that fails at one operation, for a process that preloads this library.
 *
 * Operations on regular files below a folder are counted: create, write, rename, link, unlink, mkdir, truncate and sync.
 * disk_fails(folder, mode, at) chooses what happens at operation number `at`, from 1; disk_operations() returns how many there
 * were. Modes: 0 nothing, 1 the process is killed before it, 2 it is killed in its middle (half of a write; after any other
 * operation), 3 EIO, 4 ENOSPC at it and at every later write or create.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NOTHING, BEFORE, MIDDLE, IO_ERROR, FULL };
enum verdict { PASS, FAIL, HALF };

static char folder[4096];
static int mode;
static long target, operations;

void disk_fails(const char *path, int how, long at) {
    snprintf(folder, sizeof folder, "%s", path);
    mode = how;
    target = at;
    operations = 0;
}

long disk_operations(void) { return operations; }

static int is_below(const char *path) {
    char absolute[8192], here[4096];
    if (!folder[0] || !path) return 0;
    if (path[0] == '/')
        snprintf(absolute, sizeof absolute, "%s", path);
    else if (getcwd(here, sizeof here))
        snprintf(absolute, sizeof absolute, "%s/%s", here, path);
    else
        return 0;
    return strncmp(absolute, folder, strlen(folder)) == 0;
}

static int is_file_below(int descriptor) {
    char link_path[64], path[4096];
    struct stat status;
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link_path, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path) && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

static enum verdict count(int needs_space) {
    operations++;
    if (mode == FULL && operations >= target && needs_space) {
        errno = ENOSPC;
        return FAIL;
    }
    if (operations != target) return PASS;
    if (mode == BEFORE) kill(getpid(), SIGKILL);
    if (mode == MIDDLE) return HALF;
    if (mode == IO_ERROR) {
        errno = EIO;
        return FAIL;
    }
    return PASS;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* An operation without a middle: killed after it instead. */
#define WHOLE(counts, needs_space, call) \
    enum verdict verdict = (counts) ? count(needs_space) : PASS; \
    if (verdict == FAIL) return -1; \
    int result = (call); \
    if (verdict == HALF) kill(getpid(), SIGKILL); \
    return result

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(write);
    enum verdict verdict = is_file_below(descriptor) ? count(1) : PASS;
    if (verdict == FAIL) return -1;
    if (verdict == HALF) {
        if (size > 1) real(descriptor, data, size / 2);
        kill(getpid(), SIGKILL);
    }
    return real(descriptor, data, size);
}

int rename(const char *from, const char *to) { REAL(rename); WHOLE(is_below(to), 0, real(from, to)); }
int link(const char *from, const char *to) { REAL(link); WHOLE(is_below(to), 0, real(from, to)); }
int unlink(const char *path) { REAL(unlink); WHOLE(is_below(path), 0, real(path)); }
int mkdir(const char *path, mode_t rights) { REAL(mkdir); WHOLE(is_below(path), 1, real(path, rights)); }
int rmdir(const char *path) { REAL(rmdir); WHOLE(is_below(path), 0, real(path)); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); WHOLE(is_below(path), 0, real(path, size)); }
int ftruncate64(int descriptor, off64_t size) { REAL(ftruncate64); WHOLE(is_file_below(descriptor), 0, real(descriptor, size)); }
int fsync(int descriptor) { REAL(fsync); WHOLE(is_file_below(descriptor), 0, real(descriptor)); }
int fdatasync(int descriptor) { REAL(fdatasync); WHOLE(is_file_below(descriptor), 0, real(descriptor)); }

int open64(const char *path, int flags, ...) {
    REAL(open64);
    mode_t rights = 0;
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        rights = va_arg(rest, mode_t);
        va_end(rest);
    }
    WHOLE((flags & O_CREAT) && is_below(path), 1, real(path, flags, rights));
}
