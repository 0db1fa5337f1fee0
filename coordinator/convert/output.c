/* output.c - append, sum, note down; and the way back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/output.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    PIECE = 1 << 20,     /* bytes of a read */
    MIN_CHUNK = 1 << 20, /* bytes that share a checksum: a 64th of the file within these */
    MAX_CHUNK = 32 << 20,
};

struct tr_output {
    char *path, *part, *sums;
    int fd;      /* of the part */
    FILE *notes; /* of the sums */
    uint64_t identity, total;
    uint64_t size;  /* bytes written */
    uint64_t noted; /* of them, those that have a checksum */
    uint64_t chunk;
    bool is_broken;    /* something could not be written */
    XXH3_state_t *sum; /* of the bytes behind noted */
};

static tr_status io_failed(const char *path, const char *what)
{
    return tr_fail(TR_E_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* ---- what is there -------------------------------------------------------------------------- */

static tr_status sum_up(tr_output *o, uint64_t end, uint8_t *piece, tr_progress *bar, uint64_t *sum)
{
    XXH3_64bits_reset_withSeed(o->sum, o->identity);
    for (uint64_t at = o->noted; at < end;) {
        size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
        ssize_t got = pread(o->fd, piece, n, (off_t)at);
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return io_failed(o->part, "read");
        if (got == 0)
            break; /* it ends too early, so the sum is wrong */
        XXH3_64bits_update(o->sum, piece, (size_t)got);
        at += (uint64_t)got;
        tr_progress_show(bar, at);
    }
    *sum = XXH3_64bits_digest(o->sum);
    return TR_OK;
}

/* Takes over the bytes of one line after the other while they are right. *kept is the place in the
 * sums behind the last of these. */
static tr_status check_lines(tr_output *o, uint8_t *piece, tr_progress *bar, long *kept)
{
    char line[64];
    tr_status st = TR_OK;

    while (st == TR_OK && fgets(line, sizeof line, o->notes)) {
        uint64_t end, said, is = 0;
        if (sscanf(line, "%" SCNx64 " %" SCNx64, &end, &said) != 2 || !strchr(line, '\n') ||
            end <= o->noted || end > o->total)
            break;
        st = sum_up(o, end, piece, bar, &is);
        if (st != TR_OK || is != said)
            break;
        o->noted = o->size = end;
        *kept = ftell(o->notes);
    }
    return st;
}

static bool is_ours(tr_output *o)
{
    char line[64];
    uint64_t identity, total;

    return fgets(line, sizeof line, o->notes) && strchr(line, '\n') &&
           sscanf(line, "troupe %" SCNx64 " %" SCNx64, &identity, &total) == 2 &&
           identity == o->identity && total == o->total;
}

static tr_status take_over(tr_output *o, bool is_shown)
{
    uint8_t *piece = malloc(PIECE);
    tr_progress bar;
    long kept = 0;
    tr_status st = piece ? TR_OK : tr_fail(TR_E_MEMORY, "%s: no memory", o->part);

    tr_progress_begin(&bar, "checking", o->total, is_shown);
    if (st == TR_OK && is_ours(o)) {
        kept = ftell(o->notes);
        st = check_lines(o, piece, &bar, &kept);
    }
    tr_progress_end(&bar);
    free(piece);
    if (st != TR_OK)
        return st;
    XXH3_64bits_reset_withSeed(o->sum, o->identity);
    if (ftruncate(o->fd, (off_t)o->size) != 0)
        return io_failed(o->part, "can't be cut");
    if (fseek(o->notes, kept, SEEK_SET) != 0 || ftruncate(fileno(o->notes), kept) != 0)
        return io_failed(o->sums, "can't be cut");
    if (kept == 0 &&
        (fprintf(o->notes, "troupe %" PRIx64 " %" PRIx64 "\n", o->identity, o->total) < 0 ||
         fflush(o->notes) != 0))
        return io_failed(o->sums, "write");
    return TR_OK;
}

/* ---- open ----------------------------------------------------------------------------------- */

/* The rename at the end would replace a device such as /dev/null, too. */
static tr_status refuse_special(const char *path)
{
    struct stat s;

    if (stat(path, &s) != 0 || S_ISREG(s.st_mode))
        return TR_OK;
    return tr_fail(TR_E_IO, "%s: exists and is no regular file; give another name", path);
}

static tr_status name_all(tr_output *o, const char *path)
{
    o->path = strdup(path);
    if (asprintf(&o->part, "%s.part", path) < 0)
        o->part = NULL;
    if (asprintf(&o->sums, "%s.part.sums", path) < 0)
        o->sums = NULL;
    o->sum = XXH3_createState();
    return o->path && o->part && o->sums && o->sum ? TR_OK
                                                   : tr_fail(TR_E_MEMORY, "%s: no memory", path);
}

static tr_status open_files(tr_output *o)
{
    o->fd = open(o->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (o->fd < 0)
        return io_failed(o->part, "can't be written");
    if (flock(o->fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? tr_fail(TR_E_IO, "%s: another process is writing it", o->part)
                                    : io_failed(o->part, "can't be locked");
    int fd = open(o->sums, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    o->notes = fd >= 0 ? fdopen(fd, "r+") : NULL;
    if (o->notes)
        return TR_OK;
    tr_status st = io_failed(o->sums, "can't be written");
    if (fd >= 0)
        close(fd);
    return st;
}

tr_status tr_output_open(const char *path, uint64_t identity, uint64_t total, bool is_shown,
                         tr_output **out)
{
    tr_status st = refuse_special(path);
    if (st != TR_OK)
        return st;
    tr_output *o = calloc(1, sizeof *o);
    if (!o)
        return tr_fail(TR_E_MEMORY, "%s: no memory", path);
    *o = (tr_output){ .fd = -1, .identity = identity, .total = total, .chunk = total / 64 };
    o->chunk = o->chunk < MIN_CHUNK ? MIN_CHUNK : o->chunk > MAX_CHUNK ? MAX_CHUNK : o->chunk;
    st = name_all(o, path);
    if (st == TR_OK)
        st = open_files(o);
    if (st == TR_OK)
        st = take_over(o, is_shown);
    if (st != TR_OK) {
        tr_output_close(&o);
        return st;
    }
    *out = o;
    return TR_OK;
}

/* ---- write ---------------------------------------------------------------------------------- */

uint64_t tr_output_size(const tr_output *o)
{
    return o->size;
}

static tr_status broken(tr_output *o, const char *path)
{
    o->is_broken = true;
    return io_failed(path, "write");
}

/* What the system loses after that shows in the sum. */
static tr_status note(tr_output *o)
{
    uint64_t sum = XXH3_64bits_digest(o->sum);

    if (fprintf(o->notes, "%" PRIx64 " %" PRIx64 "\n", o->size, sum) < 0 || fflush(o->notes) != 0)
        return broken(o, o->sums);
    XXH3_64bits_reset_withSeed(o->sum, o->identity);
    o->noted = o->size;
    return TR_OK;
}

tr_status tr_output_write(tr_output *o, tr_bytes bytes)
{
    TR_CHECK(bytes.size <= o->total - o->size);
    while (bytes.size > 0) {
        ssize_t n = pwrite(o->fd, bytes.data, bytes.size, (off_t)o->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return broken(o, o->part);
        XXH3_64bits_update(o->sum, bytes.data, (size_t)n);
        bytes.data += n;
        bytes.size -= (size_t)n;
        o->size += (uint64_t)n;
    }
    return o->size - o->noted >= o->chunk ? note(o) : TR_OK;
}

tr_status tr_output_finish(tr_output **output)
{
    tr_output *o = *output;
    tr_status st = TR_OK;

    TR_CHECK(o->size == o->total);
    if (fsync(o->fd) != 0)
        st = io_failed(o->part, "write");
    else if (rename(o->part, o->path) != 0)
        st = io_failed(o->part, "rename");
    else
        unlink(o->sums);
    o->is_broken = true; /* no note more */
    tr_output_close(output);
    return st;
}

void tr_output_close(tr_output **output)
{
    tr_output *o = *output;

    if (!o)
        return;
    if (o->notes && o->size > o->noted && !o->is_broken)
        note(o);
    if (o->notes)
        fclose(o->notes);
    if (o->fd >= 0)
        close(o->fd);
    XXH3_freeState(o->sum);
    free(o->path);
    free(o->part);
    free(o->sums);
    free(o);
    *output = NULL;
}
