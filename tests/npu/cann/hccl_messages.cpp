/* Messages from one rank to another, alone and in groups. */
#include <stdlib.h>
#include <string.h>

#include "hccl_comm.h"

struct Message {
  Comm *comm;
  bool sends;
  uint32_t peer;
  char *bytes;
  uint64_t nbytes, done;
  bool finished;
};

/* Calls between HcclGroupStart and the HcclGroupEnd of the same depth run together at the last end, in each thread
   by itself (hcomm src/framework/group/hccl_group.cc). */
static thread_local int depth;
static thread_local Message *waiting;
static thread_local uint32_t count;

/* Move as much as possible now; false when the two ranks disagree on the length. */
static bool advance(Message *message) {
  Comm *comm = message->comm;
  Channel *channel = message->sends ? comm_channel(comm, comm->rank, message->peer)
                                    : comm_channel(comm, message->peer, comm->rank);
  bool full = __atomic_load_n(&channel->full, __ATOMIC_SEQ_CST);
  if (message->sends) {
    if (full) return true;
    /* Sending ends when the other rank has it all: "HcclSend and HcclRecv are synchronous", HcclSend.md. */
    if (message->done == message->nbytes) {
      message->finished = true;
      return true;
    }
    uint64_t rest = message->nbytes - message->done;
    channel->nbytes = rest < MESSAGE ? rest : MESSAGE;
    channel->total = message->nbytes;
    memcpy(channel->bytes, message->bytes + message->done, channel->nbytes);
  } else {
    if (!full) return true;
    if (channel->total != message->nbytes) {
      account_complain(HCCL_E_PARA, "rank %u of %s receives %llu bytes, rank %u sends %llu", comm->rank, comm->name,
                       (unsigned long long)message->nbytes, message->peer, (unsigned long long)channel->total);
      return false;
    }
    memcpy(message->bytes + message->done, channel->bytes, channel->nbytes);
  }
  message->done += channel->nbytes;
  message->finished = !message->sends && message->done == message->nbytes;
  __atomic_store_n(&channel->full, message->sends, __ATOMIC_SEQ_CST);
  comm_changed(comm);
  return true;
}

/* Exchange messages with all peers at once; those to one rank, or from one, in their order. */
static HcclResult run(Comm *comm, Message *messages, uint32_t number) {
  uint32_t peers = 0;
  bool agreed = true;
  for (uint32_t i = 0; i < number; i++) peers |= messages[i].comm == comm ? 1u << messages[i].peer : 0;
  HcclResult failure = comm_wait(comm, peers, comm->timeout, [&] {
    uint32_t busy[2] = {0, 0};
    for (uint32_t i = 0; i < number && agreed; i++) {
      Message *message = &messages[i];
      uint32_t peer = 1u << message->peer;
      if (message->comm != comm || message->finished || busy[message->sends] & peer) continue;
      agreed = advance(message);
      if (!message->finished) busy[message->sends] |= peer;
    }
    return !agreed || !(busy[0] | busy[1]);
  });
  return agreed ? failure : comm_break(comm, HCCL_E_PARA);
}

static HcclResult run_all(Message *messages, uint32_t number) {
  for (uint32_t i = 0; i < number; i++) {
    if (messages[i].finished) continue;
    HcclResult failure = run(messages[i].comm, messages, number);
    if (failure != HCCL_SUCCESS) return failure;
  }
  return HCCL_SUCCESS;
}

static HcclResult begin(const char *name, bool sends, void *bytes, uint64_t number, HcclDataType type, uint32_t peer,
                        Comm *comm, Message *message) {
  uint64_t nbytes = number * type_size(type);
  if (!type_size(type)) return HCCL_E_NOT_SUPPORT;
  HcclResult failure = comm_begin(comm, name, nbytes);
  if (failure != HCCL_SUCCESS) return failure;
  if (peer >= comm->size) return HCCL_E_PARA;
  *message = {comm, sends, peer, (char *)bytes, nbytes, 0, nbytes == 0};
  return HCCL_SUCCESS;
}

static HcclResult start(const char *name, bool sends, void *bytes, uint64_t number, HcclDataType type, uint32_t peer,
                        HcclComm comm) {
  Message message;
  HcclResult failure = begin(name, sends, bytes, number, type, peer, (Comm *)comm, &message);
  if (failure != HCCL_SUCCESS) return failure;
  if (!depth) return run_all(&message, 1);
  waiting = (Message *)realloc(waiting, (count + 1) * sizeof *waiting);
  waiting[count++] = message;
  return HCCL_SUCCESS;
}

extern "C" {

HcclResult HcclSend(void *bytes, uint64_t number, HcclDataType type, uint32_t peer, HcclComm comm, aclrtStream) {
  return start(__func__, true, bytes, number, type, peer, comm);
}

HcclResult HcclRecv(void *bytes, uint64_t number, HcclDataType type, uint32_t peer, HcclComm comm, aclrtStream) {
  return start(__func__, false, bytes, number, type, peer, comm);
}

HcclResult HcclBatchSendRecv(HcclSendRecvItem *items, uint32_t number, HcclComm comm, aclrtStream) {
  Message *messages = (Message *)calloc(number, sizeof *messages);
  HcclResult failure = HCCL_SUCCESS;
  for (uint32_t i = 0; i < number && failure == HCCL_SUCCESS; i++)
    failure = begin(__func__, items[i].sendRecvType == HCCL_SEND, items[i].buf, items[i].count, items[i].dataType,
                    items[i].remoteRank, (Comm *)comm, &messages[i]);
  if (failure == HCCL_SUCCESS) failure = run_all(messages, number);
  free(messages);
  return failure;
}

HcclResult HcclGroupStart() {
  depth++;
  return HCCL_SUCCESS;
}

/* Collectives of a group have run already: they do not depend on each other (HcclGroupStart.md in hcomm). */
HcclResult HcclGroupEnd() {
  if (!depth) return (HcclResult)account_complain(HCCL_E_PARA, "HcclGroupEnd without HcclGroupStart");
  if (--depth) return HCCL_SUCCESS;
  HcclResult failure = run_all(waiting, count);
  free(waiting);
  waiting = NULL;
  count = 0;
  return failure;
}
}
