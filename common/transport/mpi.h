/* mpi.h - the transport between ranks that mpirun started.
 *
 * Rank 0 is the coordinator.  Only non-blocking point-to-point calls after start-up, every
 * wait with a deadline of its own, since a dead rank often gives no error.
 *
 * USE     if (tr_mpi_launched(&n_ranks)) ...      are we under mpirun?  (no MPI call)
 *         st = tr_mpi_open(max_size, &t);         MPI_Init_thread inside; once a process
 *         tr_transport_close(&t);                 finalizes, or gives up after 2 s
 *         fflush(NULL); _exit(code);              always: MPI may still be running
 *
 * FAILS   A peer is reported lost where MPI says so (Open MPI 5 with ULFM) or when it sends an
 *         empty or oversized message.  Open MPI 4 says nothing: deadlines find out.
 *         Once a peer is dropped or lost, close does not finalize: that would wait for it.
 *         Several processes may share a core, so waits spin for microseconds only.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_MPI_H
#define TR_TRANSPORT_MPI_H

#include "transport/transport.h"

/* True if the environment says that an MPI launcher started this process; *n_ranks is then the
 * job's size and *local_ranks how many of them run on this host (n_ranks if nobody says).
 * Open MPI: OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_LOCAL_SIZE; MPICH: PMI_SIZE, MPI_LOCALNRANKS;
 * srun with PMIx: PMIX_RANK and SLURM_STEP_NUM_TASKS, SLURM_STEP_TASKS_PER_NODE. */
bool tr_mpi_launched(uint32_t *n_ranks, uint32_t *local_ranks);

/* max_size: the largest message that will be sent or accepted (below 2 GiB); a larger one from a
 * peer ends that peer (TR_E_PEER_LOST).  TR_E_USAGE if no launcher started this process. */
tr_status tr_mpi_open(size_t max_size, tr_transport **out);

/* Once a peer is lost MPI_Finalize can hang: after this call close leaves MPI as it is and the
 * process must end with _exit. */
void tr_mpi_abandon(tr_transport *t);

#endif
