/* invite_file.c - written under another name, then renamed: who looks for the file finds it whole.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/invite_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool path_of(const char *dir, uint32_t worker, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/worker-%u.invite", dir, worker) < PATH_MAX;
}

static bool write_all(int fd, tr_bytes bytes)
{
    for (size_t at = 0; at < bytes.size;) {
        ssize_t n = write(fd, bytes.data + at, bytes.size - at);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

tr_status tr_invite_file_write(const char *dir, uint32_t worker, tr_bytes frame)
{
    char path[PATH_MAX];
    char unfinished[PATH_MAX];

    if (!path_of(dir, worker, path) ||
        snprintf(unfinished, sizeof unfinished, "%s/.inviteXXXXXX", dir) >= PATH_MAX)
        return tr_fail(TR_E_IO, "invitation: the path %.80s... is too long", dir);
    int fd = mkstemp(unfinished); /* mode 0600 */
    if (fd < 0)
        return tr_fail(TR_E_IO, "invitation in %.256s: %s", dir, strerror(errno));
    bool ok = write_all(fd, frame);
    ok = close(fd) == 0 && ok;
    ok = ok && rename(unfinished, path) == 0;
    if (ok)
        return TR_OK;
    tr_status st = tr_fail(TR_E_IO, "invitation %.256s: %s", path, strerror(errno));
    unlink(unfinished);
    return st;
}

void tr_invite_file_remove(const char *dir, uint32_t worker)
{
    char path[PATH_MAX];

    if (path_of(dir, worker, path))
        unlink(path);
}
