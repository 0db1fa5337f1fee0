/* new_file.c - look, lock, look again, and let the system look when it gets its name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/new_file.h"

#include "base/log.h"

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

static const char irregular[] = "exists and is no regular file; give another name";

/* The rename at the end would replace a device such as /dev/null, too.  NULL: nothing is. */
static const char *in_the_way(const char *path, bool overwrite)
{
    struct stat s;

    if (lstat(path, &s) != 0)
        return NULL;
    if (!S_ISREG(s.st_mode))
        return irregular;
    return overwrite || s.st_size == 0 ? NULL
                                       : "exists; give another name, or --overwrite to replace it";
}

tr_status tr_new_file_check(const char *path, bool overwrite)
{
    const char *what = in_the_way(path, overwrite);

    if (path[0] == '\0')
        return tr_fail(TR_E_USAGE, "the name of the file to write is empty");
    return what ? tr_fail(TR_E_IO, "%s: %s", path, what) : TR_OK;
}

tr_status tr_new_file_open_failed(const char *path)
{
    if (errno == ELOOP) /* the last part of its name is a link */
        return tr_fail(TR_E_IO, "%s: %s", path, irregular);
    return io_failed(path, "can't be written");
}

tr_status tr_new_file_refuse(const char *name, const char *what)
{
    return tr_fail(TR_E_IO, "%s: %s: remove it, give another name, or --overwrite to replace it",
                   name, what);
}

static tr_status lock(const tr_new_file *f)
{
    struct stat mine, there;
    int why = flock(f->fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;

    if (why != 0 && why != EWOULDBLOCK) /* some network file systems */
        tr_log(TR_LOG_WARN, "%s: can't be locked (%s): see to it that nobody else writes it",
               f->part, strerror(why));
    /* Who wrote it may have placed it before the lock was had. */
    if (why == EWOULDBLOCK || fstat(f->fd, &mine) != 0 || stat(f->part, &there) != 0 ||
        there.st_ino != mine.st_ino || there.st_dev != mine.st_dev)
        return tr_fail(TR_E_IO, "%s: another process is writing it", f->part);
    return TR_OK;
}

static tr_status open_and_lock(tr_new_file *f, int flags)
{
    struct stat s;

    f->fd = open(f->part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | flags, 0666);
    if (f->fd < 0)
        return tr_new_file_open_failed(f->part);
    if (fstat(f->fd, &s) != 0)
        return io_failed(f->part, "can't be written");
    if (!S_ISREG(s.st_mode))
        return tr_fail(TR_E_IO, "%s: %s", f->part, irregular);
    return lock(f);
}

static tr_status look_again(tr_new_file *f)
{
    struct stat s;

    if (fstat(f->fd, &s) != 0)
        return io_failed(f->part, "can't be written");
    f->had = (uint64_t)s.st_size;
    tr_status st = tr_new_file_check(f->path, f->overwrite);
    if (st != TR_OK && f->had == 0) /* made here just now */
        unlink(f->part);
    return st;
}

tr_status tr_new_file_open_part(const char *path, bool overwrite, tr_new_file *out)
{
    tr_new_file f = { .fd = -1, .overwrite = overwrite };

    tr_status st = tr_new_file_check(path, overwrite);
    if (st != TR_OK)
        return st;
    f.path = strdup(path);
    if (asprintf(&f.part, "%s.part", path) < 0)
        f.part = NULL;
    st = f.path && f.part ? open_and_lock(&f, 0) : tr_fail(TR_E_MEMORY, "%s: no memory", path);
    if (st == TR_OK)
        st = look_again(&f);
    if (st != TR_OK) {
        tr_new_file_close(&f, TR_NEW_FILE_KEEP);
        return st;
    }
    *out = f;
    return TR_OK;
}

/* The lock of the old one is held until the new one has one. */
tr_status tr_new_file_renew(tr_new_file *f)
{
    int old = f->fd;

    if (unlink(f->part) != 0)
        return io_failed(f->part, "can't be removed");
    f->had = 0;
    tr_status st = open_and_lock(f, O_EXCL);
    close(old);
    return st;
}

tr_status tr_new_file_open(const char *path, bool overwrite, tr_new_file *out)
{
    tr_new_file f;
    tr_status st = tr_new_file_open_part(path, overwrite, &f);

    if (st != TR_OK)
        return st;
    if (f.had > 0)
        st = overwrite ? tr_new_file_renew(&f)
                       : tr_new_file_refuse(
                             f.part, "was left by a run that was killed, or is another file");
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

/* Not every file system can look and rename at once, and an empty file is nothing to keep. */
static tr_status take_name(const tr_new_file *f)
{
    if (!f->overwrite && renameat2(AT_FDCWD, f->part, AT_FDCWD, f->path, RENAME_NOREPLACE) == 0)
        return TR_OK;
    if (in_the_way(f->path, f->overwrite))
        return tr_fail(TR_E_IO, "%s: came while %s was written, which is complete and stays",
                       f->path, f->part);
    return rename(f->part, f->path) == 0 ? TR_OK : io_failed(f->part, "rename");
}

tr_status tr_new_file_place(tr_new_file *f)
{
    tr_status st = take_name(f);

    free(f->part);
    f->part = NULL;
    return st;
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
