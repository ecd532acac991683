/* Devices and what they say of themselves. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "account.h"
#include "acl/acl.h"
#include "acl/error_codes/rt_error_codes.h"

static _Thread_local int current = -1;
static int used[MACHINE_CHIPS]; /* by device: this process has set it */

int account_current_device(void) { return current; }

static aclError check(const char *name, int64_t device) {
  if (account_chip((int)device) >= 0) return ACL_SUCCESS;
  return account_complain(ACL_ERROR_RT_INVALID_DEVICEID, "%s: device %d of %d", name, (int)device, account_devices());
}

aclError aclInit(const char *configPath) {
  static int initialized;
  (void)configPath;
  account_machine();
  if (initialized) return ACL_ERROR_REPEAT_INITIALIZE;
  initialized = 1;
  return ACL_SUCCESS;
}

aclError aclrtGetDeviceCount(uint32_t *count) {
  *count = (uint32_t)account_devices();
  return ACL_SUCCESS;
}

aclError aclrtSetDevice(int32_t deviceId) {
  aclError code = check(__func__, deviceId);
  if (code) return code;
  if (current != deviceId) account_record(__func__, account_chip(deviceId), 0);
  current = deviceId;
  used[deviceId] = 1;
  return ACL_SUCCESS;
}

/* Without a device torch_npu takes 107002 for "none yet" and sets one, which makes it a used device
   (NPUFunctions.cpp, GetDevice and SetDevice). Of unused devices empty_cache frees nothing. */
aclError aclrtGetDevice(int32_t *deviceId) {
  if (current < 0) return ACL_ERROR_RT_CONTEXT_NULL;
  *deviceId = current;
  return ACL_SUCCESS;
}

aclError aclrtResetDevice(int32_t deviceId) {
  aclError code = check(__func__, deviceId);
  if (code) return code;
  if (current == deviceId) current = -1;
  used[deviceId] = 0;
  return ACL_SUCCESS;
}

/* A context is the default one of a device, named by its address here. */
aclError aclrtGetCurrentContext(aclrtContext *context) {
  if (current < 0) return ACL_ERROR_RT_CONTEXT_NULL;
  *context = &used[current];
  return ACL_SUCCESS;
}

aclError aclrtSetCurrentContext(aclrtContext context) {
  int *found = context;
  if (found < used || found >= used + MACHINE_CHIPS) {
    return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: not a context", __func__);
  }
  return aclrtSetDevice((int32_t)(found - used));
}

aclError aclrtGetPrimaryCtxState(int32_t deviceId, uint32_t *flags, int32_t *active) {
  (void)flags;
  aclError code = check(__func__, deviceId);
  if (!code) *active = used[deviceId];
  return code;
}

const char *aclrtGetSocName(void) { return "Ascend910B1"; }

/* An Ascend910B1: 24 cube cores, 48 vector cores, 192 MiB of L2. */
aclError aclGetDeviceCapability(uint32_t deviceId, aclDeviceInfo deviceInfo, int64_t *value) {
  static const int64_t values[] = {
      [ACL_DEVICE_INFO_AI_CORE_NUM] = 24, [ACL_DEVICE_INFO_VECTOR_CORE_NUM] = 48, [ACL_DEVICE_INFO_L2_SIZE] = 192 << 20};
  aclError code = check(__func__, deviceId);
  if (code) return code;
  *value = values[deviceInfo];
  return ACL_SUCCESS;
}

/* torch_npu/csrc/npu/Module.cpp, initDeviceProperty, takes 207000 for a driver without uuids. In the mode "shared" two
   neighboring chips are the dies of one card. */
aclError aclrtDeviceGetUuid(int32_t deviceId, aclrtUuid *uuid) {
  const struct machine *machine = account_machine();
  aclError code = check(__func__, deviceId);
  if (code) return code;
  if (machine->uuid_mode == UUID_NONE) return ACL_ERROR_RT_FEATURE_NOT_SUPPORT;
  int chip = account_chip(deviceId);
  memset(uuid, 0, sizeof *uuid);
  uuid->bytes[0] = 1;
  uuid->bytes[15] = (char)(machine->uuid_mode == UUID_SHARED ? chip / 2 : chip);
  return ACL_SUCCESS;
}

/* The pid outside of containers. */
aclError aclrtDeviceGetBareTgid(int32_t *pid) {
  *pid = getpid();
  return ACL_SUCCESS;
}

aclError aclrtGetLogicDevIdByUserDevId(const int32_t userDevid, int32_t *const logicDevId) {
  *logicDevId = userDevid;
  return check(__func__, userDevid);
}

aclError aclrtDeviceCanAccessPeer(int32_t *canAccessPeer, int32_t deviceId, int32_t peerDeviceId) {
  *canAccessPeer = deviceId != peerDeviceId;
  aclError code = check(__func__, deviceId);
  return code ? code : check(__func__, peerDeviceId);
}

aclError aclrtSynchronizeDevice(void) { return ACL_SUCCESS; }

aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout) {
  (void)timeout;
  return ACL_SUCCESS;
}

/* Determinism among others (OpParamMaker.cpp, ApplyDeterministicSnapshotLocked, reads it before it is set). */
static int64_t options[3];

aclError aclrtSetSysParamOpt(aclSysParamOpt opt, int64_t value) {
  options[opt] = value;
  return ACL_SUCCESS;
}

aclError aclrtCtxSetSysParamOpt(aclSysParamOpt opt, int64_t value) { return aclrtSetSysParamOpt(opt, value); }

aclError aclrtGetSysParamOpt(aclSysParamOpt opt, int64_t *value) {
  *value = options[opt];
  return ACL_SUCCESS;
}

const char *aclGetRecentErrMsg(void) { return ""; }
