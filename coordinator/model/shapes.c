/* shapes.c - the table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/shapes.h"

#include <string.h>

static const tr_model_shape shapes[] = {
    { "tiny", "qwen3moe", "a few megabytes, for tests", 2, 256, 4, 2, 64, 8, 2, 256, 512, 512,
      10000.0f, 1e-6f },
    { "small-1g", "qwen3moe", "1.2 GB in Q8_0, for tests of memory", 10, 1024, 16, 4, 64, 48, 4,
      768, 8192, 4096, 1000000.0f, 1e-6f },
    { "olmoe-1b-7b", "olmoe", "OLMoE 1B-7B", 16, 2048, 16, 16, 128, 64, 8, 1024, 50304, 4096,
      10000.0f, 1e-5f },
    { "qwen3-30b-a3b", "qwen3moe", "Qwen3 30B-A3B", 48, 2048, 32, 4, 128, 128, 8, 768, 151936,
      40960, 1000000.0f, 1e-6f },
    { "qwen3-235b-a22b", "qwen3moe", "Qwen3 235B-A22B", 94, 4096, 64, 4, 128, 128, 8, 1536, 151936,
      40960, 1000000.0f, 1e-6f },
};

const tr_model_shape *tr_model_shape_at(size_t i)
{
    return i < sizeof shapes / sizeof shapes[0] ? &shapes[i] : NULL;
}

const tr_model_shape *tr_model_shape_find(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}
