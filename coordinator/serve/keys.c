/* keys.c - SHA-256 of GnuTLS, which the server's TLS needs anyway.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/keys.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

enum { HASH = 32, MAX_KEYS = 4096, MAX_HEADER = 4096, SECRET = 24 };

struct tr_keys {
    size_t n;
    uint8_t hash[][HASH];
};

static bool hash_of(const char *key, uint8_t *out)
{
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, key, strlen(key), out) == 0;
}

static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool hash_read(const char *text, uint8_t *out)
{
    for (size_t i = 0; i < HASH; i++) {
        int high = digit(text[2 * i]);
        int low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(16 * high + low);
    }
    return text[2 * HASH] == '\0' || isspace((unsigned char)text[2 * HASH]);
}

static tr_status check_mode(FILE *f, const char *path)
{
    struct stat s;

    if (fstat(fileno(f), &s) != 0)
        return tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    if (s.st_mode & (S_IWGRP | S_IWOTH))
        return tr_fail(TR_E_CONFIG, "%s: others may write it: chmod 600", path);
    return TR_OK;
}

static tr_status read_lines(FILE *f, const char *path, tr_keys *k)
{
    char *line = NULL;
    size_t room = 0;
    tr_status st = TR_OK;

    for (size_t number = 1; st == TR_OK && getline(&line, &room, f) >= 0; number++) {
        const char *text = line + strspn(line, " \t\r\n");
        if (*text == '\0' || *text == '#')
            continue;
        if (k->n == MAX_KEYS)
            st = tr_fail(TR_E_CONFIG, "%s: more than %d keys", path, MAX_KEYS);
        else if (!hash_read(text, k->hash[k->n]))
            st = tr_fail(TR_E_CONFIG,
                         "%s:%zu: no SHA-256 in hexadecimal: make keys with troupe serve --new-key",
                         path, number);
        else
            k->n++;
    }
    free(line);
    return st;
}

tr_status tr_keys_load(const char *path, tr_keys **out)
{
    FILE *f = fopen(path, "re");

    if (!f)
        return tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    tr_keys *k = calloc(1, sizeof *k + (size_t)MAX_KEYS * HASH);
    tr_status st = k ? check_mode(f, path) : tr_fail(TR_E_MEMORY, "keys: no memory");
    if (st == TR_OK)
        st = read_lines(f, path, k);
    if (st == TR_OK && k->n == 0)
        st = tr_fail(TR_E_CONFIG, "%s: no key in it: make one with troupe serve --new-key %s", path,
                     path);
    fclose(f);
    if (st != TR_OK) {
        free(k);
        return st;
    }
    *out = k;
    return TR_OK;
}

void tr_keys_free(tr_keys **k)
{
    free(*k);
    *k = NULL;
}

bool tr_keys_allow(const tr_keys *k, const char *authorization)
{
    static const char scheme[] = "Bearer ";
    uint8_t hash[HASH];
    unsigned found = 0;

    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0 ||
        strlen(authorization) > MAX_HEADER || !hash_of(authorization + sizeof scheme - 1, hash))
        return false;
    for (size_t i = 0; i < k->n; i++) {
        unsigned different = 0;
        for (size_t b = 0; b < HASH; b++)
            different |= (unsigned)(hash[b] ^ k->hash[i][b]);
        found |= different == 0;
    }
    return found != 0;
}

/* Whether what is appended to the file would go on with its last line. */
static bool is_amid_line(int fd)
{
    struct stat s;
    char last = '\n';

    if (fstat(fd, &s) != 0 || s.st_size == 0)
        return false;
    return pread(fd, &last, 1, s.st_size - 1) == 1 && last != '\n';
}

tr_status tr_keys_make(const char *path, char *out)
{
    uint8_t secret[SECRET], hash[HASH];
    char text[2 * HASH + 3] = "\n";
    int n = snprintf(out, TR_KEY_TEXT, "troupe-");

    if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        return tr_fail(TR_E_SYSTEM, "no random key to be had");
    for (size_t i = 0; i < SECRET; i++)
        n += snprintf(out + n, (size_t)(TR_KEY_TEXT - n), "%02x", secret[i]);
    if (!hash_of(out, hash))
        return tr_fail(TR_E_SYSTEM, "SHA-256 failed");
    for (size_t i = 0; i < HASH; i++)
        snprintf(text + 1 + 2 * i, 3, "%02x", hash[i]);
    text[1 + 2 * HASH] = '\n';
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    size_t skip = is_amid_line(fd) ? 0 : 1;
    ssize_t size = (ssize_t)(2 * HASH + 2 - skip);
    ssize_t written = write(fd, text + skip, (size_t)size);
    if (close(fd) != 0 || written != size)
        return tr_fail(TR_E_IO, "%s: can't be written: %s", path, strerror(errno));
    return TR_OK;
}
