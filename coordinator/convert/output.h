/* output.h - a file that is written from beginning to end, and goes on after an interruption.
 *
 * It grows as PATH.part, with PATH.part.sums beside it: every now and then a line that says how
 * far the file is sound, and the checksum of what was added.  Who begins again with the same
 * identity gets back what is sound: every byte is read and held against its checksum, and what is
 * behind the first wrong or missing one is cut off.  A part of another identity, or none of ours,
 * is refused, and with overwrite begun anew.  The file gets its name when it is complete and on the
 * disk (base/new_file.h).
 *
 * USE     tr_output *o;
 *         st = tr_output_open("out.gguf", &(tr_output_content){ identity, total }, overwrite,
 *                             is_shown, &o);
 *         uint64_t at = tr_output_size(o);         sound bytes: go on behind them
 *         st = tr_output_write(o, bytes);  ...
 *         st = tr_output_finish(&o);               in place
 *         tr_output_close(&o);                     instead: what is there stays for the next time
 *
 * FAILS   TR_E_IO      can't be written or read; exists; another process is writing it
 *         TR_E_MEMORY
 *         TR_E_INTERRUPTED
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_OUTPUT_H
#define TR_COORDINATOR_CONVERT_OUTPUT_H

#include "base/bytes.h"
#include "base/status.h"

typedef struct tr_output tr_output;

typedef struct {
    uint64_t identity;
    uint64_t total; /* bytes of the complete file */
} tr_output_content;

/* With is_shown a bar is drawn while what is there is checked. */
tr_status tr_output_open(const char *path, const tr_output_content *content, bool overwrite,
                         bool is_shown, tr_output **out);
uint64_t tr_output_size(const tr_output *o);

/* Numbers of the caller's, 0 at first, that belong to the bytes written so far: they are noted with
 * each checksum, and who goes on finds those of the bytes that are sound.  Change them before the
 * write that they count. */
enum { TR_OUTPUT_FIGURES = 2 };
double *tr_output_figures(tr_output *o);

tr_status tr_output_write(tr_output *o, tr_bytes bytes);
tr_status tr_output_finish(tr_output **o);
void tr_output_close(tr_output **o);

#endif
