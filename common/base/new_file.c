/* new_file.c - look, lock, look again.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static tr_status io_failed(const char *path, const char *what)
{
    return tr_fail(TR_E_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* The rename at the end would replace a device such as /dev/null, too. */
tr_status tr_new_file_check(const char *path, bool overwrite)
{
    struct stat s;

    if (stat(path, &s) != 0)
        return TR_OK;
    if (!S_ISREG(s.st_mode))
        return tr_fail(TR_E_IO, "%s: exists and is no regular file; give another name", path);
    if (overwrite || s.st_size == 0)
        return TR_OK;
    return tr_fail(TR_E_IO, "%s: exists; give another name, or --overwrite to replace it", path);
}

tr_status tr_new_file_refuse(const char *name, const char *what)
{
    return tr_fail(TR_E_IO, "%s: %s: remove it, give another name, or --overwrite to replace it",
                   name, what);
}

/* Where files can't be locked, they are not. */
static tr_status lock(const tr_new_file *f)
{
    struct stat mine, there;

    if (fstat(f->fd, &mine) != 0)
        return io_failed(f->part, "can't be written");
    if (!S_ISREG(mine.st_mode))
        return tr_fail(TR_E_IO, "%s: exists and is no regular file; give another name", f->part);
    /* Who wrote it may have placed it before the lock was had. */
    if ((flock(f->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) ||
        stat(f->part, &there) != 0 || there.st_ino != mine.st_ino || there.st_dev != mine.st_dev)
        return tr_fail(TR_E_IO, "%s: another process is writing it", f->part);
    return TR_OK;
}

tr_status tr_new_file_open_part(const char *path, bool overwrite, tr_new_file *out)
{
    tr_new_file f = { .fd = -1 };
    struct stat s;

    tr_status st = tr_new_file_check(path, overwrite);
    if (st != TR_OK)
        return st;
    f.path = strdup(path);
    if (asprintf(&f.part, "%s.part", path) < 0)
        f.part = NULL;
    if (!f.path || !f.part) {
        st = tr_fail(TR_E_MEMORY, "%s: no memory", path);
    } else {
        f.fd = open(f.part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
        st = f.fd >= 0 ? lock(&f) : io_failed(f.part, "can't be written");
    }
    if (st == TR_OK && fstat(f.fd, &s) != 0)
        st = io_failed(f.part, "can't be written");
    if (st != TR_OK) {
        tr_new_file_close(&f, TR_NEW_FILE_KEEP);
        return st;
    }
    f.had = (uint64_t)s.st_size;
    *out = f;
    return TR_OK;
}

tr_status tr_new_file_open(const char *path, bool overwrite, tr_new_file *out)
{
    tr_new_file f;
    tr_status st = tr_new_file_open_part(path, overwrite, &f);

    if (st != TR_OK)
        return st;
    if (f.had > 0 && !overwrite)
        st = tr_new_file_refuse(f.part, "was left by a run that was killed, or is another file");
    else if (f.had > 0 && ftruncate(f.fd, 0) != 0)
        st = io_failed(f.part, "can't be cut");
    if (st != TR_OK) {
        tr_new_file_close(&f, TR_NEW_FILE_KEEP);
        return st;
    }
    *out = f;
    return TR_OK;
}

/* The lock stays with f when the stream is closed. */
tr_status tr_new_file_stream(const tr_new_file *f, FILE **out)
{
    int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);

    *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (*out)
        return TR_OK;
    tr_status st = io_failed(f->part, "can't be written");
    if (fd >= 0)
        close(fd);
    return st;
}

tr_status tr_new_file_place(tr_new_file *f)
{
    if (rename(f->part, f->path) != 0)
        return io_failed(f->part, "rename");
    free(f->part);
    f->part = NULL;
    return TR_OK;
}

/* Removed before it is closed: nobody else can have locked it until then. */
void tr_new_file_close(tr_new_file *f, tr_new_file_end end)
{
    if (end == TR_NEW_FILE_REMOVE && f->part)
        unlink(f->part);
    if (f->path && f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f->part);
    *f = (tr_new_file){ .fd = -1 };
}
