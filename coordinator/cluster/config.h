/* config.h - a cluster as a YAML file describes it.
 *
 * USE     tr_cluster_config *c = NULL;
 *         st = tr_cluster_config_load("cluster-configs/local-3.yaml", &c);
 *         ... c->host[0].name ...
 *         tr_cluster_config_free(&c);
 *
 * Every key is in cluster-configs/README.md.  An unknown key, a key given twice, a value out of
 * range and a file that contradicts itself are errors: what loads can be launched.
 *
 * MEMORY  All strings belong to the configuration.
 * FAILS   TR_E_IO      the file can't be read
 *         TR_E_CONFIG  one line: file, line where known, key, what is allowed
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_CONFIG_H
#define TR_COORDINATOR_CLUSTER_CONFIG_H

#include "base/bytes.h"
#include "base/status.h"
#include "compute/pool.h"
#include "proto/limits.h"

enum {
    TR_CLUSTER_MAX_FILE = 256 * 1024,
    TR_CLUSTER_MAX_HOSTS = 1024,
    TR_CLUSTER_MAX_ARGUMENTS = 64,
    TR_CLUSTER_MAX_THREADS = TR_POOL_MAX_THREADS,
    TR_CLUSTER_MAX_NAME = 255,
    TR_CLUSTER_MAX_EAGER = 64 << 20, /* bytes of one message that Open MPI buffers */
    TR_CLUSTER_MAX_PATH = 4095,
};

typedef enum { TR_CLUSTER_PLACE_EVEN, TR_CLUSTER_PLACE_ROTATE } tr_cluster_placement;
typedef enum { TR_CLUSTER_TRANSPORT_AUTO, TR_CLUSTER_TRANSPORT_MPI } tr_cluster_transport;

typedef struct {
    const char *name;  /* as mpirun and ssh know it */
    uint32_t slots;    /* workers that run there */
    uint32_t threads;  /* of each worker there; 0: the worker decides */
    const char *model; /* path there, NULL: the same as everywhere */
} tr_cluster_host;

typedef struct {
    const char *model; /* NULL: given on the command line */

    tr_cluster_host *host;
    size_t n_hosts;
    size_t coordinator; /* index of its host */
    uint32_t n_workers; /* 1..TR_MAX_WORKERS, at most the sum of slots */

    uint32_t coordinator_threads; /* 0: not given */
    const char *listen;           /* HOST[:PORT], or NULL */

    uint32_t placement;        /* tr_cluster_placement */
    uint32_t *experts;         /* [n_workers] experts of each layer, or NULL */
    const char *worker_binary; /* NULL: beside troupe */
    uint32_t transport;        /* tr_cluster_transport */

    uint32_t join_ms, suspect_ms, silence_ms, share_ms; /* 0: not given */
    uint32_t worker_memory_mib, coordinator_memory_mib; /* for experts; 0: not given */

    const char *mpirun;    /* NULL: as found in PATH */
    const char *network;   /* interfaces or CIDRs for Open MPI, or NULL */
    uint32_t eager_bytes;  /* messages up to this go to other hosts at once; 0: Open MPI's */
    const char **argument; /* extra ones for mpirun */
    size_t n_arguments;

    void *yaml; /* what owns the strings */
} tr_cluster_config;

tr_status tr_cluster_config_load(const char *path, tr_cluster_config **out);

/* The same for a text in memory; name stands for the file in error lines. */
tr_status tr_cluster_config_parse(const char *name, tr_bytes text, tr_cluster_config **out);

/* Clears *c; does nothing when it is NULL. */
void tr_cluster_config_free(tr_cluster_config **c);

/* The index-th key of the schema, such as "hosts.name"; false past the last.  For the test that
 * every key is documented. */
bool tr_cluster_config_key(size_t index, char *out, size_t size);

#endif
