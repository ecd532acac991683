/* libhccl: creation and destruction of communicators.

   torch_npu: torch_npu/csrc/distributed of github.com/Ascend/pytorch at 94c0533ba69b (v26.2.0-beta.1-pytorch2.13.0).
   hcomm: the communicators of CANN, gitcode.com/cann/hcomm at v9.1.0-beta.1 (998475d6b2f6).
   No function is defined that torch_npu does not call on Atlas A2: it takes a missing one for an older CANN. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hccl_comm.h"

constexpr uint64_t MB = 1 << 20; /* HCCL_CCL_COMM_FIXED_CALC_BUFFER_SIZE in hcomm */

static int environment(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}

/* The buffers are taken at the first collective or message of a communicator of several ranks: in hcomm
   HcclCommunicator::ExecOp and others call CreateCommCCLbuffer (hccl_communicator_host.cc:4318), which allocates one
   for input, one for output and EXP_BUFFER_SIZE of 1 MB (ccl_buffer_manager.cc:61). */
HcclResult comm_begin(Comm *comm, const char *name, uint64_t nbytes) {
  if (!comm) return HCCL_E_PTR;
  if (int code = account_fault(name, comm->chip)) return (HcclResult)code;
  if (!comm->held && comm->size > 1) {
    uint64_t buffers = 2 * comm->buffsize + MB;
    if (account_take(comm->chip, KIND_HCCL, buffers)) /* adapter_rts.cc:651 in hcomm */
      return (HcclResult)account_complain(HCCL_E_OOM, "%s: no %llu bytes on chip %d for the buffers of %s", name,
                                          (unsigned long long)buffers, comm->chip, comm->name);
    comm->held = buffers;
  }
  account_record(name, comm->chip, nbytes);
  return HCCL_SUCCESS;
}

static HcclResult create(const char *function, const char *id, uint32_t size, uint32_t rank,
                         const HcclCommConfig *config, HcclComm *result) {
  if (!result) return HCCL_E_PTR;
  *result = NULL;
  int chip = account_chip(account_current_device());
  if (chip < 0) return (HcclResult)account_complain(HCCL_E_RUNTIME, "%s: no device is set", function);
  if (int code = account_fault(function, chip)) return (HcclResult)code;
  if (!size || size > RANKS || rank >= size)
    return (HcclResult)account_complain(HCCL_E_PARA, "%s: rank %u of %u", function, rank, size);
  Comm *comm = (Comm *)calloc(1, sizeof *comm);
  comm->size = size;
  comm->rank = rank;
  comm->chip = chip;
  snprintf(comm->id, sizeof comm->id, "%s", id);
  bool named = config && config->hcclCommName[0];
  snprintf(comm->name, sizeof comm->name, "%.127s", named ? config->hcclCommName : id);
  /* The configuration has priority over the environment: HcclCommConfig.md in docs/zh/api_ref of hcomm. */
  bool sized = config && config->hcclBufferSize != HCCL_COMM_BUFFSIZE_CONFIG_NOT_SET;
  int megabytes = sized ? (int)config->hcclBufferSize : environment("HCCL_BUFFSIZE", HCCL_COMM_DEFAULT_BUFFSIZE);
  bool timed = config && config->hcclExecTimeOut != HCCL_COMM_EXECTIMEOUT_CONFIG_NOT_SET;
  /* HCCL_EXEC_TIMEOUT.md and HCCL_CONNECT_TIMEOUT.md in docs/en/user_guide/hccl_env of github.com/hicann/hccl. The
     real one refuses to connect in less than 120 seconds; tests do not wait so long. */
  comm->timeout = timed ? config->hcclExecTimeOut : environment("HCCL_EXEC_TIMEOUT", 1836);
  comm->buffsize = megabytes * MB;
  HcclResult failure = HCCL_E_PARA;
  if (megabytes < 1)
    account_complain(failure, "%s: buffers of %d MB", function, megabytes);
  else
    failure = comm_join(comm, environment("HCCL_CONNECT_TIMEOUT", 120));
  if (failure != HCCL_SUCCESS) {
    free(comm);
    return failure;
  }
  account_record(function, chip, 0);
  *result = comm;
  return HCCL_SUCCESS;
}

