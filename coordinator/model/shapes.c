/* shapes.c - the table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/shapes.h"

#include <string.h>

static const tr_model_shape shapes[] = {
    { "tiny", "qwen3moe", "a few megabytes, for tests", 2, 256, 4, 2, 64, 8, 2, 256, 512, 512,
      10000.0f, 1e-6f, TR_QK_NORM_HEAD, false, 0 },
    { "small-1g", "qwen3moe", "1.2 GB in Q8_0, for tests of memory", 10, 1024, 16, 4, 64, 48, 4,
      768, 8192, 4096, 1000000.0f, 1e-6f, TR_QK_NORM_HEAD, false, 0 },
    { "olmoe-1b-7b", "olmoe", "OLMoE 1B-7B", 16, 2048, 16, 16, 128, 64, 8, 1024, 50304, 4096,
      10000.0f, 1e-5f, TR_QK_NORM_WHOLE, false, 0 },
    { "qwen3-30b-a3b", "qwen3moe", "Qwen3 30B-A3B", 48, 2048, 32, 4, 128, 128, 8, 768, 151936,
      40960, 1000000.0f, 1e-6f, TR_QK_NORM_HEAD, false, 0 },
    { "qwen3-235b-a22b", "qwen3moe", "Qwen3 235B-A22B", 94, 4096, 64, 4, 128, 128, 8, 1536, 151936,
      40960, 1000000.0f, 1e-6f, TR_QK_NORM_HEAD, false, 0 },
    { "qwen1.5-moe-a2.7b", "qwen2moe", "Qwen1.5 MoE A2.7B", 24, 2048, 16, 16, 128, 60, 4, 1408,
      151936, 8192, 1000000.0f, 1e-6f, TR_QK_NORM_NONE, true, 5632 },
    { "qwen2-57b-a14b", "qwen2moe", "Qwen2 57B-A14B", 28, 3584, 28, 4, 128, 64, 8, 2560, 151936,
      32768, 1000000.0f, 1e-6f, TR_QK_NORM_NONE, true, 20480 },
    { "granite-3-3b-a800m", "granitemoe", "Granite 3.0 3B-A800M", 32, 1536, 24, 8, 64, 40, 8, 512,
      49155, 4096, 10000.0f, 1e-6f, TR_QK_NORM_NONE, false, 0 },
    { "mixtral-8x7b", "llama", "Mixtral 8x7B", 32, 4096, 32, 8, 128, 8, 2, 14336, 32000, 32768,
      1000000.0f, 1e-5f, TR_QK_NORM_NONE, false, 0 },
    { "mixtral-8x22b", "llama", "Mixtral 8x22B", 56, 6144, 48, 8, 128, 8, 2, 16384, 32768, 65536,
      1000000.0f, 1e-5f, TR_QK_NORM_NONE, false, 0 },
    { "llama-3.1-8b", "llama", "Llama 3.1 8B", 32, 4096, 32, 8, 128, 0, 0, 14336, 128256, 131072,
      500000.0f, 1e-5f, TR_QK_NORM_NONE, false, 0 },
    { "gpt2", "gpt2", "GPT-2 (124 million)", 12, 768, 12, 12, 64, 0, 0, 3072, 50257, 1024, 0.0f,
      1e-5f, TR_QK_NORM_NONE, true, 0 },
    { "qwen3-8b", "qwen3", "Qwen3 8B", 36, 4096, 32, 8, 128, 0, 0, 12288, 151936, 40960, 1000000.0f,
      1e-6f, TR_QK_NORM_HEAD, false, 0 },
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
