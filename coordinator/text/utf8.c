/* utf8.c - one function that looks at the first character; the rest is built on it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/utf8.h"
#include "base/check.h"

/* Length by lead byte, and the range of the second byte, which is what excludes overlong
 * forms, surrogates and values above U+10FFFF (Unicode standard, table 3-7). */
static size_t lead_length(uint8_t lead, uint8_t *second_min, uint8_t *second_max)
{
    *second_min = 0x80;
    *second_max = 0xbf;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2)
        return 0;
    if (lead < 0xe0)
        return 2;
    if (lead < 0xf0) {
        if (lead == 0xe0)
            *second_min = 0xa0;
        if (lead == 0xed)
            *second_max = 0x9f;
        return 3;
    }
    if (lead == 0xf0)
        *second_min = 0x90;
    if (lead == 0xf4)
        *second_max = 0x8f;
    return lead < 0xf5 ? 4 : 0;
}

tr_utf8_kind tr_utf8_first(tr_bytes bytes, size_t *size)
{
    uint8_t min, max;
    size_t length = lead_length(bytes.data[0], &min, &max);

    *size = 1;
    if (length == 0)
        return TR_UTF8_INVALID;
    for (size_t i = 1; i < length; i++) {
        if (i == bytes.size)
            return TR_UTF8_PARTIAL;
        if (bytes.data[i] < min || bytes.data[i] > max)
            return TR_UTF8_INVALID;
        min = 0x80;
        max = 0xbf;
        *size = i + 1;
    }
    return TR_UTF8_CHAR;
}

uint32_t tr_utf8_code(const uint8_t *bytes, size_t size)
{
    static const uint8_t lead_mask[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };

    TR_CHECK(size >= 1);
    TR_CHECK(size <= 4);
    uint32_t code = bytes[0] & lead_mask[size];
    for (size_t i = 1; i < size; i++)
        code = code << 6 | (bytes[i] & 0x3fu);
    return code;
}

size_t tr_utf8_encode(uint32_t code, uint8_t out[4])
{
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

    TR_CHECK(code <= 0x10ffff);
    for (size_t i = size; i-- > 1; code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
    out[0] = (uint8_t)(lead[size] | code);
    return size;
}

bool tr_utf8_valid(tr_bytes text, size_t *bad)
{
    size_t pos = 0;

    while (pos < text.size) {
        size_t size = 1;
        if (text.data[pos] >= 0x80) {
            tr_bytes rest = { text.data + pos, text.size - pos };
            if (tr_utf8_first(rest, &size) != TR_UTF8_CHAR) {
                *bad = pos;
                return false;
            }
        }
        pos += size;
    }
    return true;
}

static size_t put(uint8_t *out, const uint8_t *bytes, size_t size)
{
    memcpy(out, bytes, size);
    return size;
}

static size_t put_replacement(uint8_t *out)
{
    return put(out, (const uint8_t *)"\xef\xbf\xbd", 3);
}

/* Filter what is in bytes; *used tells how much of it, the rest is an unfinished tail. */
static size_t filter(tr_bytes bytes, uint8_t *out, size_t *used)
{
    size_t n = 0, pos = 0;

    while (pos < bytes.size) {
        size_t size;
        tr_bytes rest = { bytes.data + pos, bytes.size - pos };
        tr_utf8_kind kind = tr_utf8_first(rest, &size);
        if (kind == TR_UTF8_PARTIAL)
            break;
        n += kind == TR_UTF8_CHAR ? put(out + n, rest.data, size) : put_replacement(out + n);
        pos += size;
    }
    *used = pos;
    return n;
}

size_t tr_utf8_feed(tr_utf8_filter *f, tr_bytes in, uint8_t *out)
{
    size_t n = 0, pos = 0, used;

    /* Bring the old tail to its end with one byte after the other, then the rest at once. */
    while (f->n_tail > 0 && pos < in.size) {
        uint8_t joined[4];
        size_t size = put(joined, f->tail, f->n_tail);
        joined[size++] = in.data[pos++];
        n += filter((tr_bytes){ joined, size }, out + n, &used);
        TR_CHECK(size - used <= sizeof f->tail);
        f->n_tail = (uint8_t)put(f->tail, joined + used, size - used);
    }
    if (f->n_tail > 0 || pos == in.size)
        return n;
    n += filter((tr_bytes){ in.data + pos, in.size - pos }, out + n, &used);
    f->n_tail = (uint8_t)put(f->tail, in.data + pos + used, in.size - pos - used);
    return n;
}

size_t tr_utf8_flush(tr_utf8_filter *f, uint8_t *out)
{
    bool has_tail = f->n_tail > 0;

    f->n_tail = 0;
    return has_tail ? put_replacement(out) : 0;
}