extern "C" {

HcclResult HcclGetRootInfo(HcclRootInfo *root) {
  static uint32_t count;
  struct timespec time;
  if (!root) return HCCL_E_PTR;
  if (int code = account_fault(__func__, account_chip(account_current_device()))) return (HcclResult)code;
  clock_gettime(CLOCK_MONOTONIC, &time);
  memset(root, 0, sizeof *root);
  snprintf(root->internal, sizeof root->internal, "%d-%lld%09ld-%u", getpid(), (long long)time.tv_sec, time.tv_nsec,
           __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST));
  return HCCL_SUCCESS;
}

HcclResult HcclCommInitRootInfo(uint32_t size, const HcclRootInfo *root, uint32_t rank, HcclComm *comm) {
  return root ? create(__func__, root->internal, size, rank, NULL, comm) : HCCL_E_PTR;
}

HcclResult HcclCommInitRootInfoConfig(uint32_t size, const HcclRootInfo *root, uint32_t rank,
                                      const HcclCommConfig *config, HcclComm *comm) {
  return root && config ? create(__func__, root->internal, size, rank, config, comm) : HCCL_E_PTR;
}

/* torch_npu calls it with ROOTINFO_SUBCOMM_ENABLE=1 only (createHCCLCommSub in ProcessGroupHCCL.cpp). */
HcclResult HcclCreateSubCommConfig(HcclComm *comm, uint32_t size, uint32_t *ranks, uint64_t id, uint32_t rank,
                                   HcclCommConfig *config, HcclComm *result) {
  Comm *whole = comm ? (Comm *)*comm : NULL;
  char name[sizeof whole->id];
  if (!whole || !config) return HCCL_E_PTR;
  if (!ranks) return HCCL_SUCCESS; /* this rank is in no part */
  if (rank >= size || ranks[rank] != whole->rank)
    return (HcclResult)account_complain(HCCL_E_PARA, "%s: rank %u of a part of %s", __func__, rank, whole->name);
  snprintf(name, sizeof name, "%.150s-sub-%llx", whole->id, (unsigned long long)id);
  return create(__func__, name, size, rank, config, result);
}

HcclResult HcclCommDestroy(HcclComm handle) {
  Comm *comm = (Comm *)handle;
  if (!comm) return HCCL_E_PTR;
  if (comm->held) account_release(comm->chip, KIND_HCCL, comm->held);
  account_record(__func__, comm->chip, comm->held);
  comm_leave(comm);
  free(comm);
  return HCCL_SUCCESS;
}

HcclResult HcclGetCommName(HcclComm comm, char *name) {
  if (!comm || !name) return HCCL_E_PTR;
  memcpy(name, ((Comm *)comm)->name, COMM_NAME_MAX_LENGTH);
  return HCCL_SUCCESS;
}

/* Only for errors of the network between machines: HcclGetCommAsyncError.md in docs/zh/api_ref of hcomm. */
HcclResult HcclGetCommAsyncError(HcclComm comm, HcclResult *error) {
  if (!comm || !error) return HCCL_E_PTR;
  *error = HCCL_SUCCESS;
  return HCCL_SUCCESS;
}

uint32_t HcclGetCommConfigCapability() { return HCCL_COMM_CONFIG_RESERVED; }

/* Reductions are deterministic here. */
HcclResult HcclSetConfig(HcclConfig, HcclConfigValue) { return HCCL_SUCCESS; }

/* vllm-ascend's pyhccl calls it. */
const char *HcclGetErrorString(HcclResult code) {
  switch (code) {
    case HCCL_SUCCESS:
      return "no error";
    case HCCL_E_PARA:
      return "parameter error";
    case HCCL_E_PTR:
      return "empty pointer";
    case HCCL_E_NOT_SUPPORT:
      return "not support feature";
    case HCCL_E_TIMEOUT:
      return "timeout";
    case HCCL_E_OOM:
      return "out of memory";
    default:
      return "unknown error";
  }
}
}
