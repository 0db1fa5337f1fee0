/* mpi.h - the transport between ranks that mpirun started.
 *
 * Ranks of the coordinator's host exchange messages through shared memory (shm.h), the others by
 * MPI; where memory can't be shared, or the coordinator's environment has TROUPE_SHARED_MEMORY=0,
 * all use MPI.
 *
 * Rank 0 is the coordinator.  Only non-blocking point-to-point calls after start-up, every
 * wait with a deadline of its own, since a dead rank often gives no error.
 *
 * USE     if (tr_mpi_launched(&n_ranks)) ...      are we under mpirun?  (no MPI call)
 *         st = tr_mpi_open(max_size, wait, end, &t);   MPI_Init_thread inside; once a process
 *         tr_transport_close(&t);                 finalizes, or gives up after 2 s
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_MPI_H
#define TR_TRANSPORT_MPI_H

#include "transport/transport.h"

/* True if the environment says that an MPI launcher started this process; *n_ranks is then the
 * job's size and *local_ranks how many of them run on this host. */
bool tr_mpi_launched(uint32_t *n_ranks, uint32_t *local_ranks);

/* max_size: the largest message that will be sent or accepted; a larger one from a peer is
 * counted and ends that peer (TR_E_PEER_LOST).
 *
 * MPI_Init waits for every rank of the job, for ever if one ended before, and can't be called
 * off.  If it takes longer than init_timeout a line says so and give_up is called from another
 * thread: it must end the process. */
tr_status tr_mpi_open(size_t max_size, tr_time init_timeout, void (*give_up)(void),
                      tr_transport **out);

/* Once a peer is lost MPI_Finalize can hang: after this call close leaves MPI as it is and the
 * process must end with _exit. */
void tr_mpi_abandon(tr_transport *t);

#endif
