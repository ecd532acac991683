/* Collectives. Ranks show each other a slot of data at a time; reductions go in order of the ranks, so that all
   ranks compute the same bits. */
#include <string.h>

#include "hccl_comm.h"

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Let the ranks whose data is needed show it, and use it, until there is no more of it. */
template <class Show, class Use>
static HcclResult in_slots(Comm *comm, const Call &call, uint64_t total, uint64_t limit, Show show, Use use) {
  for (uint64_t done = 0; done < total;) {
    uint64_t nbytes = smaller(limit, total - done);
    show(comm_mine(comm), done, nbytes);
    HcclResult failure = comm_exchange(comm, &call);
    if (failure != HCCL_SUCCESS) return failure;
    use(done, nbytes);
    done += nbytes;
  }
  return HCCL_SUCCESS;
}

/* Begin a collective on `count` elements; nbytes is 0 when there is nothing to do. */
static HcclResult begin(Comm *comm, const char *name, uint64_t count, HcclDataType type, uint64_t *nbytes) {
  if (!type_size(type)) return HCCL_E_NOT_SUPPORT;
  *nbytes = count * type_size(type);
  return comm_begin(comm, name, *nbytes);
}

/* A part of a slot for each rank, a multiple of every element's size. */
static uint64_t share(const Comm *comm) { return SLOT / comm->size / 8 * 8; }

