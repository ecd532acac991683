/* Pinned memory of the host. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "account.h"
#include "acl/acl_rt.h"
#include "acl/error_codes/rt_error_codes.h"
#include "memory.h"

aclError aclrtMallocHost(void **hostPtr, size_t size) {
  if (!hostPtr || !size) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s of %zu bytes", __func__, size);
  int code = account_fault(__func__, -1);
  if (code) return code;
  if (posix_memalign(hostPtr, 4096, size)) return ACL_ERROR_RT_MEMORY_ALLOCATION;
  ranges_lock();
  ranges_add((struct range){.begin = *hostPtr, .nbytes = size, .source = PINNED, .chip = -1, .file = -1});
  ranges_unlock();
  account_record(__func__, -1, size);
  return ACL_SUCCESS;
}

/* With the attribute ACL_RT_MEM_ATTR_VA_FLAG the address is the same on the device: it is here in any case. */
aclError aclrtMallocHostWithCfg(void **ptr, uint64_t size, aclrtMallocConfig *cfg) {
  (void)cfg;
  return aclrtMallocHost(ptr, size);
}

aclError aclrtFreeHost(void *hostPtr) {
  ranges_lock();
  struct range *found = ranges_at(hostPtr, PINNED);
  size_t nbytes = found ? found->nbytes : 0;
  if (found) ranges_remove(found);
  ranges_unlock();
  if (!found) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s of %p, not of aclrtMallocHost", __func__, hostPtr);
  free(hostPtr);
  account_record(__func__, -1, nbytes);
  return ACL_SUCCESS;
}

aclError aclrtPointerGetAttributes(const void *ptr, aclrtPtrAttributes *attributes) {
  ranges_lock();
  struct range *found = ranges_around(ptr, 1);
  *attributes = (aclrtPtrAttributes){.location.type = ACL_MEM_LOCATION_TYPE_UNREGISTERED};
  if (found && found->source == PINNED) {
    attributes->location.type = ACL_MEM_LOCATION_TYPE_HOST;
  } else if (found) {
    attributes->location = (aclrtMemLocation){.id = (uint32_t)found->device, .type = ACL_MEM_LOCATION_TYPE_DEVICE};
  }
  ranges_unlock();
  return ACL_SUCCESS;
}
