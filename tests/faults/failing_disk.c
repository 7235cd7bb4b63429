/* A disk that fails at one operation, for a process that preloads this library.
 *
 * Operations on regular files below a folder are counted: create, write, rename, link, unlink, mkdir, truncate and sync.
 * disk_fails(folder, mode, at) chooses what happens at operation number `at`, from 1; disk_operations() returns how many there
 * were; disk_names() returns what they were, a line "KIND PATH" for each, where nothing failed. Modes: 0 nothing, 1 the process
 * is killed before it, 2 it is killed in its middle (half of a write; after any other operation), 3 EIO, 4 ENOSPC at it and at
 * every later write or create.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NOTHING, BEFORE, MIDDLE, IO_ERROR, FULL };
enum verdict { PASS, FAIL, HALF };

static char folder[4096];
static int mode;
static long target, operations;
static char names[1 << 22]; /* lines of 4 MB at most; later operations have no name */
static size_t named;

void disk_fails(const char *path, int how, long at) {
    snprintf(folder, sizeof folder, "%s", path);
    mode = how;
    target = at;
    operations = 0;
    named = 0;
    names[0] = 0;
}

long disk_operations(void) { return operations; }
const char *disk_names(void) { return names; }

static __thread char last[8192]; /* the path that is_below saw last: that of the operation which is counted */

static int is_below(const char *path) {
    char here[4096];
    char *absolute = last;
    if (!folder[0] || !path) return 0;
    if (path[0] == '/')
        snprintf(absolute, sizeof last, "%s", path);
    else if (getcwd(here, sizeof here))
        snprintf(absolute, sizeof last, "%s/%s", here, path);
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

static int is_below_at(int descriptor, const char *path) {
    char link_path[64], folder_path[4096], joined[8192];
    if (descriptor == AT_FDCWD || path[0] == '/') return is_below(path);
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link_path, folder_path, sizeof folder_path - 1);
    if (length <= 0) return 0;
    folder_path[length] = 0;
    snprintf(joined, sizeof joined, "%s/%s", folder_path, path);
    return is_below(joined);
}

static enum verdict count(const char *kind, int needs_space) {
    operations++;
    if (!mode && named < sizeof names - sizeof last) named += (size_t)sprintf(names + named, "%s %s\n", kind, last + strlen(folder));
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
#define WHOLE(kind, counts, needs_space, call) \
    enum verdict verdict = (counts) ? count(kind, needs_space) : PASS; \
    if (verdict == FAIL) return -1; \
    int result = (call); \
    if (verdict == HALF) kill(getpid(), SIGKILL); \
    return result

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(write);
    enum verdict verdict = is_file_below(descriptor) ? count("write", 1) : PASS;
    if (verdict == FAIL) return -1;
    if (verdict == HALF) {
        if (size > 1) real(descriptor, data, size / 2);
        kill(getpid(), SIGKILL);
    }
    return real(descriptor, data, size);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    REAL(sendfile64);
    enum verdict verdict = is_file_below(to) ? count("write", 1) : PASS;
    if (verdict == FAIL) return -1;
    if (verdict == HALF) {
        if (size > 1) real(to, from, offset, size / 2);
        kill(getpid(), SIGKILL);
    }
    return real(to, from, offset, size);
}

int rename(const char *from, const char *to) { REAL(rename); WHOLE("rename", is_below(to), 0, real(from, to)); }
int link(const char *from, const char *to) { REAL(link); WHOLE("link", is_below(to), 0, real(from, to)); }
int unlink(const char *path) { REAL(unlink); WHOLE("unlink", is_below(path), 0, real(path)); }
int unlinkat(int folder_descriptor, const char *path, int flags) {
    REAL(unlinkat);
    WHOLE("unlink", is_below_at(folder_descriptor, path), 0, real(folder_descriptor, path, flags));
}
int mkdir(const char *path, mode_t rights) { REAL(mkdir); WHOLE("mkdir", is_below(path), 1, real(path, rights)); }
int rmdir(const char *path) { REAL(rmdir); WHOLE("rmdir", is_below(path), 0, real(path)); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); WHOLE("truncate", is_below(path), 0, real(path, size)); }
int ftruncate64(int descriptor, off64_t size) { REAL(ftruncate64); WHOLE("truncate", is_file_below(descriptor), 0, real(descriptor, size)); }
int fsync(int descriptor) { REAL(fsync); WHOLE("sync", is_file_below(descriptor), 0, real(descriptor)); }
int fdatasync(int descriptor) { REAL(fdatasync); WHOLE("sync", is_file_below(descriptor), 0, real(descriptor)); }

int open64(const char *path, int flags, ...) {
    REAL(open64);
    mode_t rights = 0;
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        rights = va_arg(rest, mode_t);
        va_end(rest);
    }
    WHOLE("create", (flags & O_CREAT) && is_below(path), 1, real(path, flags, rights));
}
