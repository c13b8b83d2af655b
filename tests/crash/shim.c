/* Faults below Python: counts the calls of the C library that change something under a folder, and makes one fail.
 *
 * Loaded by LD_PRELOAD, asleep until `crash_begin`. What libc's own stdio writes does not pass here, since it calls
 * itself; the files that it writes to are opened by Python, whose opening counts.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL, MIDDLE, FAIL, FULL };

static int awake, kind, fault_errno, log_descriptor;
static long number, count;
static int is_full;
static char root[PATH_MAX];
static size_t root_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* `error` is the errno to fail with; `forever` makes the disk stay full. `at` 0 only counts. */
void crash_begin(const char *folder, int what, int error, int forever, long at, int log) {
    snprintf(root, sizeof root, "%s/", folder);
    root_length = strlen(root);
    kind = what == FAIL && forever ? FULL : what;
    fault_errno = error;
    number = at;
    log_descriptor = log;
    count = 0;
    is_full = 0;
    awake = 1;
}

static int place(char *into, int folder, const char *path) {
    char link[64], base[PATH_MAX];
    if (path == NULL) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t size = syscall(SYS_readlink, link, into, PATH_MAX - 1);
        if (size < 0) return 0;
        into[size] = 0;
        char *gone = strstr(into, " (deleted)");
        if (gone) *gone = 0;
    } else if (path[0] == '/') {
        snprintf(into, PATH_MAX, "%s", path);
    } else {
        if (folder == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t size = syscall(SYS_readlink, link, base, PATH_MAX - 1);
        if (size < 0) return 0;
        base[size] = 0;
        if (snprintf(into, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    size_t length = strlen(into);
    while (length > 1 && into[length - 1] == '/') into[--length] = 0;
    return strncmp(into, root, root_length) == 0 || (strncmp(into, root, root_length - 1) == 0 && into[root_length - 1] == 0);
}

static int is_there(const char *path) {
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static int is_growing(const char *operation) {
    static const char *growing[] = {"create", "write", "mkdir", "link", "symlink", "copy"};
    for (size_t i = 0; i < sizeof growing / sizeof *growing; i++)
        if (strcmp(operation, growing[i]) == 0) return 1;
    return 0;
}

/* 0: do it; 1: fail, errno is set; 2: do a half, then call `after_half` with what it answered. */
static int decide(const char *operation, const char *path, int divisible) {
    int answer = 0;
    pthread_mutex_lock(&lock);
    const char *inside = strlen(path) > root_length ? path + root_length : ".";
    if (is_full) {
        if (is_growing(operation)) {
            dprintf(log_descriptor, "0\t%s\t%s\n", operation, inside);
            errno = ENOSPC;
            answer = 1;
        }
    } else {
        count++;
        char line[PATH_MAX + 64];
        int size = snprintf(line, sizeof line, "%ld\t%s\t%s\n", count, operation, inside);
        syscall(SYS_write, log_descriptor, line, size);
        if (count == number) {
            if (kind == FULL) is_full = 1;
            if (divisible && (kind == MIDDLE || kind == FULL)) {
                answer = 2;
            } else {
                if (kind == KILL || kind == MIDDLE) syscall(SYS_exit_group, 137);
                errno = fault_errno;
                answer = 1;
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

/* A disk that fills up takes a half, and says so. */
static long after_half(long done) {
    if (kind == MIDDLE) syscall(SYS_exit_group, 137);
    return done;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ASK(operation, folder, path, missing) \
    char at[PATH_MAX]; \
    if (awake && place(at, folder, path) && !(missing) && decide(operation, at, 0)) return -1

static int opened(int folder, const char *path, int flags) {
    char at[PATH_MAX];
    if (!awake || !(flags & (O_WRONLY | O_RDWR | O_CREAT)) || !place(at, folder, path)) return 0;
#ifdef O_TMPFILE
    if ((flags & O_TMPFILE) == O_TMPFILE) return decide("create", at, 0);
#endif
    return decide(is_there(at) ? "open" : "create", at, 0);
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE REAL(open); return opened(AT_FDCWD, path, flags) ? -1 : real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE REAL(open64); return opened(AT_FDCWD, path, flags) ? -1 : real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE REAL(openat); return opened(folder, path, flags) ? -1 : real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE REAL(openat64); return opened(folder, path, flags) ? -1 : real(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { REAL(creat); return opened(AT_FDCWD, path, O_CREAT | O_WRONLY) ? -1 : real(path, mode); }

#define WRITES(operation, descriptor, half) \
    char at[PATH_MAX]; \
    if (awake && place(at, descriptor, NULL)) { \
        int answer = decide(operation, at, 1); \
        if (answer == 1) return -1; \
        if (answer == 2) return after_half(half); \
    }

ssize_t write(int descriptor, const void *data, size_t size) { REAL(write); WRITES("write", descriptor, real(descriptor, data, size / 2)) return real(descriptor, data, size); }
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t where) { REAL(pwrite); WRITES("write", descriptor, real(descriptor, data, size / 2, where)) return real(descriptor, data, size, where); }
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t where) { REAL(pwrite64); WRITES("write", descriptor, real(descriptor, data, size / 2, where)) return real(descriptor, data, size, where); }
ssize_t writev(int descriptor, const struct iovec *parts, int number_of) { REAL(writev); WRITES("write", descriptor, real(descriptor, parts, number_of / 2)) return real(descriptor, parts, number_of); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) { REAL(copy_file_range); WRITES("copy", out, real(in, from, out, to, size / 2, flags)) return real(in, from, out, to, size, flags); }
ssize_t sendfile(int out, int in, off_t *from, size_t size) {
    static ssize_t (*real)(int, int, off_t *, size_t);
    if (!real) real = (ssize_t (*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile");
    WRITES("copy", out, real(out, in, from, size / 2)) return real(out, in, from, size);
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t size) {
    static ssize_t (*real)(int, int, off64_t *, size_t);
    if (!real) real = (ssize_t (*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64");
    WRITES("copy", out, real(out, in, from, size / 2)) return real(out, in, from, size);
}

int fsync(int descriptor) { REAL(fsync); ASK("fsync", descriptor, NULL, 0); return real(descriptor); }
int fdatasync(int descriptor) { REAL(fdatasync); ASK("fsync", descriptor, NULL, 0); return real(descriptor); }
int ftruncate(int descriptor, off_t size) { REAL(ftruncate); ASK("truncate", descriptor, NULL, 0); return real(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { REAL(ftruncate64); ASK("truncate", descriptor, NULL, 0); return real(descriptor, size); }
int truncate(const char *path, off_t size) { REAL(truncate); ASK("truncate", AT_FDCWD, path, 0); return real(path, size); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); ASK("truncate", AT_FDCWD, path, 0); return real(path, size); }
int fallocate(int descriptor, int mode, off_t from, off_t size) { REAL(fallocate); ASK("write", descriptor, NULL, 0); return real(descriptor, mode, from, size); }

int rename(const char *from, const char *to) { REAL(rename); ASK("rename", AT_FDCWD, to, !is_there(from)); return real(from, to); }
int renameat(int first, const char *from, int second, const char *to) { REAL(renameat); ASK("rename", second, to, 0); return real(first, from, second, to); }
int renameat2(int first, const char *from, int second, const char *to, unsigned flags) { REAL(renameat2); ASK("rename", second, to, 0); return real(first, from, second, to, flags); }
int link(const char *from, const char *to) { REAL(link); ASK("link", AT_FDCWD, to, !is_there(from)); return real(from, to); }
int linkat(int first, const char *from, int second, const char *to, int flags) { REAL(linkat); ASK("link", second, to, 0); return real(first, from, second, to, flags); }
int symlink(const char *from, const char *to) { REAL(symlink); ASK("symlink", AT_FDCWD, to, 0); return real(from, to); }
int symlinkat(const char *from, int folder, const char *to) { REAL(symlinkat); ASK("symlink", folder, to, 0); return real(from, folder, to); }
int unlink(const char *path) { REAL(unlink); ASK("unlink", AT_FDCWD, path, !is_there(at)); return real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); ASK(flags & AT_REMOVEDIR ? "rmdir" : "unlink", folder, path, !is_there(at)); return real(folder, path, flags); }
int remove(const char *path) { REAL(remove); ASK("unlink", AT_FDCWD, path, !is_there(at)); return real(path); }
int rmdir(const char *path) { REAL(rmdir); ASK("rmdir", AT_FDCWD, path, !is_there(at)); return real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); ASK("mkdir", AT_FDCWD, path, is_there(at)); return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); ASK("mkdir", folder, path, is_there(at)); return real(folder, path, mode); }
