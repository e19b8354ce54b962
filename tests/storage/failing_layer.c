#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Makes all writes below one folder fail from the n-th call on, as on a broken disk, or only the n-th call. */
static long left = -1;
static int code = EIO, once = 0;
static char folder[4096];

void fail_after(long calls, int error, const char *below, int only) {
    left = calls; code = error; once = only; strncpy(folder, below, sizeof folder - 1);
}
long calls_left(void) { return left; }

static int due(int fd) {
    char link[64], path[4096];
    if (left < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (left > 0) { left--; return 0; }
    if (once) left = -1;
    errno = code;
    return 1;
}
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
ssize_t write(int fd, const void *b, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t); return due(fd) ? -1 : real(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); return due(fd) ? -1 : real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); return due(fd) ? -1 : real(fd, b, n, o); }
int fsync(int fd) { REAL(int, "fsync", int); return due(fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); return due(fd) ? -1 : real(fd); }
size_t fwrite(const void *b, size_t s, size_t n, FILE *f) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *); return due(fileno(f)) ? 0 : real(b, s, n, f); }
