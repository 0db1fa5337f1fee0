/* new_file.h - a file that gets its name when it is complete, and takes nobody else's place.
 *
 * It grows as PATH.part.  What exists is not replaced unless that was asked for: neither a file at
 * PATH, nor one at PATH.part, which may be another's or hours of work.  An empty file holds
 * nothing and counts as none; what is no regular file, nor a link to one, is never replaced.
 *
 * USE     tr_new_file f;
 *         st = tr_new_file_open("out.gguf", overwrite, &f);     empty, locked
 *         ... write to f.fd, or to a stream of it ...
 *         st = tr_new_file_place(&f);                           under its name
 *         tr_new_file_close(&f, TR_NEW_FILE_REMOVE);            else: nothing is left
 *
 * FAILS   TR_E_IO      exists, can't be written, another process is writing it
 *         TR_E_USAGE   an empty path
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_NEW_FILE_H
#define TR_BASE_NEW_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
    char *path, *part; /* NULL: not opened */
    int fd;            /* of the part */
    bool overwrite;
    uint64_t had; /* bytes that the part had when it was opened */
} tr_new_file;

typedef enum { TR_NEW_FILE_KEEP, TR_NEW_FILE_REMOVE } tr_new_file_end;

/* Whether a file may be put at path: for who wants to know before long work. */
tr_status tr_new_file_check(const char *path, bool overwrite);

tr_status tr_new_file_open(const char *path, bool overwrite, tr_new_file *out);

/* The same with what is in the part left there, for who can tell whether it is its own. */
tr_status tr_new_file_open_part(const char *path, bool overwrite, tr_new_file *out);

/* Another part in the place of the one that is there, empty and locked; who reads the old one still
 * has it. */
tr_status tr_new_file_renew(tr_new_file *f);

/* Fails with the line for errno, of an open with O_NOFOLLOW. */
tr_status tr_new_file_open_failed(const char *path);

/* Fails with the line for a file beside the path, mostly the part, that is to stay: what it is. */
tr_status tr_new_file_refuse(const char *name, const char *what);

/* A stream of its own, which the caller closes. */
tr_status tr_new_file_stream(const tr_new_file *f, FILE **out);

/* The part gets its name; f is still to be closed.  If that fails, as when a file has come there
 * meanwhile, the part stays. */
tr_status tr_new_file_place(tr_new_file *f);

/* Closes and frees; with REMOVE a part that was not placed is removed.  Safe to repeat. */
void tr_new_file_close(tr_new_file *f, tr_new_file_end end);

#endif
