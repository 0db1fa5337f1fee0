/* safetensors.h - the header of a safetensors file, believing nothing in it.
 *
 * USE     tr_safetensors *s;
 *         st = tr_safetensors_open("model.safetensors", &s);
 *         const tr_st_tensor *t = tr_safetensors_at(s, i);        i < tr_safetensors_n(s)
 *         st = tr_safetensors_read(s, t, first_byte, n, buffer);
 *         tr_safetensors_close(&s);
 *
 * A file is the length of the header (8 bytes, little-endian), the header, and the data.  The
 * header is JSON: names with their type, shape, and first and last byte in the data.
 *
 * CHECKED at open: the length against the file and TR_SAFETENSORS_MAX_HEADER; names unique and
 * short enough; known types; at most TR_ST_MAX_DIMS dimensions, whose product is the number of
 * bytes; and that the tensors cover the data without gap or overlap, so that a file that was cut is
 * noticed.
 *
 * STATE   Immutable after open.
 * THREAD  Any number of readers.
 * FAILS   TR_E_IO           can't open or read
 *         TR_E_FORMAT       malformed, with what and where
 *         TR_E_UNSUPPORTED  a type that is not known here
 *
 * Format: https://github.com/huggingface/safetensors#format
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_SAFETENSORS_H
#define TR_COORDINATOR_CONVERT_SAFETENSORS_H

#include "base/bytes.h"
#include "base/status.h"

enum {
    TR_ST_MAX_DIMS = 4,
    TR_ST_MAX_NAME = 256,                  /* bytes, the final zero among them */
    TR_SAFETENSORS_MAX_HEADER = 100 << 20, /* bytes */
};

typedef enum {
    TR_ST_F32,
    TR_ST_F16,
    TR_ST_BF16,
    TR_ST_F8_E4M3,
    TR_ST_U8,
    TR_ST_OTHER, /* of known size, but not converted */
} tr_st_type;

typedef struct {
    char name[TR_ST_MAX_NAME];
    tr_st_type type;
    const char *type_name; /* as in the file */
    uint32_t n_dims;
    uint64_t dim[TR_ST_MAX_DIMS]; /* the outermost first; unused ones are 1 */
    uint64_t offset, size;        /* bytes, from the start of the file */
} tr_st_tensor;

typedef struct tr_safetensors tr_safetensors;

tr_status tr_safetensors_open(const char *path, tr_safetensors **out);
void tr_safetensors_close(tr_safetensors **s);

/* Parse a header from memory, as if it were the start (length included) of a file of file_size
 * bytes.  tr_safetensors_read then fails. */
tr_status tr_safetensors_parse(const char *path, tr_bytes start, uint64_t file_size,
                               tr_safetensors **out);

const char *tr_safetensors_path(const tr_safetensors *s);
size_t tr_safetensors_n(const tr_safetensors *s);
const tr_st_tensor *tr_safetensors_at(const tr_safetensors *s, size_t i);

/* A number that changes when the file does, as far as its header, size and date tell. */
uint64_t tr_safetensors_identity(const tr_safetensors *s);

/* n bytes of a tensor, from its first_byte on. */
tr_status tr_safetensors_read(const tr_safetensors *s, const tr_st_tensor *t, uint64_t first_byte,
                              size_t n, void *to);

#endif
