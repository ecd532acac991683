/* A communicator of the stand-in for libhccl.

   Its ranks are processes of one machine, which share a file: ranks rendezvous in it, wait for each other in it
   and pass their data through it. Streams are synchronous, so that a call returns when this rank has its data.

   C++, because hccl_types.h is: it has constant variables as lengths of arrays. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "third_party/hccl/inc/hccl/hccl.h"

extern "C" {
#include "account.h"
}

constexpr uint32_t RANKS = 16;         /* at most: one for each chip of a machine */
constexpr size_t SLOT = 1 << 20;       /* bytes that a rank shows the others in one exchange */
constexpr size_t MESSAGE = 256 << 10;  /* bytes that are on the way from one rank to another */

/* What all ranks must agree on in a collective. */
struct Call {
  int32_t command; /* HcclCMDType */
  int32_t type;    /* HcclDataType */
  int32_t op;      /* HcclReduceOp */
  int32_t root;
  uint64_t count;
};

struct Slot {
  Call call;
  char bytes[SLOT];
};

/* From one rank to another. */
struct Channel {
  uint64_t total; /* bytes of the message */
  uint64_t nbytes;
  uint32_t full;
  char bytes[MESSAGE];
};

struct Member {
  int32_t pid;
  int32_t chip;
  int64_t start; /* account_start_time */
  int32_t joined;
};

/* The file: this, size * size channels, 2 * size slots. A new file of zeros is a valid one. */
struct Shared {
  uint32_t size;
  uint32_t present;
  uint32_t arrived; /* ranks that wait for the others in this round */
  uint32_t round;
  uint32_t changes; /* a futex that each change wakes */
  int32_t broken;   /* HcclResult of every call from now on */
  Member members[RANKS];
};

struct Comm {
  Shared *shared;
  size_t mapped;
  uint32_t rank, size, round;
  int chip;
  int timeout;         /* seconds of a call; 0: none */
  uint64_t buffsize;   /* bytes */
  uint64_t held;       /* bytes of the chip */
  char id[192];        /* name of the file */
  char name[COMM_NAME_MAX_LENGTH];
};

/* Wait until all ranks have joined the communicator of this id. */
HcclResult comm_join(Comm *comm, int timeout);
void comm_leave(Comm *comm);

/* Tell the others of a change. */
void comm_changed(Comm *comm);

/* Sleep until something changes. An error when a rank of the mask has exited, when the communicator is
   broken, or when it is later than the deadline (CLOCK_MONOTONIC ns; 0: none). */
HcclResult comm_sleep(Comm *comm, uint32_t seen, uint32_t mask, int64_t deadline);
int64_t comm_deadline(int timeout);

/* Let every later call of every rank fail. Return the first code. */
HcclResult comm_break(Comm *comm, HcclResult code);

template <class Done>
HcclResult comm_wait(Comm *comm, uint32_t mask, int timeout, Done done) {
  int64_t deadline = comm_deadline(timeout);
  for (;;) {
    uint32_t seen = __atomic_load_n(&comm->shared->changes, __ATOMIC_SEQ_CST);
    if (done()) return HCCL_SUCCESS;
    HcclResult failure = comm_sleep(comm, seen, mask, deadline);
    /* A rank may do its part and exit between the two. */
    if (failure != HCCL_SUCCESS) return done() ? HCCL_SUCCESS : comm_break(comm, failure);
  }
}

/* Begin a call: fail on request, take the buffers of the chip, write the journal. */
HcclResult comm_begin(Comm *comm, const char *name, uint64_t nbytes);

/* The bytes that this rank shows in the next exchange, and those of a rank in the last one. They stay until this
   rank enters the exchange after the next. */
char *comm_mine(Comm *comm);
char *comm_theirs(Comm *comm, uint32_t rank);
HcclResult comm_exchange(Comm *comm, const Call *call);

Channel *comm_channel(Comm *comm, uint32_t from, uint32_t to);

/* Bytes of an element; 0 for an unknown type. */
size_t type_size(HcclDataType type);
bool reducible(HcclDataType type, HcclReduceOp op);

/* Reduce `count` elements of each input in order of the ranks. */
void reduce(HcclDataType type, HcclReduceOp op, void *output, const char *const *inputs, uint32_t ranks,
            uint64_t count);