static HcclResult all_reduce(const char *name, HcclCMDType command, void *send, void *receive, uint64_t count,
                             HcclDataType type, HcclReduceOp op, int root, Comm *comm) {
  uint64_t total;
  if (!reducible(type, op)) return HCCL_E_NOT_SUPPORT;
  HcclResult failure = begin(comm, name, count, type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  Call call = {command, type, op, root, count};
  return in_slots(
      comm, call, total, SLOT,
      [&](char *slot, uint64_t at, uint64_t nbytes) { memcpy(slot, (char *)send + at, nbytes); },
      [&](uint64_t at, uint64_t nbytes) {
        const char *inputs[RANKS];
        for (uint32_t rank = 0; rank < comm->size; rank++) inputs[rank] = comm_theirs(comm, rank);
        if (root < 0 || root == (int)comm->rank)
          reduce(type, op, (char *)receive + at, inputs, comm->size, nbytes / type_size(type));
      });
}

/* The same bytes are wanted by each rank: one slot of every sender. */
static HcclResult gather(Comm *comm, const Call &call, const void *send, void *receive, uint64_t total, bool sends) {
  return in_slots(
      comm, call, total, SLOT,
      [&](char *slot, uint64_t at, uint64_t nbytes) {
        if (sends) memcpy(slot, (const char *)send + at, nbytes);
      },
      [&](uint64_t at, uint64_t nbytes) {
        if (call.command == HCCL_CMD_BROADCAST) {
          if (!sends) memcpy((char *)receive + at, comm_theirs(comm, (uint32_t)call.root), nbytes);
          return;
        }
        for (uint32_t rank = 0; rank < comm->size; rank++)
          memcpy((char *)receive + rank * total + at, comm_theirs(comm, rank), nbytes);
      });
}

/* What one rank sends to each rank and receives from each, in bytes. */
struct Parts {
  const char *send[RANKS];
  char *receive[RANKS];
  uint64_t sent[RANKS], received[RANKS];
};

static HcclResult all_to_all(Comm *comm, HcclCMDType command, HcclDataType type, const Parts &parts) {
  Call call = {command, type, 0, -1, 0};
  uint64_t most = 0;
  memcpy(comm_mine(comm), parts.sent, sizeof parts.sent);
  HcclResult failure = comm_exchange(comm, &call);
  if (failure != HCCL_SUCCESS) return failure;
  for (uint32_t rank = 0; rank < comm->size; rank++) {
    const uint64_t *sent = (const uint64_t *)comm_theirs(comm, rank);
    for (uint32_t to = 0; to < comm->size; to++)
      if (sent[to] > most) most = sent[to];
    if (sent[comm->rank] == parts.received[rank]) continue;
    account_complain(HCCL_E_PARA, "rank %u of %s receives %llu bytes, rank %u sends %llu", comm->rank, comm->name,
                     (unsigned long long)parts.received[rank], rank, (unsigned long long)sent[comm->rank]);
    return comm_break(comm, HCCL_E_PARA);
  }
  uint64_t limit = share(comm);
  auto within = [](uint64_t total, uint64_t at, uint64_t nbytes) { return at < total ? smaller(nbytes, total - at) : 0; };
  return in_slots(
      comm, call, most, limit,
      [&](char *slot, uint64_t at, uint64_t nbytes) {
        for (uint32_t rank = 0; rank < comm->size; rank++)
          memcpy(slot + rank * limit, parts.send[rank] + at, within(parts.sent[rank], at, nbytes));
      },
      [&](uint64_t at, uint64_t nbytes) {
        for (uint32_t rank = 0; rank < comm->size; rank++)
          memcpy(parts.receive[rank] + at, comm_theirs(comm, rank) + comm->rank * limit,
                 within(parts.received[rank], at, nbytes));
      });
}

extern "C" {

HcclResult HcclAllReduce(void *send, void *receive, uint64_t count, HcclDataType type, HcclReduceOp op, HcclComm comm,
                         aclrtStream) {
  return all_reduce(__func__, HCCL_CMD_ALLREDUCE, send, receive, count, type, op, -1, (Comm *)comm);
}

HcclResult HcclReduce(void *send, void *receive, uint64_t count, HcclDataType type, HcclReduceOp op, uint32_t root,
                      HcclComm comm, aclrtStream) {
  return all_reduce(__func__, HCCL_CMD_REDUCE, send, receive, count, type, op, (int)root, (Comm *)comm);
}

HcclResult HcclReduceScatter(void *send, void *receive, uint64_t count, HcclDataType type, HcclReduceOp op,
                             HcclComm handle, aclrtStream) {
  Comm *comm = (Comm *)handle;
  uint64_t total;
  if (!reducible(type, op)) return HCCL_E_NOT_SUPPORT;
  HcclResult failure = begin(comm, __func__, count, type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  Call call = {HCCL_CMD_REDUCE_SCATTER, type, op, -1, count};
  uint64_t limit = share(comm);
  return in_slots(
      comm, call, total, limit,
      [&](char *slot, uint64_t at, uint64_t nbytes) {
        for (uint32_t rank = 0; rank < comm->size; rank++)
          memcpy(slot + rank * limit, (char *)send + rank * total + at, nbytes);
      },
      [&](uint64_t at, uint64_t nbytes) {
        const char *inputs[RANKS];
        for (uint32_t rank = 0; rank < comm->size; rank++)
          inputs[rank] = comm_theirs(comm, rank) + comm->rank * limit;
        reduce(type, op, (char *)receive + at, inputs, comm->size, nbytes / type_size(type));
      });
}

HcclResult HcclBroadcast(void *buffer, uint64_t count, HcclDataType type, uint32_t root, HcclComm handle,
                         aclrtStream) {
  Comm *comm = (Comm *)handle;
  uint64_t total;
  HcclResult failure = begin(comm, __func__, count, type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  if (root >= comm->size) return HCCL_E_PARA;
  Call call = {HCCL_CMD_BROADCAST, type, 0, (int)root, count};
  return gather(comm, call, buffer, buffer, total, comm->rank == root);
}

HcclResult HcclAllGather(void *send, void *receive, uint64_t count, HcclDataType type, HcclComm handle, aclrtStream) {
  Comm *comm = (Comm *)handle;
  uint64_t total;
  HcclResult failure = begin(comm, __func__, count, type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  Call call = {HCCL_CMD_ALLGATHER, type, 0, -1, count};
  return gather(comm, call, send, receive, total, true);
}

HcclResult HcclScatter(void *send, void *receive, uint64_t count, HcclDataType type, uint32_t root, HcclComm handle,
                       aclrtStream) {
  Comm *comm = (Comm *)handle;
  uint64_t total;
  HcclResult failure = begin(comm, __func__, count, type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  if (root >= comm->size) return HCCL_E_PARA;
  Call call = {HCCL_CMD_SCATTER, type, 0, (int)root, count};
  uint64_t limit = share(comm);
  return in_slots(
      comm, call, total, limit,
      [&](char *slot, uint64_t at, uint64_t nbytes) {
        for (uint32_t rank = 0; rank < comm->size && comm->rank == root; rank++)
          memcpy(slot + rank * limit, (char *)send + rank * total + at, nbytes);
      },
      [&](uint64_t at, uint64_t nbytes) {
        memcpy((char *)receive + at, comm_theirs(comm, root) + comm->rank * limit, nbytes);
      });
}

HcclResult HcclAlltoAll(const void *send, uint64_t send_count, HcclDataType send_type, const void *receive,
                        uint64_t receive_count, HcclDataType receive_type, HcclComm handle, aclrtStream) {
  Comm *comm = (Comm *)handle;
  uint64_t total;
  HcclResult failure = begin(comm, __func__, send_count, send_type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  Parts parts = {};
  for (uint32_t rank = 0; rank < comm->size; rank++) {
    parts.send[rank] = (const char *)send + rank * total;
    parts.receive[rank] = (char *)receive + rank * total;
    parts.sent[rank] = total;
    parts.received[rank] = receive_count * type_size(receive_type);
  }
  return all_to_all(comm, HCCL_CMD_ALLTOALL, send_type, parts);
}

/* Counts and displacements are arrays of uint64_t (HcclAlltoAllV.md). */
HcclResult HcclAlltoAllV(const void *send, const void *send_counts, const void *send_begins, HcclDataType send_type,
                         const void *receive, const void *receive_counts, const void *receive_begins,
                         HcclDataType receive_type, HcclComm handle, aclrtStream) {
  Comm *comm = (Comm *)handle;
  uint64_t total, count = 0;
  for (uint32_t rank = 0; comm && rank < comm->size; rank++) count += ((const uint64_t *)send_counts)[rank];
  HcclResult failure = begin(comm, __func__, count, send_type, &total);
  if (failure != HCCL_SUCCESS) return failure;
  Parts parts = {};
  for (uint32_t rank = 0; rank < comm->size; rank++) {
    parts.send[rank] = (const char *)send + ((const uint64_t *)send_begins)[rank] * type_size(send_type);
    parts.receive[rank] = (char *)receive + ((const uint64_t *)receive_begins)[rank] * type_size(receive_type);
    parts.sent[rank] = ((const uint64_t *)send_counts)[rank] * type_size(send_type);
    parts.received[rank] = ((const uint64_t *)receive_counts)[rank] * type_size(receive_type);
  }
  return all_to_all(comm, HCCL_CMD_ALLTOALLV, send_type, parts);
}
}
