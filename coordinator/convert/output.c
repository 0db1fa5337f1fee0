/* output.c - append, sum, note down; and the way back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/output.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/new_file.h"
#include "base/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    PIECE = 1 << 20,     /* bytes of a read */
    MIN_CHUNK = 1 << 20, /* bytes that share a checksum: a 64th of the file within these */
    MAX_CHUNK = 32 << 20,
    LINE = 128, /* of the sums; the longest has 84 bytes */
};

/* So the sums begin: in whatever version, and in this one, whose lines have figures. */
static const char mark[] = "troupe ";
static const char form[] = "troupe sums 2 ";

struct tr_output {
    tr_new_file place;
    char *sums;
    FILE *notes; /* of the sums */
    uint64_t identity, total;
    uint64_t size;  /* bytes written */
    uint64_t noted; /* of them, those that have a checksum */
    uint64_t chunk;
    double figure[TR_OUTPUT_FIGURES];
    bool is_broken;    /* something could not be written */
    XXH3_state_t *sum; /* of the bytes behind noted */
};

static tr_status io_failed(const char *path, const char *what)
{
    return tr_fail(TR_E_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* ---- what is there -------------------------------------------------------------------------- */

static uint64_t with_figures(uint64_t sum, const double *figure)
{
    return XXH3_64bits_withSeed(figure, TR_OUTPUT_FIGURES * sizeof *figure, sum);
}

/* Of the bytes up to `end`. */
static tr_status sum_up(tr_output *o, uint64_t end, uint8_t *piece, tr_progress *bar, uint64_t *sum)
{
    XXH3_64bits_reset_withSeed(o->sum, o->identity);
    for (uint64_t at = o->noted; at < end;) {
        size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
        ssize_t got = pread(o->place.fd, piece, n, (off_t)at);
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return io_failed(o->place.part, "read");
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
    char line[LINE];
    tr_status st = TR_OK;

    while (st == TR_OK && fgets(line, sizeof line, o->notes)) {
        uint64_t end, said, is = 0;
        double f[TR_OUTPUT_FIGURES];
        if (sscanf(line, "%" SCNx64 " %" SCNx64 " %la %la", &end, &said, &f[0], &f[1]) != 4 ||
            !strchr(line, '\n') || end <= o->noted || end > o->total)
            break;
        st = sum_up(o, end, piece, bar, &is);
        if (st != TR_OK || with_figures(is, f) != said)
            break;
        memcpy(o->figure, f, sizeof f);
        o->noted = o->size = end;
        *kept = ftell(o->notes);
    }
    return st;
}

/* line is the first of the sums. */
static bool is_ours(const tr_output *o, const char *line)
{
    uint64_t identity, total;

    return strchr(line, '\n') &&
           sscanf(line, "troupe sums 2 %" SCNx64 " %" SCNx64, &identity, &total) == 2 &&
           identity == o->identity && total == o->total;
}

/* The part and the sums begin at nothing. */
static tr_status begin_anew(tr_output *o)
{
    tr_status st = o->place.had > 0 ? tr_new_file_renew(&o->place) : TR_OK;

    if (st != TR_OK)
        return st;
    if (fseek(o->notes, 0, SEEK_SET) != 0 || ftruncate(fileno(o->notes), 0) != 0)
        return io_failed(o->sums, "can't be cut");
    if (fprintf(o->notes, "%s%" PRIx64 " %" PRIx64 "\n", form, o->identity, o->total) < 0 ||
        fflush(o->notes) != 0)
        return io_failed(o->sums, "write");
    return TR_OK;
}

static tr_status go_on(tr_output *o, bool is_shown)
{
    uint8_t *piece = malloc(PIECE);
    tr_progress bar;
    long kept = ftell(o->notes);

    if (!piece)
        return tr_fail(TR_E_MEMORY, "%s: no memory", o->place.part);
    tr_progress_begin(&bar, "checking", o->total, is_shown);
    tr_status st = check_lines(o, piece, &bar, &kept);
    tr_progress_end(&bar);
    free(piece);
    if (st != TR_OK)
        return st;
    if (ftruncate(o->place.fd, (off_t)o->size) != 0)
        return io_failed(o->place.part, "can't be cut");
    if (fseek(o->notes, kept, SEEK_SET) != 0 || ftruncate(fileno(o->notes), kept) != 0)
        return io_failed(o->sums, "can't be cut");
    return TR_OK;
}

static tr_status take_over(tr_output *o, bool overwrite, bool is_shown)
{
    char line[LINE] = "";
    bool has_line = fgets(line, sizeof line, o->notes) != NULL;
    bool is_marked = strncmp(line, mark, strlen(mark)) == 0;

    if (o->place.had > 0 && is_ours(o, line))
        return go_on(o, is_shown);
    if (o->place.had > 0 && !overwrite && is_marked && strncmp(line, form, strlen(form)) != 0)
        return tr_new_file_refuse(o->place.part, "was begun by another version of troupe");
    if (o->place.had > 0 && !overwrite)
        return tr_new_file_refuse(o->place.part,
                                  "is of another directory or other options, or another file");
    if (has_line && !is_marked && !overwrite)
        return tr_new_file_refuse(o->sums, "is another file");
    return begin_anew(o);
}

/* ---- open ----------------------------------------------------------------------------------- */

static tr_status open_notes(tr_output *o)
{
    struct stat s;
    int fd = open(o->sums, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);

    if (fd < 0)
        return tr_new_file_open_failed(o->sums);
    if (fstat(fd, &s) == 0 && !S_ISREG(s.st_mode)) {
        close(fd);
        return tr_fail(TR_E_IO, "%s: exists and is no regular file; give another name", o->sums);
    }
    o->notes = fdopen(fd, "r+");
    if (o->notes)
        return TR_OK;
    tr_status st = io_failed(o->sums, "can't be written");
    close(fd);
    return st;
}

static tr_status open_files(tr_output *o, const char *path, bool overwrite)
{
    o->sum = XXH3_createState();
    if (asprintf(&o->sums, "%s.part.sums", path) < 0)
        o->sums = NULL;
    if (!o->sum || !o->sums)
        return tr_fail(TR_E_MEMORY, "%s: no memory", path);
    tr_status st = tr_new_file_open_part(path, overwrite, &o->place);
    /* Without sums nothing can be said of a part, and none are made for one that stays. */
    if (st == TR_OK && o->place.had > 0 && !overwrite && access(o->sums, F_OK) != 0)
        st = tr_new_file_refuse(o->place.part, "has no checksums beside it");
    return st == TR_OK ? open_notes(o) : st;
}

tr_status tr_output_open(const char *path, const tr_output_content *content, bool overwrite,
                         bool is_shown, tr_output **out)
{
    uint64_t chunk = content->total / 64;
    tr_output *o = calloc(1, sizeof *o);

    if (!o)
        return tr_fail(TR_E_MEMORY, "%s: no memory", path);
    *o = (tr_output){ .identity = content->identity,
                      .total = content->total,
                      .chunk = chunk < MIN_CHUNK   ? MIN_CHUNK
                               : chunk > MAX_CHUNK ? MAX_CHUNK
                                                   : chunk };
    tr_status st = open_files(o, path, overwrite);
    if (st == TR_OK)
        st = take_over(o, overwrite, is_shown);
    if (st != TR_OK) {
        if (o->place.had == 0) /* what was made here just now */
            tr_new_file_close(&o->place, TR_NEW_FILE_REMOVE);
        tr_output_close(&o);
        return st;
    }
    XXH3_64bits_reset_withSeed(o->sum, o->identity); /* it had summed up what is there */
    *out = o;
    return TR_OK;
}

/* ---- write ---------------------------------------------------------------------------------- */

uint64_t tr_output_size(const tr_output *o)
{
    return o->size;
}

double *tr_output_figures(tr_output *o)
{
    return o->figure;
}

static tr_status broken(tr_output *o, const char *path)
{
    o->is_broken = true;
    return io_failed(path, "write");
}

/* What the system loses after that shows in the sum. */
static tr_status note(tr_output *o)
{
    uint64_t sum = with_figures(XXH3_64bits_digest(o->sum), o->figure);

    if (fprintf(o->notes, "%" PRIx64 " %" PRIx64 " %a %a\n", o->size, sum, o->figure[0],
                o->figure[1]) < 0 ||
        fflush(o->notes) != 0)
        return broken(o, o->sums);
    XXH3_64bits_reset_withSeed(o->sum, o->identity);
    o->noted = o->size;
    return TR_OK;
}

tr_status tr_output_write(tr_output *o, tr_bytes bytes)
{
    TR_CHECK(bytes.size <= o->total - o->size);
    while (bytes.size > 0) {
        ssize_t n = pwrite(o->place.fd, bytes.data, bytes.size, (off_t)o->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return broken(o, o->place.part);
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
    if (fsync(o->place.fd) != 0) {
        st = io_failed(o->place.part, "write");
    } else {
        unlink(o->sums); /* once the part is placed another process may have begun its own */
        st = tr_new_file_place(&o->place);
    }
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
    tr_new_file_close(&o->place, TR_NEW_FILE_KEEP);
    XXH3_freeState(o->sum);
    free(o->sums);
    free(o);
    *output = NULL;
}
