/* The memory that the ranks of a communicator share, and how they wait for each other. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hccl_comm.h"

/* How long a rank sleeps before it looks at the other processes. */
constexpr int64_t LOOK = 100 * 1000 * 1000;

static int64_t now() {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t comm_deadline(int timeout) { return timeout > 0 ? now() + (int64_t)timeout * 1000000000 : 0; }

void comm_changed(Comm *comm) {
  __atomic_add_fetch(&comm->shared->changes, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, &comm->shared->changes, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

HcclResult comm_break(Comm *comm, HcclResult code) {
  int32_t none = 0;
  if (__atomic_compare_exchange_n(&comm->shared->broken, &none, code, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    none = code;
  comm_changed(comm);
  return (HcclResult)none;
}

/* A rank whose process has exited, or -1. */
static int exited(Comm *comm, uint32_t mask) {
  for (uint32_t rank = 0; rank < comm->size; rank++) {
    Member *member = &comm->shared->members[rank];
    if (rank == comm->rank || !(mask >> rank & 1) || !__atomic_load_n(&member->joined, __ATOMIC_SEQ_CST)) continue;
    if (account_start_time(member->pid) != member->start) return (int)rank;
  }
  return -1;
}

HcclResult comm_sleep(Comm *comm, uint32_t seen, uint32_t mask, int64_t deadline) {
  Shared *shared = comm->shared;
  if (int32_t broken = __atomic_load_n(&shared->broken, __ATOMIC_SEQ_CST)) return (HcclResult)broken;
  struct timespec time = {0, LOOK};
  if (syscall(SYS_futex, &shared->changes, FUTEX_WAIT, seen, &time, NULL, 0) == 0 || errno != ETIMEDOUT)
    return HCCL_SUCCESS;
  /* The real HCCL does not see this and times out. */
  int rank = exited(comm, mask);
  if (rank >= 0)
    return (HcclResult)account_complain(HCCL_E_TIMEOUT, "rank %u of %s waits for rank %d, which has exited",
                                        comm->rank, comm->name, rank);
  if (deadline && now() > deadline)
    return (HcclResult)account_complain(HCCL_E_TIMEOUT, "rank %u of %s waited too long", comm->rank, comm->name);
  return HCCL_SUCCESS;
}

static HcclResult map_file(Comm *comm, char *path, size_t length) {
  const char *machine = getenv("CANN_STAND_IN");
  snprintf(path, length, "%s/hccl", machine ? machine : "");
  mkdir(path, 0777);
  snprintf(path, length, "%s/hccl/%s", machine ? machine : "", comm->id);
  comm->mapped = sizeof(Shared) + comm->size * comm->size * sizeof(Channel) + 2 * comm->size * sizeof(Slot);
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  void *at = MAP_FAILED;
  if (file >= 0 && ftruncate(file, (off_t)comm->mapped) == 0)
    at = mmap(NULL, comm->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (at == MAP_FAILED)
    return (HcclResult)account_complain(HCCL_E_OPEN_FILE_FAILURE, "%s: %s", path, strerror(errno));
  comm->shared = (Shared *)at;
  return HCCL_SUCCESS;
}

/* Enter this rank; the last one removes the name of the file, so that the id can be used again. */
static HcclResult enter(Comm *comm, const char *path) {
  Shared *shared = comm->shared;
  uint32_t size = 0;
  __atomic_compare_exchange_n(&shared->size, &size, comm->size, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  if (size && size != comm->size)
    return (HcclResult)account_complain(HCCL_E_PARA, "%s has %u ranks, not %u", comm->name, size, comm->size);
  Member *member = &shared->members[comm->rank];
  int32_t pid = 0;
  if (!__atomic_compare_exchange_n(&member->pid, &pid, getpid(), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    return (HcclResult)account_complain(HCCL_E_PARA, "rank %u of %s is process %d", comm->rank, comm->name, pid);
  member->chip = comm->chip;
  member->start = account_start_time(getpid());
  __atomic_store_n(&member->joined, 1, __ATOMIC_SEQ_CST);
  if (__atomic_add_fetch(&shared->present, 1, __ATOMIC_SEQ_CST) == comm->size) unlink(path);
  comm_changed(comm);
  return HCCL_SUCCESS;
}

/* Two ranks on one device are refused: "device id repeat for one server", hcomm v9.1.0-beta.1
   src/framework/common/src/topo/topoinfo_parse.cc:192. */
static HcclResult check_chips(Comm *comm) {
  uint32_t chips = 0;
  for (uint32_t rank = 0; rank < comm->size; rank++) {
    int chip = comm->shared->members[rank].chip;
    if (chips >> chip & 1)
      return (HcclResult)account_complain(HCCL_E_PARA, "two ranks of %s are on chip %d", comm->name, chip);
    chips |= 1u << chip;
  }
  return HCCL_SUCCESS;
}

HcclResult comm_join(Comm *comm, int timeout) {
  char path[4096];
  HcclResult result = map_file(comm, path, sizeof path);
  if (result != HCCL_SUCCESS) return result;
  result = enter(comm, path);
  Shared *shared = comm->shared;
  auto complete = [shared, comm] { return __atomic_load_n(&shared->present, __ATOMIC_SEQ_CST) == comm->size; };
  if (result == HCCL_SUCCESS) result = comm_wait(comm, UINT32_MAX, timeout, complete);
  if (result == HCCL_SUCCESS) result = check_chips(comm);
  if (result != HCCL_SUCCESS) {
    unlink(path);
    comm_break(comm, result);
    munmap(comm->shared, comm->mapped);
  }
  return result;
}

void comm_leave(Comm *comm) { munmap(comm->shared, comm->mapped); }

Channel *comm_channel(Comm *comm, uint32_t from, uint32_t to) {
  return (Channel *)(comm->shared + 1) + from * comm->size + to;
}

/* Two slots of each rank, used in turn: a rank that fills one has waited for the others since it filled the other,
   and they had read the first by then. */
static Slot *slot(Comm *comm, uint32_t rank, uint32_t round) {
  return (Slot *)comm_channel(comm, comm->size, 0) + (round & 1) * comm->size + rank;
}

char *comm_mine(Comm *comm) { return slot(comm, comm->rank, comm->round)->bytes; }
char *comm_theirs(Comm *comm, uint32_t rank) { return slot(comm, rank, comm->round - 1)->bytes; }

HcclResult comm_exchange(Comm *comm, const Call *call) {
  Shared *shared = comm->shared;
  uint32_t round = comm->round;
  if (int32_t broken = __atomic_load_n(&shared->broken, __ATOMIC_SEQ_CST)) return (HcclResult)broken;
  slot(comm, comm->rank, round)->call = *call;
  if (__atomic_add_fetch(&shared->arrived, 1, __ATOMIC_SEQ_CST) == comm->size) {
    __atomic_store_n(&shared->arrived, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&shared->round, round + 1, __ATOMIC_SEQ_CST);
    comm_changed(comm);
  } else {
    auto complete = [shared, round] { return __atomic_load_n(&shared->round, __ATOMIC_SEQ_CST) != round; };
    HcclResult result = comm_wait(comm, UINT32_MAX, comm->timeout, complete);
    if (result != HCCL_SUCCESS) return result;
  }
  comm->round = round + 1;
  for (uint32_t rank = 0; rank < comm->size; rank++) {
    Call *theirs = &slot(comm, rank, round)->call;
    if (memcmp(theirs, call, sizeof *call) == 0) continue;
    account_complain(HCCL_E_PARA, "rank %u of %s is in call %d (type %d, op %d, root %d, count %llu), rank %u in %d "
                                  "(type %d, op %d, root %d, count %llu)",
                     comm->rank, comm->name, call->command, call->type, call->op, call->root,
                     (unsigned long long)call->count, rank, theirs->command, theirs->type, theirs->op, theirs->root,
                     (unsigned long long)theirs->count);
    return comm_break(comm, HCCL_E_PARA);
  }
  return HCCL_SUCCESS;
}
