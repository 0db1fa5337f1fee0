/* replay.c - feed a fuzzer its corpus, and mutations of it, without a fuzzing engine.
 *
 *   fuzz_NAME DIRECTORY        TR_TEST_SEED repeats a run, TR_FUZZ_ROUNDS bounds it (5000)
 *
 * What libFuzzer does for minutes by hand, every test run does for a moment: a change that breaks
 * a parser on inputs like the known ones is seen at once.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "base/rng.h"

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_FILES = 256, MAX_SIZE = 1 << 20, ROUNDS = 5000, SECONDS = 5 };

typedef struct {
    uint8_t *data;
    size_t size;
} input;

static input read_input(const char *directory, const char *name)
{
    char path[4096];
    input in = { malloc(MAX_SIZE), 0 };

    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "re");
    if (!f || !in.data) {
        fprintf(stderr, "%s: can't be read\n", path);
        exit(1);
    }
    in.size = fread(in.data, 1, MAX_SIZE, f);
    fclose(f);
    return in;
}

static size_t read_corpus(const char *directory, input *list)
{
    DIR *d = opendir(directory);
    size_t n = 0;

    if (!d) {
        fprintf(stderr, "%s: no such corpus\n", directory);
        exit(1);
    }
    for (struct dirent *e = readdir(d); e && n < MAX_FILES; e = readdir(d))
        if (e->d_name[0] != '.')
            list[n++] = read_input(directory, e->d_name);
    closedir(d);
    return n;
}

static uint64_t draw(uint64_t seed, uint64_t *counter, uint64_t below)
{
    return tr_rng_u64(seed, 0, (*counter)++) % below;
}

/* One small change: a byte, a bit, a length field, a cut, a doubled piece. */
static void mutate(uint64_t seed, uint64_t *counter, uint8_t *data, size_t *size)
{
    if (*size == 0)
        return;
    size_t at = draw(seed, counter, *size);
    uint64_t value = draw(seed, counter, UINT64_MAX);
    static const uint64_t edges[] = { 0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, UINT64_MAX };

    switch (draw(seed, counter, 6)) {
    case 0:
        data[at] = (uint8_t)value;
        break;
    case 1:
        data[at] ^= (uint8_t)(1u << (value % 8));
        break;
    case 2:
        if (*size - at >= 8)
            memcpy(data + at, &edges[value % 8], 8);
        break;
    case 3:
        if (*size - at >= 4)
            memcpy(data + at, &edges[value % 8], 4);
        break;
    case 4:
        *size = at;
        break;
    default: {
        size_t n = *size - at < 64 ? *size - at : 64;
        if (*size + n <= MAX_SIZE) {
            memmove(data + at + n, data + at, *size - at);
            *size += n;
        }
    }
    }
}

/* In memory of just that size, so that the sanitizer sees a read behind the end. */
static void run_exact(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);

    if (!exact)
        return;
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    static input corpus[MAX_FILES];
    const char *given = getenv("TR_TEST_SEED");
    const char *rounds_given = getenv("TR_FUZZ_ROUNDS");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    uint64_t counter = 0;
    long rounds = rounds_given ? strtol(rounds_given, NULL, 10) : ROUNDS;
    time_t end = time(NULL) + SECONDS;
    uint8_t *copy = malloc(MAX_SIZE);

    if (argc != 2 || !copy) {
        fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", argv[0]);
        return 2;
    }
    tr_log_init("fuzz", TR_LOG_ERROR + 1); /* refusals are what is expected */
    size_t n = read_corpus(argv[1], corpus);
    if (n == 0) {
        fprintf(stderr, "%s: the corpus is empty\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < n; i++)
        run_exact(corpus[i].data, corpus[i].size);
    printf("%zu files; mutating with seed %llu (set TR_TEST_SEED to repeat)\n", n,
           (unsigned long long)seed);
    fflush(stdout);
    long done = 0;
    while (done < rounds && time(NULL) < end) {
        const input *from = &corpus[draw(seed, &counter, n)];
        size_t size = from->size;
        memcpy(copy, from->data, size);
        for (uint64_t k = 1 + draw(seed, &counter, 4); k > 0; k--)
            mutate(seed, &counter, copy, &size);
        run_exact(copy, size);
        done++;
    }
    printf("%ld mutations\n", done);
    for (size_t i = 0; i < n; i++)
        free(corpus[i].data);
    free(copy);
    return 0;
}
